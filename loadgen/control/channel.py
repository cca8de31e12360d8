"""JSON lines over a socket, in greenlets. The other end is the CLI, or an injector."""

import socket
from collections.abc import Callable
from typing import Any

import gevent
import orjson

Message = dict[str, Any]


class Channel:
    """Sends messages, and calls ``take`` for each that comes; ``gone`` when the other end hangs up."""

    def __init__(self, sock: socket.socket, take: Callable[[Message], None], gone: Callable[[], None]) -> None:
        self._sock = sock
        self._take = take
        self._gone = gone
        self._greenlet = gevent.spawn(self._listen)

    def send(self, message: Message) -> None:
        """Send one message; one to a process that is gone is dropped, `gone` has told of it."""
        try:
            self._sock.sendall(orjson.dumps(message) + b"\n")
        except OSError:
            return

    def _listen(self) -> None:
        rest = b""
        while True:
            try:
                data = self._sock.recv(65536)
            except OSError:
                data = b""
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._take(orjson.loads(line))
        self._gone()

    def close(self) -> None:
        """Hang up."""
        self._greenlet.kill()
        self._sock.close()
