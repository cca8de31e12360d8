"""The exact server, compiled once."""

from pathlib import Path

import pytest
from tests.kit.machines import compiled


@pytest.fixture(scope="session")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("exact"))
