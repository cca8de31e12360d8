"""How many users there were: counted as they come and leave, weighted by time."""

import time


class UserCounts:
    """Users alive, and the integral of their number since the first came."""

    def __init__(self) -> None:
        self._now = 0
        self._most = 0
        self._user_ns = 0
        self._since_ns: int | None = None
        self._changed_ns = 0

    def change(self, by: int) -> None:
        """Some came (positive) or left (negative)."""
        now = time.monotonic_ns()
        if self._since_ns is None:
            self._since_ns = now
        else:
            self._user_ns += self._now * (now - self._changed_ns)
        self._changed_ns = now
        self._now += by
        self._most = max(self._most, self._now)

    def restart(self) -> None:
        """Forget what was up to now, but not who is there: the measure phase begins."""
        if self._since_ns is not None:
            self._since_ns = self._changed_ns = time.monotonic_ns()
            self._user_ns, self._most = 0, self._now

    def summary(self) -> dict[str, float]:
        """Time-weighted mean and largest number."""
        if self._since_ns is None:
            return {"mean": 0.0, "max": 0.0}
        now = time.monotonic_ns()
        whole = self._user_ns + self._now * (now - self._changed_ns)
        return {"mean": whole / max(now - self._since_ns, 1), "max": float(self._most)}
