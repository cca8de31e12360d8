"""One HTTP/1.1 connection over TCP (`tls` adds TLS): connect, send, read with kernel stamps, parse, hand over.

The life of one token, with its cost, the kernel's part included (tests/bench/bench_costs.py; docs/injector.md):

1. `epoll_wait` names the descriptor, `Loop.run` calls `_readable`                  0.2 us
2. `recvmsg` returns the bytes and the kernel's receive stamp                       4.5 us
3. `clock_gettime`, and the stamp is unpacked                                       0.15 us
4. httptools takes the chunked coding off and calls `on_body`                       0.3 us
5. `Stream.received`: three appends to arrays of machine integers                   0.15 us
6. put off until the answer has ended: SSE, JSON, which events are tokens           1.4 us

No object of Python's outlives the token but 4 bytes in `Stream.arrivals_us`. Knows no plan and no
record; what became of the request is in its `Exchange`.
"""

import errno
import os
import re
import socket
import time
from collections.abc import Callable
from typing import Final

import httptools

from loadgen.injector.conduct import Conduct
from loadgen.injector.dialect import BadPayload
from loadgen.injector.endpoint import Endpoint
from loadgen.injector.exchange import Exchange
from loadgen.injector.kernel import ANCILLARY_BYTES, READABLE, WRITABLE, ask_for_stamps, unpack_timespec
from loadgen.injector.loop import Loop
from loadgen.injector.stream import DIGEST_ABOVE
from loadgen.records import Status

READ_BYTES: Final = 16 * 1024
_REALTIME: Final = time.CLOCK_REALTIME
# What a server may send before it is taken for broken.
_HEAD_BYTES: Final = 256 * 1024
_ERROR_BODY_BYTES: Final = 64 * 1024
_WHOLE_BODY_BYTES: Final = 64 << 20
_GIGA: Final = 1_000_000_000
# What this machine had too little of: descriptors, local ports, memory. The target never saw such a request.
_OUR_OWN: Final = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}
_clock = time.clock_gettime_ns
# Any of them opens the tunnel (RFC 9110, 9.3.6).
_SUCCESS: Final = re.compile(rb"2\d\d")

Ended = Callable[["Connection", Exchange], None]


class Connection:
    """Plain TCP. `send` starts an exchange; ``ended(connection, exchange)`` follows exactly once for each."""

    def __init__(self, loop: Loop, endpoint: Endpoint, conduct: Conduct, ended: Ended) -> None:
        self._loop = loop
        self.endpoint = endpoint
        self._conduct = conduct
        self._ended = ended
        self._exchange: Exchange | None = None
        self._sock: socket.socket | None = None
        self._fd = -1
        self._recvmsg: Callable[..., tuple[bytes, list[tuple[int, int, bytes]], int, object]]
        self._parser: httptools.HttpResponseParser | None = None
        self._out = memoryview(b"")
        self._stamp = 0
        self._unread_since_ns = 0
        self._complete = False
        self._until_eof = False
        self._keep_alive = False
        self._tunnel: bytearray | None = None
        self.idle_since_ns = 0
        self.late_ns = 0  # how late the last exchange's last bytes were read, by the kernel's stamp

    @property
    def open(self) -> bool:
        """Whether another request can be sent."""
        return self._sock is not None

    # --- sending -------------------------------------------------------------------------------------

    def send(self, exchange: Exchange) -> None:
        """Send on the open connection, or connect first."""
        self._exchange = exchange
        self._complete = self._until_eof = False
        self.late_ns = 0
        exchange.stream.digest_at = -1  # until the head has come, each read is looked at
        exchange.reused = self._sock is not None
        if self._sock is None:
            self._connect()
        else:
            self._send_request()

    def alive(self) -> bool:
        """Whether the peer has not hung up on the idle connection, as far as is known here and now."""
        assert self._sock is not None
        try:
            self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False  # end of stream, or bytes nobody asked for

    def _connect(self) -> None:
        exchange = self._exchange
        assert exchange is not None
        exchange.connect_start_ns = _clock(_REALTIME)
        try:
            sock = socket.socket(self.endpoint.family, socket.SOCK_STREAM)
        except OSError as error:
            self._fail(_whose(error.errno, Status.CONNECT_ERROR), f"no socket: {error.strerror}")
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._conduct.kernel_stamps:
            ask_for_stamps(sock)
        self._sock, self._fd, self._recvmsg = sock, sock.fileno(), sock.recvmsg
        self._parser = httptools.HttpResponseParser(self)
        code = sock.connect_ex(self.endpoint.address)
        self._loop.watch(self._fd, self._on_connect, WRITABLE)
        if code not in (0, errno.EINPROGRESS):
            text = "no free local port" if code == errno.EADDRNOTAVAIL else os.strerror(code)
            self._fail(_whose(code, Status.CONNECT_ERROR), text)
        elif self._is_connected():
            self._on_connect(WRITABLE)

    def _is_connected(self) -> bool:
        """Whether the handshake is over already, as it is on loopback: no turn of the loop is lost then."""
        assert self._sock is not None
        try:
            self._sock.getpeername()
        except OSError:
            return False
        return True

    def _on_connect(self, _mask: int) -> None:
        assert self._sock is not None
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._fail(Status.CONNECT_ERROR, os.strerror(code))
            return
        if self.endpoint.tunnel_request:
            self._tunnel = bytearray()
            self._loop.change(self._fd, self._on_tunnel, READABLE)
            self._write(self.endpoint.tunnel_request)
        else:
            self._on_transport()

    def _on_tunnel(self, _mask: int) -> None:
        """The proxy's answer to CONNECT."""
        assert self._tunnel is not None
        received = self._receive()
        if received is None:
            return
        self._tunnel += received[0]
        head, blank, _ = bytes(self._tunnel).partition(b"\r\n\r\n")
        if not received[0] or len(self._tunnel) > READ_BYTES:
            self._fail(Status.CONNECT_ERROR, "the proxy closed the connection")
        elif blank:
            status = head.split(b"\r\n", 1)[0].split(b" ")
            if len(status) < 2 or not _SUCCESS.fullmatch(status[1]):
                self._fail(Status.CONNECT_ERROR, "the proxy refused: " + head[:100].decode("latin-1"))
            else:
                self._on_transport()

    def _on_transport(self) -> None:
        self._on_connected()

    def _on_connected(self) -> None:
        exchange = self._exchange
        assert exchange is not None
        exchange.connected_ns = _clock(_REALTIME)
        self._loop.change(self._fd, self._readable, READABLE)
        self._send_request()

    def _send_request(self) -> None:
        exchange = self._exchange
        assert exchange is not None
        exchange.sent_ns = _clock(_REALTIME)
        self._write(exchange.payload)

    def _write(self, data: bytes) -> None:
        """Send; what the socket does not take now goes when it is writable again."""
        assert self._sock is not None
        if self._out:  # TLS wants to say something while a large request still goes out
            self._out = memoryview(bytes(self._out) + data)
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._stop_sending(error)
            return
        if sent < len(data):
            self._out = memoryview(data)[sent:]
            self._loop.change(self._fd, self._both_ways, READABLE | WRITABLE)

    def _stop_sending(self, error: OSError) -> None:
        """The server takes no more. It may have answered before it hung up (413, 429): read that first."""
        status = _whose(error.errno, Status.RESET)
        if self._exchange is None or self._exchange.sent_ns is None or status is Status.CLIENT_ERROR:
            self._fail(status, f"while sending: {error.strerror}")
            return
        self._out = self._out or memoryview(b"unsent")  # the connection can't serve another request
        self._loop.change(self._fd, self._readable, READABLE)

    def _both_ways(self, mask: int) -> None:
        """A large request still going out while the answer may already come."""
        assert self._sock is not None
        if mask & WRITABLE:
            try:
                self._out = self._out[self._sock.send(self._out) :]
            except BlockingIOError:
                pass
            except OSError as error:
                self._stop_sending(error)
                return
            if not self._out:
                self._loop.change(self._fd, self._readable, READABLE)
        if mask & ~WRITABLE:
            self._readable(mask)

    # --- receiving -----------------------------------------------------------------------------------

    def _receive(self) -> tuple[bytes, int, int] | None:
        """One read: bytes (empty at the end of the stream), kernel stamp, and when we read."""
        try:
            data, ancillary, _, _ = self._recvmsg(READ_BYTES, ANCILLARY_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            self._fail(_whose(error.errno, Status.RESET), error.strerror or str(error))
            return None
        read = _clock(_REALTIME)
        if ancillary:
            seconds, nanoseconds = unpack_timespec(ancillary[0][2])
            return data, seconds * _GIGA + nanoseconds, read
        return data, read, self._read_at_worst(data, read)

    def _read_at_worst(self, data: bytes, read: int) -> int:
        """Bytes without a kernel stamp count as arrived when read; how late that may have been, the loop knows.

        Unless the kernel was to stamp them: then nobody knows, the lag is 0, and too many such reads fail the run.
        """
        self._conduct.unstamped += bool(data)
        if not self._loop.user_stamps:
            return read
        since = self._unread_since_ns or self._loop.unseen_since_ns
        self._unread_since_ns = since if len(data) == READ_BYTES else 0  # what didn't fit was there as well
        return read + time.monotonic_ns() - since

    def _readable(self, _mask: int) -> None:
        # `_receive` written out: this runs once a token.
        try:
            data, ancillary, _, _ = self._recvmsg(READ_BYTES, ANCILLARY_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(_whose(error.errno, Status.RESET), error.strerror or str(error))
            return
        read = stamp = _clock(_REALTIME)
        if ancillary:
            seconds, nanoseconds = unpack_timespec(ancillary[0][2])
            stamp = seconds * _GIGA + nanoseconds
        else:
            read = self._read_at_worst(data, read)
        if data:
            self._take(data, stamp, read)
        else:
            self._on_eof(stamp, read)

    def _take(self, data: bytes, stamp: int, read: int) -> None:
        exchange = self._exchange
        if exchange is None:  # bytes nobody asked for: a farewell on an idle connection
            self.close()
            return
        self._stamp = stamp
        exchange.bytes_received += len(data)
        try:
            self._parser.feed_data(data)  # type: ignore[union-attr]
        except httptools.HttpParserError as error:
            self._take_broken(exchange, f"not HTTP: {error}", stamp, read)
            return
        except httptools.HttpParserUpgrade:
            self._take_broken(exchange, "the server switched protocols", stamp, read)
            return
        stream = exchange.stream
        stream.received(stamp, read)
        self._conduct.lags.append(read - stamp)
        if self._complete:
            self._finish(stamp, read)
        elif stream.size > stream.digest_at:
            self._digest_early(exchange)

    def _take_broken(self, exchange: Exchange, error: str, stamp: int, read: int) -> None:
        """The parser has given up, perhaps only on bytes behind the answer that nobody asked for."""
        exchange.stream.received(stamp, read)
        self._conduct.lags.append(read - stamp)
        if self._complete:
            self._keep_alive = False
            self._finish(stamp, read)
        else:
            self._fail(Status.BAD_RESPONSE, error)

    def _digest_early(self, exchange: Exchange) -> None:
        """Whatever a server sends, and however long, memory stays bounded."""
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

    def _on_eof(self, stamp: int, read: int) -> None:
        exchange = self._exchange
        if exchange is None:
            self.close()
        elif exchange.headers_ns is None:
            which = "a kept connection" if exchange.reused else "the connection"
            where = "in the head of its answer" if exchange.bytes_received else "without an answer"
            self._fail(Status.RESET, f"the server closed {which} {where}", stamp)
        elif self._until_eof:
            self._finish(stamp, read)
        else:
            self._fail(Status.TRUNCATED, "the connection closed in the middle of the answer", stamp)

    def _finish(self, stamp: int, read: int) -> None:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        # Without a kernel stamp the bytes count as arrived when read: how late that may be is in `read`.
        self.late_ns = read - stamp if self._conduct.kernel_stamps else 0
        exchange.end_ns = stamp  # `Exchange.conclude` comes when the loop has time for it
        if self._until_eof or not self._keep_alive or len(self._out):
            self.close()
        self._ended(self, exchange)

    def _fail(self, status: Status, error: str, end_ns: int | None = None) -> None:
        exchange, self._exchange = self._exchange, None
        self.close()
        if exchange is not None:
            if status is Status.RESET and exchange.sent_ns is None:  # in the handshake with a proxy or TLS
                status = Status.CONNECT_ERROR
            exchange.fail(status, error, end_ns or _clock(_REALTIME))
            self._ended(self, exchange)

    def hang_up(self, status: Status, error: str) -> None:
        """Close at once: a deadline, an abandonment, or the end of the run."""
        self._fail(status, error)

    def close(self) -> None:
        """Close the socket, if there is one."""
        if self._sock is None:
            return
        self._loop.unwatch(self._fd)
        self._sock.close()
        # The parser refers to us: a cycle that nobody would collect while garbage collection is off.
        self._sock, self._parser, self._fd = None, None, -1
        self._out = memoryview(b"")

    # --- what httptools calls --------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """A response header; names come in any case."""
        name = name.lower()
        if name == b"content-type" and self._exchange is not None:
            self._exchange.content_type = value.lower()
        elif name in (b"content-length", b"transfer-encoding"):
            self._until_eof = False
        elif name == b"content-encoding" and self._exchange is not None:
            self._exchange.content_encoding = value.lower()

    def on_message_begin(self) -> None:
        """Until a header says otherwise, the body ends where the connection does (RFC 9112, 6.3)."""
        if self._complete:  # httptools makes a parser error of it, and `_take` passes over what comes behind
            raise ValueError("a second answer to one request")
        self._until_eof = True

    def on_headers_complete(self) -> None:
        """The status is known."""
        assert self._parser is not None
        status = self._parser.get_status_code()
        if self._exchange is not None and status >= 200:
            self._exchange.http_status = status
            self._exchange.headers_ns = self._stamp
            self._exchange.stream.digest_at = DIGEST_ABOVE

    def on_body(self, data: bytes) -> None:
        """A piece of the body without its transfer coding."""
        stream = self._exchange.stream  # type: ignore[union-attr]
        stream.pieces.append(data)
        stream.size += len(data)

    def on_message_complete(self) -> None:
        """The answer is whole; 1xx answers are only a foreword."""
        self._complete = self._exchange is None or self._exchange.http_status is not None
        # Asked here: once the parser has begun to wait for the next message it has forgotten this one's framing.
        self._keep_alive = self._parser is not None and self._parser.should_keep_alive()


def _whose(code: int | None, otherwise: Status) -> Status:
    """Whose fault an error of the system is: ours, or ``otherwise``."""
    return Status.CLIENT_ERROR if code in _OUR_OWN else otherwise
