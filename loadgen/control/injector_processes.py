"""The injector processes of this machine: started, sent messages, and ended by the Locust process."""

import os
import socket
import subprocess
from collections.abc import Callable
from functools import partial

from tailgate.loadgen.control.channel import Channel, Message
from tailgate.workloads.common.import_paths import python_module


class Injectors:
    """``count`` child processes. ``on_message(k, message)`` is called for each message of injector k."""

    def __init__(self, count: int, on_message: Callable[[int, Message], None]) -> None:
        self._on_message = on_message
        self._children: list[subprocess.Popen[bytes]] = []
        self._channels: list[Channel] = []
        self.ended: set[int] = set()
        for k in range(count):
            self._spawn(k)

    def __len__(self) -> int:
        return len(self._children)

    def _spawn(self, k: int) -> None:
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
        self._channels.append(Channel(ours, partial(self._on_child_message, k), partial(self._on_child_closed, k)))

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
        """Wait for the processes to exit, and kill those that don't."""
        for channel in self._channels:
            channel.close()
        for child in self._children:
            try:
                child.wait(grace_s)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
