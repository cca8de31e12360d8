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
        self._waiting = b""
        self._sending = False
        self._greenlet = gevent.spawn(self._listen)

    def send(self, message: Message) -> None:
        """Send one message; one to a process that is gone is dropped, `gone` has told of it.

        While a greenlet is held up by a full socket, what others say waits behind it: never inside its message.
        """
        self._waiting += orjson.dumps(message) + b"\n"
        if self._sending:
            return
        self._sending = True
        try:
            while self._waiting:
                data, self._waiting = self._waiting, b""
                self._sock.sendall(data)
        except OSError:
            self._waiting = b""
        finally:
            self._sending = False

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
