"""One real vLLM for the whole tier."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.vllm.server import Server, serving, write_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's directory."""
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A vLLM with vLLM's own defaults."""
    with serving(model, tmp_path_factory.mktemp("vllm") / "vllm.log") as running:
        yield running
