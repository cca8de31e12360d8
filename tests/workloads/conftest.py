"""Where the shared traces are, and how a small spec is made."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2].parent / "shared" / "traces"


@pytest.fixture(scope="session")
def traces() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the shared traces are not on this machine (../shared/traces)")
    return SHARED
