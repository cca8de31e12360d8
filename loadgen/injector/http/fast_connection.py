"""A connection whose usual reads are compiled: `Connection` with a short cut through chunked bodies.

Once a stream's head and its first whole chunks have been read in Python, the rest is read by `_intake.Intake`, from
within the loop's wait (`_intake.Poll`): Python is not called once a token any more, but once an answer. At whatever is
unusual it takes over again, from the very byte, and stays. Where the extension isn't there, `Connection` does
it all. Both ways give the same record (tests/system/loadgen/injector/http/test_intake.py).
"""

import os
import socket
from typing import TYPE_CHECKING, Final

from tailgate.loadgen.injector.client_stats import ClientStats
from tailgate.loadgen.injector.event_loop import EventLoop
from tailgate.loadgen.injector.http import AVAILABLE
from tailgate.loadgen.injector.http.connection import Connection, Ended
from tailgate.loadgen.injector.http.endpoint import Endpoint
from tailgate.loadgen.injector.http.read_times import held_by_ack
from tailgate.loadgen.injector.http.transport import Read, whose
from tailgate.loadgen.records import LAG_EDGES_NS, Status

if AVAILABLE or TYPE_CHECKING:
    from tailgate.loadgen.injector.http import _intake

_LAST_CHUNK: Final = b"0\r\n\r\n"


def _poll_of(loop: EventLoop) -> "_intake.Poll":
    if loop.other_poller is None:
        loop.use(_intake.Poll(loop.epoll, LAG_EDGES_NS.tobytes(), loop.looked_ns))
    assert isinstance(loop.other_poller, _intake.Poll)
    return loop.other_poller


class FastConnection(Connection):
    """A connection over plain TCP with kernel stamps, read by the compiled `_intake`."""

    def __init__(self, loop: EventLoop, endpoint: Endpoint, stats: ClientStats, ended: Ended) -> None:
        super().__init__(loop, endpoint, stats, ended)
        self._poll = _poll_of(loop)
        stats.other_lags = self._poll.drain_lags
        self._intake = _intake.Intake()
        wanted = stats.delayed_acks
        self._delayed_acks = wanted == "always" or (wanted == "loopback" and endpoint.on_loopback)
        self._taking = False  # the intake reads
        self._between_chunks = False
        self._unusual = False  # something was, in this answer

    def on_chunk_header(self) -> None:
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        """Note the end of a chunk. If the bytes end here as well, the next ones are a chunk's size."""
        self._between_chunks = True

    def _take(self, data: bytes, read: Read) -> None:
        super()._take(data, read)
        exchange = self._exchange
        if self._between_chunks and not self._unusual and exchange is not None:
            usual = exchange.http_status == 200 and exchange.streamed and not self._complete and not len(self._out)
            if usual and data.endswith(b"\r\n"):
                stream = exchange.stream
                self._intake.begin(stream.size, stream.digest_at, self._unread_since_ns)
                stream.intake, self._taking = self._intake, True
                self._loop.set_handler(self._fd, self._take_in)
                self._poll.give(self._fd, self._intake)
                self._delay_acks()

    def _delay_acks(self) -> None:
        """Let the kernel acknowledge several tokens at once, from the first on: it spares a packet a token.

        A peer with Nagle's algorithm on waits for the acknowledgement, which shows in its gaps: one that is seen to is
        left alone from then on.
        """
        if self._delayed_acks and self._sock is not None:
            waits = self.endpoint.name in self._stats.waiting_peers
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, int(waits))
            self._stats.acks_delayed |= not waits

    def _take_in(self, minus_came: int) -> None:
        """Act on what the poll has read and can't handle by itself."""
        came = -minus_came
        if came == _intake.ODD:
            self._take_odd()
        elif came == _intake.BROKEN:
            code = self._intake.error
            self._fail(whose(code, Status.RESET), os.strerror(code))
        else:
            self._take_last(came == _intake.WHOLE)

    def _take_last(self, whole: bool) -> None:
        """Finish an answer that is whole, or read part of one that has become long."""
        exchange, intake = self._exchange, self._intake
        assert exchange is not None and self._parser is not None
        if whole:
            self._leave()
            if self._delayed_acks:
                held = held_by_ack(exchange.stream.stamps, exchange.stream.ends)
                self._stats.delayed_acks_seen(self.endpoint.name, held=held)
            self._parser.feed_data(_LAST_CHUNK)  # of all chunks it has seen the first: they leave nothing behind
            self._finish((intake.stamp, intake.read, intake.since, not intake.full_since))
        else:
            exchange.stream.catch_up()
            self._digest_early(exchange)
            intake.limit = exchange.stream.digest_at

    def _take_odd(self) -> None:
        """Return to Python with the last bytes, and bring the parser to the same place."""
        exchange, intake = self._exchange, self._intake
        assert exchange is not None and self._parser is not None
        self._leave()
        self._unusual = True
        stream, data = exchange.stream, intake.odd or b""
        pieces, size = len(stream.pieces), stream.size
        self._parser.feed_data(intake.raw)
        del stream.pieces[pieces:]  # they are there already
        stream.size = size
        now, since = intake.read, intake.since
        emptied = not intake.full_since
        read = (intake.stamp, now, since, emptied) if intake.stamp >= 0 else self._unstamped(data, now, since)
        if data:
            self._take(data, read)
        else:
            self._on_eof(read)

    def _leave(self) -> None:
        if not self._taking:
            return
        self._taking = False
        self._poll.take_back(self._fd)
        exchange = self._exchange
        assert exchange is not None
        exchange.stream.catch_up()
        exchange.stream.intake = None
        self._unread_since_ns = self._intake.full_since
        exchange.bytes_received += self._intake.received
        self._loop.set_handler(self._fd, self._readable)

    def _fail(self, status: Status, error: str, end_ns: int | None = None) -> None:
        self._leave()
        self._intake.end()
        super()._fail(status, error, end_ns)

    def _finish(self, read: Read) -> None:
        self._unusual = self._between_chunks = False
        self._intake.end()
        super()._finish(read)
