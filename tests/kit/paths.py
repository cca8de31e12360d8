"""Where things lie in the repository."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED_TRACES = ROOT.parent / "shared" / "traces"
SHARED_CASES = ROOT.parent / "shared" / "cases"
FAKE_NVML = ROOT / "tests" / "kit" / "fake_nvml.c"
EXACT_SERVER = ROOT / "tests" / "bench" / "exact_server.c"
SMALL_SERVER = ROOT / "tests" / "kit" / "small_server.py"
