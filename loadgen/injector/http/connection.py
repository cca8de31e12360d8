"""One HTTP/1.1 connection over TCP (`tls` adds TLS): send, read with kernel stamps, parse.

The life of one token, with its cost, the kernel's part included (tests/bench/bench_costs.py; docs/injector.md):

1. `epoll_wait` names the descriptor, `EventLoop.run` calls `_readable`                  0.2 us
2. `recvmsg` returns the bytes and the kernel's receive stamp                       4.5 us
3. `clock_gettime`, and the stamp is unpacked                                       0.15 us
4. httptools takes the chunked coding off and calls `on_body`                       0.3 us
5. `TokenStream.received`: four appends to arrays of machine integers                   0.15 us
6. put off until the answer has ended: SSE, JSON, which events are tokens           1.4 us

Where the compiled parts are there, `_intake` does 1 to 5 without Python from the second chunk on, `_events` most of 6.
No object of Python's outlives the token but 4 bytes in `TokenStream.arrivals_us`. Knows no plan and no
record; what became of the request is in its `Exchange`.
"""

from collections.abc import Callable
from typing import Final

import httptools

from tailgate.loadgen.injector.api.openai_response import BadPayload
from tailgate.loadgen.injector.client_stats import ClientStats
from tailgate.loadgen.injector.event_loop import EventLoop
from tailgate.loadgen.injector.exchange import Exchange
from tailgate.loadgen.injector.http.endpoint import Endpoint
from tailgate.loadgen.injector.http.token_stream import DIGEST_ABOVE
from tailgate.loadgen.injector.http.transport import Read, Transport
from tailgate.loadgen.records import Status

# What a server may send before it is taken for broken.
_HEAD_BYTES: Final = 256 * 1024
_ERROR_BODY_BYTES: Final = 64 * 1024
_WHOLE_BODY_BYTES: Final = 64 << 20

Ended = Callable[["Connection", Exchange], None]


class Connection(Transport):
    """HTTP over plain TCP: `send` starts an exchange."""

    def __init__(self, loop: EventLoop, endpoint: Endpoint, stats: ClientStats, ended: Ended) -> None:
        super().__init__(loop, endpoint, stats, ended)
        self._parser: httptools.HttpResponseParser | None = None
        self._stamp = 0
        self._complete = False
        self._until_eof = False
        self._keep_alive = False
        self.idle_since_ns = 0

    def send(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._complete = self._until_eof = False
        exchange.stream.digest_at = -1  # until the head has come, each read is looked at
        exchange.reused = self._sock is not None
        if self._sock is None:
            self._parser = httptools.HttpResponseParser(self)
            self._connect()
        else:
            self._send_request()

    def close(self) -> None:
        super().close()
        # The parser refers to us: a cycle that nobody would collect while garbage collection is off.
        self._parser = None

    def _readable(self, _mask: int) -> None:
        received = self._receive()
        if received is None:
            return
        data, read = received
        if data:
            self._take(data, read)
        else:
            self._on_eof(read)

    def _take(self, data: bytes, read: Read) -> None:
        exchange = self._exchange
        if exchange is None:  # bytes nobody asked for: a farewell on an idle connection
            self.close()
            return
        self._stamp = read[0]
        exchange.bytes_received += len(data)
        try:
            self._parser.feed_data(data)  # type: ignore[union-attr]
        except httptools.HttpParserError as error:
            self._take_broken(exchange, f"not HTTP: {error}", read)
            return
        except httptools.HttpParserUpgrade:
            self._take_broken(exchange, "the server switched protocols", read)
            return
        stream = exchange.stream
        stream.received(read)
        self._stats.lags.append(read[1] - read[0])
        if self._complete:
            self._finish(read)
        elif stream.size > stream.digest_at:
            self._digest_early(exchange)

    def _take_broken(self, exchange: Exchange, error: str, read: Read) -> None:
        """The parser gave up, though perhaps only on unasked-for bytes behind the answer."""
        exchange.stream.received(read)
        self._stats.lags.append(read[1] - read[0])
        if self._complete:
            self._keep_alive = False
            self._finish(read)
        else:
            self._fail(Status.BAD_RESPONSE, error)

    def _digest_early(self, exchange: Exchange) -> None:
        """Bound the memory of an answer, whatever the server sends and however long."""
        stream = exchange.stream
        try:
            if exchange.http_status is None:
                if exchange.bytes_received > _HEAD_BYTES:
                    raise BadPayload(f"no end of the head in {exchange.bytes_received:,} bytes")
            elif exchange.http_status != 200:
                stream.pieces[:] = [b"".join(stream.pieces)[:_ERROR_BODY_BYTES]]
                stream.digest_at = stream.size + _ERROR_BODY_BYTES
            elif exchange.streamed:
                stream.digest()
            elif stream.size > _WHOLE_BODY_BYTES:
                raise BadPayload(f"an answer of more than {_WHOLE_BODY_BYTES:,} bytes")
        except BadPayload as error:
            self._fail(Status.BAD_RESPONSE, str(error))

    def _on_eof(self, read: Read) -> None:
        exchange = self._exchange
        if exchange is None:
            self.close()
        elif exchange.headers_ns is None:
            which = "a kept connection" if exchange.reused else "the connection"
            where = "in the head of its answer" if exchange.bytes_received else "without an answer"
            self._fail(Status.RESET, f"the server closed {which} {where}", read[0])
        elif self._until_eof:
            self._finish(read)
        else:
            self._fail(Status.TRUNCATED, "the connection closed in the middle of the answer", read[0])

    def _finish(self, read: Read) -> None:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        exchange.end_ns = self.ended_ns = read[0]  # `Exchange.conclude` comes when the loop has time for it
        if self._until_eof or not self._keep_alive or len(self._out):
            self.close()
        self._ended(self, exchange)

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-type" and self._exchange is not None:
            self._exchange.content_type = value.lower()
        elif name in (b"content-length", b"transfer-encoding"):
            self._until_eof = False
        elif name == b"content-encoding" and self._exchange is not None:
            self._exchange.content_encoding = value.lower()
        elif name == b"location" and self._exchange is not None:
            self._exchange.location = value

    def on_message_begin(self) -> None:
        """Until a header says otherwise, the body ends where the connection does (RFC 9112, 6.3)."""
        if self._complete:  # httptools makes a parser error of it, and `_take` passes over what comes behind
            raise ValueError("a second answer to one request")
        self._until_eof = True

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if self._exchange is not None and status >= 200:
            self._exchange.http_status = status
            self._exchange.headers_ns = self._stamp
            self._exchange.stream.digest_at = DIGEST_ABOVE

    def on_body(self, data: bytes) -> None:
        """Take in a piece of the body, without its transfer coding."""
        stream = self._exchange.stream  # type: ignore[union-attr]
        stream.pieces.append(data)
        stream.size += len(data)

    def on_message_complete(self) -> None:
        """Note that the answer is whole; 1xx answers only precede it."""
        self._complete = self._exchange is None or self._exchange.http_status is not None
        # Asked here: once the parser has begun to wait for the next message it has forgotten this one's framing.
        self._keep_alive = self._parser is not None and self._parser.should_keep_alive()
