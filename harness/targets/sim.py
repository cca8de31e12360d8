"""The embedded engine as a deployment: a child process on a loopback port of its own, or none on a virtual clock."""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any, NoReturn

from tailgate.harness.config.arguments import Parser
from tailgate.harness.engine.__main__ import parser
from tailgate.harness.engine.address import SimAddress, read_address
from tailgate.harness.engine.config import Resolved, Settings, resolve
from tailgate.harness.targets.base import TargetGone
from tailgate.harness.targets.launch.launched import LaunchedTarget
from tailgate.harness.targets.launch.process import OwnProcess
from tailgate.harness.targets.vllm_flags import flag
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.import_paths import python_module

_READY_S = 30.0
_LOOK_S = 0.01
_SAYS = "tailgate engine: "


@dataclass(frozen=True)
class SimDeployment:
    """What is simulated on a virtual clock: one replica's settings, how many there are, and what happens to them."""

    address: SimAddress
    resolved: Resolved

    @property
    def names(self) -> tuple[str, ...]:
        """What each replica is called where a server's URL would stand."""
        name, count = f"sim:{self.address.preset}", self.address.most_replicas
        return tuple(f"{name}#{k + 1}" for k in range(count)) if count > 1 else (name,)


def sim_deployment(sim: str, args: dict[str, Any], seed: int) -> SimDeployment:
    """The deployment of a spec's `target.sim` and `target.args`. UserError for what can't be had."""
    address = read_address(sim, "target.sim")
    given = vars(parser(kind=_Raising).parse_args(["--preset", address.preset, *address.flags, *_flags(args, seed)]))
    for name in ("host", "port", "detach"):
        del given[name]
    return SimDeployment(address, resolve(Settings(**given)))


class _Raising(Parser):
    """Raises what a command line would be refused with."""

    def refuse(self, message: str) -> NoReturn:
        raise UserError(message, where="target.args")


def _flags(args: dict[str, Any], seed: int) -> list[str]:
    """Settings as the engine's command line. What reports can use and costs next to nothing is on by default."""
    defaults = {"enable-prompt-tokens-details": True, "enable-per-request-metrics": True}
    given = {"seed": seed, **defaults, **{key.replace("_", "-"): value for key, value in args.items()}}
    return [text for key, value in given.items() for text in flag(key, value)]


class SimTarget(LaunchedTarget):
    """`sim:PRESET`, with engine flags from the spec's `args`."""

    role = "engine"
    grace_s = 5.0

    def __init__(self, preset: str, args: dict[str, Any], seed: int, gpus: str | None = None) -> None:
        super().__init__(gpus)
        self._preset = preset
        self._flags = _flags(args, seed)

    async def launch(self) -> tuple[str, ...]:
        """Spawn it and wait for its line with the port."""
        command = [*python_module("tailgate.harness.engine"), "--preset", self._preset, "--port", "0", *self._flags]
        began = time.monotonic()
        self.process = await OwnProcess.spawn(command)
        self.life.command = command
        ending = asyncio.create_task(self.process.ended())
        try:
            while not (line := self._port_line()):
                if ending.done() or time.monotonic() > began + _READY_S:
                    lines = self.process.tail()
                    what = lines[-1] if lines else "it ended without a message"
                    raise TargetGone(what.removeprefix(_SAYS), where=f"sim:{self._preset}")
                await asyncio.wait([ending], timeout=_LOOK_S)
        finally:
            ending.cancel()
        said = (line for line in self.process.log.read_text(errors="replace").splitlines() if line.startswith(_SAYS))
        self.life.notices += [line.removeprefix(_SAYS) for line in said]
        self.life.phases["server start"] = time.monotonic() - began
        return (f"http://127.0.0.1:{json.loads(line)['port']}",)

    def _port_line(self) -> str:
        assert self.process is not None
        text = self.process.log.read_text(errors="replace")
        return next(
            (line for line in text.splitlines(keepends=True) if line.startswith('{"port"') and line[-1] == "\n"), ""
        )
