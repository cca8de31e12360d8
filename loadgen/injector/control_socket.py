"""Reads and writes JSON lines on the control socket without ever blocking the injector's event loop."""

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import orjson

from tailgate.loadgen.injector.event_loop import READABLE, WRITABLE, EventLoop


class ControlSocket:
    """Messages to and from the Locust process. ``on_closed`` is called when the other end hangs up."""

    def __init__(
        self,
        loop: EventLoop,
        sock: socket.socket,
        on_message: Callable[[dict[str, Any]], None],
        on_closed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._on_message = on_message
        self._on_closed = on_closed
        self._in = b""
        self._out = b""
        self._open = True
        sock.setblocking(False)
        loop.watch(sock.fileno(), self._ready)

    def send(self, message: dict[str, Any]) -> None:
        if not self._open:
            return
        waiting = bool(self._out)
        self._out += orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"
        if not waiting:
            self._push()
            if self._out and self._open:
                self._loop.change(self._sock.fileno(), self._ready, READABLE | WRITABLE)

    def _push(self) -> None:
        try:
            self._out = self._out[self._sock.send(self._out) :]
        except BlockingIOError:
            pass
        except OSError:
            self._hang_up()

    def _ready(self, mask: int) -> None:
        if mask & WRITABLE and self._out:
            self._push()
            if self._open and not self._out:
                self._loop.change(self._sock.fileno(), self._ready, READABLE)
        if not mask & ~WRITABLE or not self._open:
            return
        try:
            data = self._sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hang_up()
            return
        *lines, self._in = (self._in + data).split(b"\n")
        for line in lines:
            self._on_message(orjson.loads(line))

    def _hang_up(self) -> None:
        if self._open:
            self._open = False
            self._loop.unwatch(self._sock.fileno())
            self._on_closed()

    def close(self) -> None:
        if self._open:
            self._loop.unwatch(self._sock.fileno())
            self._open = False
            with contextlib.suppress(OSError):
                self._sock.settimeout(5)
                self._sock.sendall(self._out)
        self._sock.close()
