"""JSON lines over a socket, in greenlets. The other end is the CLI, or an injector."""

import os
import socket
from collections.abc import Callable
from typing import Any

import gevent
import orjson

Message = dict[str, Any]

_LAST_WORDS_S = 5.0


class Channel:
    """Sends messages, and calls ``on_message`` for each that comes, ``on_closed`` when the other end hangs up.

    Each message leaves at once. (Sending messages of several users together would take half the CPU, but
    they would be answered together, ask together again, and so on: the load would come in bunches.)
    """

    def __init__(
        self, sock: socket.socket, on_message: Callable[[Message], None], on_closed: Callable[[], None]
    ) -> None:
        self._sock = sock
        self._on_message = on_message
        self._on_closed = on_closed
        self._waiting: list[bytes] = []
        self._pusher: gevent.Greenlet | None = None
        self._listener = gevent.spawn(self._listen)

    def send(self, message: Message) -> None:
        """Send one message at once, or as soon as the socket takes it. A message to a closed end is dropped."""
        data = orjson.dumps(message) + b"\n"
        if not self._waiting:
            try:
                data = data[os.write(self._sock.fileno(), data) :]
            except BlockingIOError:
                pass
            except OSError:
                return
            if not data:
                return
            self._pusher = gevent.spawn(self._push)
        self._waiting.append(data)

    def _push(self) -> None:
        """Send what the socket did not take at once, in order."""
        try:
            while self._waiting:
                self._sock.sendall(self._waiting[0])
                del self._waiting[0]
        except OSError:
            self._waiting = []

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
                self._on_message(orjson.loads(line))
        self._on_closed()

    def close(self) -> None:
        if self._pusher is not None:
            self._pusher.join(_LAST_WORDS_S)
            self._pusher.kill()
        self._listener.kill()
        self._sock.close()
