"""Fixtures of the load generator's tests; the tools are in scripted.py, driving.py and wire.py."""

from collections.abc import Iterator

import pytest
from tests.kit.wire import Wire

from tailgate.loadgen.injector.http import AVAILABLE
from tailgate.loadgen.injector.http.connection import Connection
from tailgate.loadgen.injector.http.fast_connection import FastConnection


@pytest.fixture(scope="module", params=[Connection, FastConnection], ids=["python", "compiled"])
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """A loop and a listening socket in this thread; answers are read in Python, or by the extension."""
    if request.param is FastConnection and not AVAILABLE:
        pytest.skip("the extension was not built: there is no C compiler")
    made = Wire(request.param)
    yield made
    made.close()
