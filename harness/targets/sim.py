"""The embedded engine as a deployment: a child process on a loopback port of its own."""

import asyncio
import json
import time
from typing import Any

from tailgate.harness.targets.base import TargetGone
from tailgate.harness.targets.launch.launched import LaunchedTarget
from tailgate.harness.targets.launch.process import OwnProcess
from tailgate.harness.targets.vllm_flags import flag
from tailgate.workloads.common.import_paths import python_module

_READY_S = 30.0
_LOOK_S = 0.01


class SimTarget(LaunchedTarget):
    """`sim:PRESET`, with engine flags from the spec's `args`."""

    role = "engine"
    grace_s = 5.0

    def __init__(self, preset: str, args: dict[str, Any], seed: int, gpus: str | None = None) -> None:
        super().__init__(gpus)
        self._preset = preset
        # What the reports can use and what costs the engine next to nothing is on unless switched off.
        defaults = {"enable-prompt-tokens-details": True, "enable-per-request-metrics": True}
        self._args = {"seed": seed, **defaults, **{key.replace("_", "-"): value for key, value in args.items()}}

    async def launch(self) -> tuple[str, ...]:
        """Spawn it and wait for its line with the port."""
        flags = [text for key, value in self._args.items() for text in flag(key, value)]
        command = [*python_module("tailgate.harness.engine"), "--preset", self._preset, "--port", "0", *flags]
        began = time.monotonic()
        self.process = await OwnProcess.spawn(command)
        self.life.command = command
        ending = asyncio.create_task(self.process.ended())
        try:
            while not (line := self._port_line()):
                if ending.done() or time.monotonic() > began + _READY_S:
                    lines = self.process.tail()
                    what = lines[-1] if lines else "it ended without a message"
                    raise TargetGone(what.removeprefix("tailgate engine: "), where=f"sim:{self._preset}")
                await asyncio.wait([ending], timeout=_LOOK_S)
        finally:
            ending.cancel()
        self.life.phases["server start"] = time.monotonic() - began
        return (f"http://127.0.0.1:{json.loads(line)['port']}",)

    def _port_line(self) -> str:
        assert self.process is not None
        text = self.process.log.read_text(errors="replace")
        return next(
            (line for line in text.splitlines(keepends=True) if line.startswith('{"port"') and line[-1] == "\n"), ""
        )
