"""For all tests: hypothesis judges results, not the time they took on a machine that has other things to do; and what
Tailgate keeps in the user's cache folder (calibrations, vLLM's flags) is neither read nor written.
"""

import os
import tempfile
from pathlib import Path

from hypothesis import settings

settings.register_profile("tailgate", deadline=None)
settings.load_profile("tailgate")

os.environ.setdefault("VLLM_CACHE_ROOT", str(Path.home() / ".cache" / "vllm"))  # vLLM compiles for minutes
_CACHE = tempfile.TemporaryDirectory(prefix="tailgate-cache-")  # lives as long as this process
os.environ["XDG_CACHE_HOME"] = _CACHE.name
