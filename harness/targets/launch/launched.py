"""What the deployments that we start have in common: one process of ours, its life, its log, its end."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tailgate.harness.targets.base import Ended, Life, TargetGone, never
from tailgate.harness.targets.inspect.probe import Access, session
from tailgate.harness.targets.launch.gpu_memory import MemoryOverLife
from tailgate.harness.targets.launch.process import GRACE_S, OwnProcess, port_is_free
from tailgate.harness.targets.launch.ready import Readiness, first_token, wait_until_ready

LOG_NAME = "server.log"


class LaunchedTarget:
    """Base of `sim`, `vllm` and `command`: they differ in `launch`.

    `gpus`: whose memory is watched, as indices or UUIDs; empty: all; None: no GPU's.
    """

    role = "server"
    grace_s = GRACE_S

    def __init__(self, gpus: str | None = None) -> None:
        self.process: OwnProcess | None = None
        self._fell = False  # it did not come up, and the error names its log
        self.life: Life = Life()
        self.gpus = gpus
        self._memory: MemoryOverLife | None = None

    async def launch(self) -> tuple[str, ...]:
        """Start it and wait until it answers; its base URLs.

        Raises:
            UserError: it can't be started.
            TargetGone: it was, and does not come up.
        """
        raise NotImplementedError

    async def serve(
        self, command: Sequence[str], env: Mapping[str, str], port: int | None, access: Access, readiness: Readiness,
        url: str, model: str | None, endpoint: str,
    ) -> None:  # fmt: skip
        """Run a server's command and wait until it is ready and has given a first token.

        `port` is where it listens, if that is on this machine; without a `model` the first that it lists is asked.
        """
        self.life.command = list(command)
        headers = await access.headers()
        began_s = time.monotonic()
        self.process = process = await OwnProcess.spawn(command, env=env, port=port)
        async with session(headers, access.trust) as http:
            ready_s = await wait_until_ready(process, self.life, http, began_s, readiness)
            await first_token(process, self.life, http, ready_s, url, model, endpoint)

    async def before_stop(self) -> None:
        """Do what ends the server before its process gets a signal."""

    async def start(self) -> tuple[str, ...]:
        """Launch it, with GPU memory read before and after."""
        self._memory = await MemoryOverLife.open(self.gpus, self.life)
        if self._memory is not None:
            await self._memory.look("before_start")
        try:
            urls = await self.launch()
        except TargetGone:
            self._fell = True
            raise
        if self._memory is not None:
            await self._memory.look("loaded")
        return urls

    def processes(self) -> dict[str, int]:
        return {self.role: self.process.pid} if self.process and not self.life.detached else {}

    async def ended(self) -> Ended:
        return await (self.process.ended() if self.process else never())

    def keep_log(self, run_dir: Path) -> None:
        if self.process:
            self.process.move_log(run_dir / LOG_NAME)

    async def stop(self) -> None:
        """Take it down and wait until its port and its GPU memory are free again, as far as they are seen to be.

        The log of one that did well, but that no run kept, is removed.
        """
        if self.process is not None:
            await self._end(self.process)
            self.process = None
        if self._memory is not None:
            await self._memory.close()
            self._memory = None

    async def _end(self, process: OwnProcess) -> None:
        """Send SIGTERM, then SIGKILL to what is left."""
        life = self.life
        well = not self._fell and (life.detached or process.exit_code is None)
        if self._memory is not None:
            await self._memory.look("before_stop")
        began = time.monotonic()
        await self.before_stop()
        life.killed = await process.stop(self.grace_s)
        life.stop_s = time.monotonic() - began
        life.exit_code = process.exit_code
        if process.port is not None:
            life.port_free = port_is_free(process.port)
            if not life.port_free:
                life.notices.append(
                    f"port {process.port} was still taken {life.stop_s:.0f} s after the server was told to end"
                )
        if self._memory is not None:
            await self._memory.until_back()
        unnamed = well or not process.log.stat().st_size
        if unnamed and process.log.name != LOG_NAME:
            process.log.unlink()
