"""The event loop over TCP."""

import socket
import time
from collections.abc import Iterator

import pytest
from tests.kit.wire import endpoint, new_exchange

from tailgate.loadgen.injector.client_stats import ClientStats
from tailgate.loadgen.injector.event_loop import EventLoop
from tailgate.loadgen.injector.http.connection import Connection

MS = 1_000_000


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    made = EventLoop()
    yield made
    made.close()


def _lag_after_a_slow_turn(loop: EventLoop, listener: socket.socket) -> int:
    conduct = ClientStats(0)
    conduct.kernel_stamps = False
    connection = Connection(loop, endpoint(listener.getsockname()), conduct, lambda *_: loop.stop())
    connection.send(new_exchange())
    server, _ = listener.accept()

    def busy() -> None:
        server.sendall(b"not HTTP")
        time.sleep(0.03)

    loop.at(time.monotonic_ns(), busy)
    loop.run()
    server.close()
    connection.close()
    assert conduct.unstamped == len(conduct.lags) == 1
    return conduct.lags[0]


def test_without_kernel_stamps_a_read_after_a_slow_turn_counts_as_late(loop: EventLoop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert all(_lag_after_a_slow_turn(loop, listener) >= 30 * MS for _ in range(5))
