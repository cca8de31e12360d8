"""The Locust process, seen from the harness: spawned early, told, listened to, ended. asyncio on our side."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from typing import Any

import orjson

from tailgate.workloads.common.import_paths import python_module

Message = dict[str, Any]


class LocustProcess:
    """One Locust process with its injectors. Messages from it are read with `receive`."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @property
    def pid(self) -> int:
        """Of the Locust process."""
        return self._process.pid

    @classmethod
    async def spawn(cls, injectors: int, more: Sequence[str] = ()) -> "LocustProcess":
        """Start it; it imports Locust, and its injectors start, while the caller does other things."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *python_module("tailgate.loadgen"), "--fd", str(theirs.fileno()), "--injectors", str(injectors),
                *more,
                pass_fds=[theirs.fileno()], start_new_session=True, stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )  # fmt: skip
        reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 24)
        return cls(process, reader, writer)

    def send(self, message: Message) -> None:
        """One message."""
        self._writer.write(orjson.dumps(message) + b"\n")

    async def receive(self) -> Message | None:
        """The next message; None when the process is gone."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        return orjson.loads(line) if line else None

    async def close(self, grace_s: float = 15.0) -> None:
        """Hang up and wait until it and its injectors are gone."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
        try:
            await asyncio.wait_for(self._process.wait(), grace_s)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
