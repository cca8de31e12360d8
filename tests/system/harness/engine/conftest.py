"""An engine for the tests of its HTTP face."""

from collections.abc import Iterator

import pytest
from tests.kit.engine import engine_process


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """An engine with a small cache, shared by a module's tests."""
    flags = ("--max-model-len", "4096", "--enable-per-request-metrics", "--enable-prompt-tokens-details")
    with engine_process(*flags) as (base, _):
        yield base
