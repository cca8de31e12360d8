"""The Locust process, seen from the harness: spawned early, sent messages, listened to, ended. asyncio on our side."""

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.host.child_process import gone
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.file_digest import file_digest
from tailgate.workloads.common.import_paths import python_module

Message = dict[str, Any]

_READY_S = 60.0


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
        self._writer.write(orjson.dumps(message) + b"\n")

    async def receive(self) -> Message | None:
        """The next message; None when the process is gone."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        return orjson.loads(line) if line else None

    async def load_locustfile(self, spec: RunSpec) -> None:
        """Have the user's locustfile imported, so that its mistakes show before a server is started."""
        locustfile = locustfile_message(spec)
        if locustfile is None:
            return
        self.send({"op": "load", **locustfile})
        deadline = time.monotonic() + _READY_S
        while True:
            message = await self._before(deadline, f"the locustfile is not imported after {_READY_S:.0f} s")
            if message["op"] == "loaded":
                break
        for text in message["ignored"]:
            print(f"tailgate: {locustfile['path']}: {text}", file=sys.stderr, flush=True)

    async def until_ready(
        self, patience_s: float = _READY_S, on_message: Callable[[Message], None] = lambda _message: None
    ) -> Message:
        """Wait for every injector to have its plan and its first requests; the message that says so.

        Raises:
            UserError: an injector refused its job, or the wait was too long.
            RuntimeError: an injector failed.
        """
        deadline = time.monotonic() + patience_s
        while True:
            message = await self._before(deadline, f"the load generator is not ready after {patience_s:.0f} s")
            match message:
                case {"op": "ready"}:
                    return message
                case {"op": "crashed"}:
                    raise RuntimeError(f"an injector failed while it prepared:\n{message['traceback']}")
                case {"op": "died"}:
                    raise RuntimeError(f"an injector ended while it prepared, with exit code {message['code']}")
                case _:
                    on_message(message)

    async def _before(self, deadline: float, otherwise: str) -> Message:
        """The next message; a UserError if none comes in time (`otherwise`), the process has ended, or it refuses."""
        try:
            # Not `wait_for`: Python 3.11's loses a Ctrl-C that comes together with a message.
            async with asyncio.timeout(max(deadline - time.monotonic(), 0.1)):
                message = await self.receive()
        except TimeoutError:
            raise UserError(otherwise) from None
        if message is None:
            raise UserError("the load generator's process ended before the run began; see its message above")
        if message["op"] == "refused":
            raise UserError(message["what"], where=message["where"], remedy=message["remedy"])
        return message

    async def close(self, grace_s: float = 15.0) -> None:
        """Hang up and wait until it and its injectors are gone."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
        await gone(self._process, grace_s)


def locustfile_message(spec: RunSpec, *, for_workers: bool = False) -> dict[str, Any] | None:
    """What Locust's process is told of the locustfile; None without one.

    Workers have a copy of their own, since code doesn't go over the network: they are told its digest as well.
    """
    workload = spec.workload
    if workload.locustfile is None:
        return None
    message = {
        "path": str(workload.locustfile),
        "name": workload.locustfile.name,
        "tags": list(workload.tags),
        "exclude_tags": list(workload.exclude_tags),
    }
    return {**message, "digest": file_digest(workload.locustfile)} if for_workers else message
