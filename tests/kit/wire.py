"""A real `Connection` on a real loop and a real socket, in one thread: bytes come in exactly the pieces given.

Each piece is sent only after the one before has been read, so a split is a split of reads, not of writes.
"""

import contextlib
import socket
import time
from collections.abc import Sequence

from tailgate.loadgen.injector.api.openai_response import Reading
from tailgate.loadgen.injector.client_stats import ClientStats
from tailgate.loadgen.injector.event_loop import EventLoop
from tailgate.loadgen.injector.exchange import Exchange
from tailgate.loadgen.injector.http.connection import Connection
from tailgate.loadgen.injector.http.endpoint import Endpoint
from tailgate.loadgen.injector.kernel_timestamps import StampKeeper
from tailgate.loadgen.records import SPOOL_SCHEMA, Status

REQUEST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


def endpoint(address: tuple[str, int]) -> Endpoint:
    """Plain TCP to an address."""
    return Endpoint("http://x", socket.AF_INET, address, "x", "/v1/completions", "x")


def new_exchange(*, chat: bool = False, vllm: bool = True, streamed: bool = True) -> Exchange:
    """A request with nothing in it."""
    return Exchange(0, "tg-test-0", REQUEST, Reading(chat=chat, vllm=vllm), streamed=streamed)


class Wire:
    """One listening socket and one loop, for as many exchanges as wanted."""

    def __init__(self, kind: type[Connection] = Connection) -> None:
        self._kind = kind
        self._stamps = StampKeeper()  # from here on the kernel stamps
        self.loop = EventLoop()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = endpoint(self._listener.getsockname())

    def close(self) -> None:
        """Give the descriptors back."""
        self._listener.close()
        self._stamps.close()
        self.loop.close()

    def answer(
        self, pieces: Sequence[bytes], exchange: Exchange | None = None, *, then: str = "close", late_us: int = 0
    ) -> Exchange:
        """Connect, send the request, take these pieces for an answer; the exchange when it has ended.

        ``then``: what the server does behind the last piece: close, or stay (the exchange is then ended by us
        with `TIMEOUT`, as a deadline would). ``late_us``: so long after it has come is a piece read, at the least.
        """
        exchange = exchange or new_exchange()
        ended: list[Exchange] = []

        def on_end(_connection: Connection, it: Exchange) -> None:
            ended.append(it)
            if it.status is None:  # a whole answer, to be read at leisure
                it.conclude()
            self.loop.stop()

        connection = self._kind(self.loop, self.endpoint, ClientStats(0), on_end)
        connection.send(exchange)
        server, _ = self._listener.accept()
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while len(server.recv(len(REQUEST))) == 0:  # unread, it would make a reset of the close
            pass
        left = list(reversed(pieces))
        sent, patience = 0, time.monotonic_ns() + 10_000_000_000

        def turn(_now_ns: int) -> bool:
            """Called once a turn of the loop, in front of its poll."""
            nonlocal sent
            if time.monotonic_ns() > patience:
                self.loop.stop()
            elif ended or received(exchange) < sent:  # it has not read the last piece yet
                pass
            elif left:
                piece = left.pop()
                sent += len(piece)
                with contextlib.suppress(OSError):  # the client has hung up on us
                    server.sendall(piece)
                until = time.monotonic_ns() + 1_000 * late_us
                while time.monotonic_ns() < until:
                    pass
            elif then == "close":
                server.close()
            else:
                connection.hang_up(Status.TIMEOUT, "no more came")
            return True

        self.loop.idle = turn
        if not ended:
            self.loop.run()
        self.loop.idle = lambda _now_ns: False
        server.close()
        connection.close()
        assert ended, "the exchange did not end"
        assert len(ended) == 1
        return exchange


def received(exchange: Exchange) -> int:
    """Bytes of the answer so far."""
    intake = exchange.stream.intake
    return exchange.bytes_received + (intake.received if intake is not None else 0)


def record(exchange: Exchange) -> dict[str, object]:
    """The exchange's row, by column."""
    row = exchange.record(0, ["http://x"], 0)
    return dict(zip(SPOOL_SCHEMA.names, row, strict=True))
