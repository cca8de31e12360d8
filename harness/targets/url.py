"""A deployment that someone else runs: we only know where."""

from pathlib import Path

from tailgate.harness.targets.base import Ended, Life, never


class UrlTarget:
    """One or several base URLs."""

    life: Life | None = None

    def __init__(self, urls: tuple[str, ...]) -> None:
        self._urls = urls

    async def start(self) -> tuple[str, ...]:
        return self._urls

    def processes(self) -> dict[str, int]:
        return {}

    async def ended(self) -> Ended:
        """Never returns: the injector and `/metrics` see it go."""
        return await never()

    def keep_log(self, run_dir: Path) -> None:
        """Does nothing: its log is elsewhere."""

    async def stop(self) -> None:
        """Does nothing: it isn't ours."""
