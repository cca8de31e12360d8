"""A deployment that stays up over several runs: `restart: block` and `restart: never`."""

from pathlib import Path

from harness.targets.base import Ended, Life, Target


class Kept:
    """Looks like a target to each run; what a run stops goes on until `end`."""

    def __init__(self, inner: Target) -> None:
        self._inner = inner
        self.life: Life | None = inner.life  # of the one launch
        self._urls: tuple[str, ...] | None = None
        self._log_kept = False

    async def start(self) -> tuple[str, ...]:
        """Bring it up, the first time.

        Raises:
            UserError: it can't be started, or never answers.
        """
        if self._urls is None:
            self._urls = await self._inner.start()
        return self._urls

    def processes(self) -> dict[str, int]:
        """What we started."""
        return self._inner.processes()

    async def ended(self) -> Ended:
        """Return when it is gone by itself."""
        return await self._inner.ended()

    def keep_log(self, run_dir: Path) -> None:
        """The log goes on in the directory of the first run."""
        if not self._log_kept:
            self._inner.keep_log(run_dir)
            self._log_kept = True

    async def stop(self) -> None:
        """Another run may follow."""

    async def end(self) -> None:
        """Take it down."""
        await self._inner.stop()
