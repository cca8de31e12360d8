"""Fixtures of the load generator's tests; the tools are in scripted.py, driving.py and wire.py."""

from collections.abc import Iterator

import pytest
from wire import Wire


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """A loop and a listening socket in this thread."""
    made = Wire()
    yield made
    made.close()
