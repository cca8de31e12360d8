"""A deployment that someone else runs: we only know where."""


class UrlTarget:
    """One or several base URLs."""

    def __init__(self, urls: tuple[str, ...]) -> None:
        self._urls = urls

    async def start(self) -> tuple[str, ...]:
        """Nothing to start."""
        return self._urls

    def processes(self) -> dict[str, int]:
        """None is ours."""
        return {}

    async def stop(self) -> None:
        """Nothing to stop."""
