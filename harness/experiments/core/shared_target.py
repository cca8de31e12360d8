"""A deployment as the runs of a campaign see it: it may stay up over several of them, and it may not come up at all."""

from pathlib import Path

from tailgate.harness.targets.base import Ended, Life, Target, TargetGone


class SharedTarget:
    """Looks like a target to each run.

    Attributes:
        stays: it goes on until `end`, whatever a run stops.
        fell: it was launched and did not come up.
    """

    def __init__(self, inner: Target, stays: bool = True) -> None:
        self._inner = inner
        self.stays = stays
        self.fell = False
        self.life: Life | None = inner.life  # of the one launch
        self._urls: tuple[str, ...] | None = None
        self._log_kept = False

    async def start(self) -> tuple[str, ...]:
        """Bring it up, the first time.

        Raises:
            UserError: it can't be started.
            TargetGone: it was, and ended or never answers.
        """
        if self._urls is None:
            try:
                self._urls = await self._inner.start()
            except TargetGone:
                self.fell = True
                raise
        return self._urls

    def processes(self) -> dict[str, int]:
        return self._inner.processes()

    async def ended(self) -> Ended:
        return await self._inner.ended()

    def keep_log(self, run_dir: Path) -> None:
        """The log goes on in the directory of the first run."""
        if not self._log_kept:
            self._inner.keep_log(run_dir)
            self._log_kept = True

    async def stop(self) -> None:
        if not self.stays:
            await self.end()

    async def end(self) -> None:
        await self._inner.stop()
