"""What the deployments that we start have in common: one process of ours, its life, its log, its end."""

import time
from pathlib import Path

from harness.targets.base import Ended, Life, never
from harness.targets.process import GRACE_S, OwnProcess

LOG_NAME = "server.log"


class LaunchedTarget:
    """Base of `sim`, `vllm` and `command`: they differ in how they start."""

    role = "server"
    grace_s = GRACE_S

    def __init__(self) -> None:
        self.process: OwnProcess | None = None
        self.ready = False
        self.life: Life | None = Life()

    def processes(self) -> dict[str, int]:
        """The server; its children are found from it."""
        return {self.role: self.process.pid} if self.process else {}

    async def ended(self) -> Ended:
        """Return when the server is gone by itself."""
        return await (self.process.ended() if self.process else never())

    def keep_log(self, run_dir: Path) -> None:
        """Move the log into the run directory."""
        if self.process:
            self.process.move_log(run_dir / LOG_NAME)

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL for what is left; the log of one that did well, but that no run kept, is removed."""
        if self.process is None:
            return
        well = self.ready and self.process.exit_code is None
        began = time.monotonic()
        killed = await self.process.stop(self.grace_s)
        assert self.life is not None
        self.life.stop_s = time.monotonic() - began
        self.life.killed = killed
        self.life.exit_code = self.process.exit_code
        if well and self.process.log.name != LOG_NAME:
            self.process.log.unlink(missing_ok=True)
        self.process = None
