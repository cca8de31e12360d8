"""The embedded engine as a deployment: a child process on a loopback port of its own."""

import asyncio
import json
import sys
from typing import Any

from workloads.errors import UserError

_READY_S = 30.0
_STOP_S = 5.0


class SimTarget:
    """`sim:PRESET`, with engine flags from the spec's `args`."""

    def __init__(self, preset: str, args: dict[str, Any], seed: int) -> None:
        self._preset = preset
        self._args = {"seed": seed, **args}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> tuple[str, ...]:
        """Spawn it and wait for its line with the port.

        Raises:
            UserError: no such preset, or a flag that the engine doesn't know.
        """
        flags = [text for key, value in self._args.items() for text in _flag(key, value)]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "harness.engine", "--preset", self._preset, "--port", "0", *flags,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None and self._process.stderr is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), _READY_S)
        if not line:
            said = (await self._process.stderr.read()).decode(errors="replace").strip().splitlines()
            what = said[-1] if said else "it ended without a word"
            raise UserError(what.removeprefix("tailgate engine: "), where=f"sim:{self._preset}")
        return (f"http://127.0.0.1:{json.loads(line)['port']}",)

    def processes(self) -> dict[str, int]:
        """The engine."""
        return {"engine": self._process.pid} if self._process else {}

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


def _flag(key: str, value: Any) -> list[str]:
    name = f"--{key.replace('_', '-')}"
    if isinstance(value, bool):
        return [name] if value else [f"--no-{name[2:]}"]
    return [name, str(value)]
