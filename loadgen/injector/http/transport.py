"""The lower half of a connection: a TCP socket, through a proxy's tunnel if need be, until it is closed.

Carries one exchange at a time and knows no HTTP but a proxy's CONNECT; `connection` has the upper half.
"""

import errno
import os
import re
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

from tailgate.loadgen.injector.client_stats import ClientStats
from tailgate.loadgen.injector.event_loop import READABLE, WRITABLE, EventLoop
from tailgate.loadgen.injector.exchange import Exchange
from tailgate.loadgen.injector.http.endpoint import Endpoint
from tailgate.loadgen.injector.kernel_timestamps import ANCILLARY_BYTES, ask_for_stamps, unpack_timespec
from tailgate.loadgen.records import Status

READ_BYTES: Final = 16 * 1024
GIGA: Final = 1_000_000_000
REALTIME: Final = time.CLOCK_REALTIME
clock = time.clock_gettime_ns
# What this machine had too little of: descriptors, local ports, memory. The target never saw such a request.
_OUR_OWN: Final = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}
# Any of them opens the tunnel (RFC 9110, 9.3.6).
_SUCCESS: Final = re.compile(rb"2\d\d")

# What is known of when the bytes of a read came, CLOCK_REALTIME ns: the kernel's stamp (without one, when we read),
# when we read (at worst), since when they may have been there, and whether the stamp is surely the last byte's: the
# kernel keeps one for what it has merged, so that of a read that left something behind may be a later byte's.
Read = tuple[int, int, int, bool]


class Transport(ABC):
    """A socket for one exchange at a time; ``ended(self, exchange)`` follows exactly once for each."""

    def __init__(
        self, loop: EventLoop, endpoint: Endpoint, stats: ClientStats, ended: Callable[[Any, Exchange], None]
    ) -> None:
        self._loop = loop
        self.endpoint = endpoint
        self._stats = stats
        self._ended = ended
        self._exchange: Exchange | None = None
        self._sock: socket.socket | None = None
        self._fd = -1
        self._recvmsg: Callable[..., tuple[bytes, list[tuple[int, int, bytes]], int, object]]
        self._out = memoryview(b"")
        self._unread_since_ns = 0  # the last read was full: what it left has been there since then
        self._connecting = False
        self._tunnel: bytearray | None = None
        self.ended_ns = 0  # when the last exchange ended: the stamp of its last read, or when it failed

    @property
    def open(self) -> bool:
        """Whether another request can be sent."""
        return self._sock is not None

    def alive(self) -> bool:
        """Whether the peer has kept the idle connection open, as far as is known here and now."""
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
        exchange.connect_start_ns = clock(REALTIME)
        try:
            sock = socket.socket(self.endpoint.family, socket.SOCK_STREAM)
        except OSError as error:
            self._fail(whose(error.errno, Status.CONNECT_ERROR), f"no socket: {error.strerror}")
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._stats.kernel_stamps:
            ask_for_stamps(sock)
        self._sock, self._fd, self._recvmsg = sock, sock.fileno(), sock.recvmsg
        code = sock.connect_ex(self.endpoint.address)
        self._loop.watch(self._fd, self._on_connect, WRITABLE)
        self._count_connecting(1)
        if code not in (0, errno.EINPROGRESS):
            text = "no free local port" if code == errno.EADDRNOTAVAIL else os.strerror(code)
            self._fail(whose(code, Status.CONNECT_ERROR), text)
        elif self._is_connected():
            self._on_connect(WRITABLE)

    def _count_connecting(self, change: int) -> None:
        self._connecting = change > 0
        self._loop.connecting(change)

    def _is_connected(self) -> bool:
        """Whether the handshake is over already, as on loopback, so that no turn of the loop is lost."""
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
        exchange.connected_ns = clock(REALTIME)
        self._count_connecting(-1)
        self._loop.change(self._fd, self._readable, READABLE)
        self._send_request()

    def _send_request(self) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._note_sending(exchange)
        self._write(exchange.payload)

    def _note_sending(self, exchange: Exchange) -> None:
        exchange.sent_ns = exchange.stream.sent_ns = clock(REALTIME)

    def _write(self, data: bytes) -> None:
        """Send. What the socket does not take now follows when it is writable again."""
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
        """The server takes no more, but may have answered before it hung up (413, 429): read that first."""
        status = whose(error.errno, Status.RESET)
        if self._exchange is None or self._exchange.sent_ns is None or status is Status.CLIENT_ERROR:
            self._fail(status, f"while sending: {error.strerror}")
            return
        self._out = self._out or memoryview(b"unsent")  # the connection can't serve another request
        self._loop.change(self._fd, self._readable, READABLE)

    def _both_ways(self, mask: int) -> None:
        """Send the rest of a large request while its answer may already come."""
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

    def _receive(self) -> tuple[bytes, Read] | None:
        """One read: its bytes (none at the end of the stream), and what is known of when they came."""
        try:
            data, ancillary, _, _ = self._recvmsg(READ_BYTES, ANCILLARY_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            self._fail(whose(error.errno, Status.RESET), error.strerror or str(error))
            return None
        now = clock(REALTIME)
        since = self._unread_since_ns or self._loop.unseen_since_ns
        emptied = len(data) < READ_BYTES
        self._unread_since_ns = 0 if emptied else since  # what didn't fit was there as well
        if ancillary:
            seconds, nanoseconds = unpack_timespec(ancillary[0][2])
            return data, (seconds * GIGA + nanoseconds, now, since, emptied)
        return data, self._unstamped(data, now, since)

    def _unstamped(self, data: bytes, now: int, since: int) -> Read:
        """Bytes without a kernel stamp count as arrived when read; how late that may have been, the loop knows."""
        self._stats.unstamped += bool(data)
        return now, now if self._stats.kernel_stamps else 2 * now - since, since, False

    @abstractmethod
    def _readable(self, mask: int) -> None:
        """Read a part of the answer."""

    def _fail(self, status: Status, error: str, end_ns: int | None = None) -> None:
        exchange, self._exchange = self._exchange, None
        self.close()
        if exchange is not None:
            if status is Status.RESET and exchange.sent_ns is None:  # in the handshake with a proxy or TLS
                status = Status.CONNECT_ERROR
            if status is Status.CONNECT_ERROR and self.endpoint.via:
                error = f"{error}; {self.endpoint.via}"
            self.ended_ns = end_ns or clock(REALTIME)
            exchange.fail(status, error, self.ended_ns)
            self._ended(self, exchange)

    def hang_up(self, status: Status, error: str) -> None:
        """Close at once, at a deadline, for an abandonment or at the end of the run."""
        self._fail(status, error)

    def close(self) -> None:
        if self._sock is None:
            return
        self._loop.unwatch(self._fd)
        if self._connecting:
            self._count_connecting(-1)
        self._sock.close()
        self._sock, self._fd = None, -1
        self._out = memoryview(b"")


def whose(code: int | None, otherwise: Status) -> Status:
    """CLIENT_ERROR if this machine is to blame for a system error, else ``otherwise``."""
    return Status.CLIENT_ERROR if code in _OUR_OWN else otherwise
