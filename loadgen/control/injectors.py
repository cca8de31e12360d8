"""The injectors as child processes of Locust's. They start while Locust is imported, so nothing of Locust is here."""

import os
import socket
import subprocess
from collections.abc import Callable
from functools import partial

from tailgate.loadgen.control.channel import Channel, Message
from tailgate.workloads.common.import_paths import python_module


class Injectors:
    """``count`` child processes."""

    def __init__(self, count: int) -> None:
        self._children: list[subprocess.Popen[bytes]] = []
        self._sockets: list[socket.socket] = []
        self._channels: list[Channel] = []
        self._on_message: Callable[[int, Message], None]
        self.ended: set[int] = set()
        self.grow(count)

    def grow(self, count: int) -> None:
        """Start more until there are so many."""
        for k in range(len(self), count):
            self._spawn()
            if k > 0 and len(self._channels) == k:  # the others are listened to
                self._hear(k)

    def listen(self, on_message: Callable[[int, Message], None]) -> None:
        """From now on call ``on_message(k, message)`` for each message of injector k. Nothing is sent before."""
        self._on_message = on_message
        for k in range(len(self)):
            self._hear(k)

    def __len__(self) -> int:
        return len(self._children)

    def _hear(self, k: int) -> None:
        on_message, on_closed = partial(self._on_child_message, k), partial(self._on_child_closed, k)
        self._channels.append(Channel(self._sockets[k], on_message, on_closed))

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            # Its own session: Ctrl-C in the terminal is the harness's to interpret.
            command = [*python_module("tailgate.loadgen.injector"), "--fd", str(fd)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            self._children.append(
                subprocess.Popen(
                    command, pass_fds=[fd], start_new_session=True, env=environment, stdin=subprocess.DEVNULL
                )
            )
        self._sockets.append(ours)

    def _on_child_message(self, k: int, message: Message) -> None:
        if message["op"] in ("end", "refused", "crashed"):
            self.ended.add(k)
        self._on_message(k, message)

    def _on_child_closed(self, k: int) -> None:
        if k not in self.ended:
            self.ended.add(k)
            code = self._children[k].wait()
            self._on_message(k, {"op": "died", "injector": k, "code": code})

    @property
    def all_ended(self) -> bool:
        return len(self.ended) == len(self._children)

    def send(self, k: int, message: Message) -> None:
        self._channels[k].send(message)

    def send_all(self, message: Message) -> None:
        for channel in self._channels:
            channel.send(message)

    def close(self, grace_s: float = 10.0) -> None:
        for channel in self._channels:
            channel.close()
        for sock in self._sockets:
            sock.close()
        for child in self._children:
            try:
                child.wait(grace_s)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
