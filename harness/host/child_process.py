"""Child processes that answer: our own modules, spoken with in lines, and programs that are asked one thing."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Coroutine
from typing import Any

from tailgate.workloads.common.import_paths import python_module


class LineProcess:
    """A module of ours as a process that answers in lines of JSON and ends when its input does."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process, self._stdin, self._stdout = process, process.stdin, process.stdout

    @classmethod
    async def spawn(cls, module: str, *arguments: str) -> "LineProcess":
        """Start `module`, in a session of its own: a Ctrl-C is ours to handle."""
        pipe = asyncio.subprocess.PIPE
        return cls(
            await asyncio.create_subprocess_exec(
                *python_module(module), *arguments, stdin=pipe, stdout=pipe, start_new_session=True
            )
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    async def send(self, line: bytes) -> None:
        """Write a line to its input; nothing happens if the process has ended."""
        with contextlib.suppress(ConnectionError):
            self._stdin.write(line + b"\n")
            await self._stdin.drain()

    async def receive(self) -> Any:
        """The next line's JSON; None at the end of its output."""
        line = await self._stdout.readline()
        return json.loads(line) if line else None

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        return await self._process.wait()

    async def close(self, grace_s: float) -> None:
        """End its input and wait until it is gone; after `grace_s` it is killed."""
        self._stdin.close()
        await gone(self._process, grace_s)


async def started(starting: Coroutine[Any, Any, asyncio.subprocess.Process]) -> asyncio.subprocess.Process:
    """The process that leads a session of its own, once it has started.

    A cancellation that comes while it starts ends its group: it may have started others by then, which would live on.
    """
    process = asyncio.ensure_future(starting)
    try:
        return await asyncio.shield(process)
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg((await process).pid, signal.SIGKILL)
        raise


async def gone(process: asyncio.subprocess.Process, grace_s: float) -> None:
    """Wait until a process has ended; after `grace_s` it is killed."""
    try:
        await asyncio.wait_for(process.wait(), grace_s)
    except TimeoutError:
        process.kill()
        await process.wait()


async def output_of(*words: str, within_s: float) -> str | None:
    """What a program prints; None if it can't be run, fails, or takes longer."""
    none = asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(*words, stdin=none, stdout=asyncio.subprocess.PIPE, stderr=none)
    except OSError:
        return None
    try:
        output, _ = await asyncio.wait_for(process.communicate(), within_s)
    except TimeoutError:
        process.kill()
        await process.wait()
        return None
    return output.decode(errors="replace") if process.returncode == 0 else None
