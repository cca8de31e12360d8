"""Fixtures of the load generator's tests; the tools are in scripted.py, driving.py and wire.py."""

from collections.abc import Iterator

import pytest
from hypothesis import settings
from wire import Wire

# The machine's load is nobody's fault.
settings.register_profile("loadgen", deadline=None)
settings.load_profile("loadgen")


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """A loop and a listening socket in this thread."""
    made = Wire()
    yield made
    made.close()
