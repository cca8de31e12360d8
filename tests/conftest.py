"""For all tests: hypothesis judges results, not the time they took on a machine that has other things to do; what
Tailgate keeps in the user's cache folder (calibrations, vLLM's flags) is neither read nor written; and nobody imports
Locust, which patches sockets and `select` for all tests that come after.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.kit.paths import SHARED_TRACES

# The same cases every time: what lands doesn't hang on a throw of the dice. New ones are looked for with
# `pytest --hypothesis-profile explore`, and what that finds becomes an example in the test.
settings.register_profile("tailgate", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("tailgate")

os.environ.setdefault("VLLM_CACHE_ROOT", str(Path.home() / ".cache" / "vllm"))  # vLLM compiles for minutes
os.environ.pop("COLUMNS", None)  # documents heed it, and whoever runs the tests may have a narrow terminal
_CACHE = tempfile.TemporaryDirectory(prefix="tailgate-cache-")  # lives as long as this process
os.environ["XDG_CACHE_HOME"] = _CACHE.name


@pytest.fixture(scope="module", autouse=True)
def _unpatched() -> Iterator[None]:
    yield
    assert "gevent" not in sys.modules, "Locust was imported here: do that in a process of its own"


@pytest.fixture(scope="session")
def traces() -> Path:
    if not SHARED_TRACES.is_dir():
        pytest.skip("the shared traces are not on this machine (../shared/traces)")
    return SHARED_TRACES
