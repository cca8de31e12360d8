"""Where the shared traces are, and how a small spec is made."""

from pathlib import Path

import pytest
from tests.kit.paths import SHARED_TRACES


@pytest.fixture(scope="session")
def traces() -> Path:
    if not SHARED_TRACES.is_dir():
        pytest.skip("the shared traces are not on this machine (../shared/traces)")
    return SHARED_TRACES
