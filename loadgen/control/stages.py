"""How many users a closed loop should have, and when: stages with ramps; and how many there really are."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

_SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Stage:
    """``users`` held for ``for_ns``, reached in a straight line over its first ``ramp_ns``."""

    users: int
    for_ns: int
    ramp_ns: int = 0


def users_at(stages: Sequence[Stage], t_ns: int, before: int = 0) -> int:
    """The number of users ``t_ns`` after the first stage began; the last stage's after the end.

    ``before`` is how many there were when the first stage began: where its ramp starts.
    """
    begin = 0
    for stage in stages:
        if t_ns < begin + stage.for_ns:
            into = t_ns - begin
            if into >= stage.ramp_ns:
                return stage.users
            return before + round((stage.users - before) * into / stage.ramp_ns)
        before, begin = stage.users, begin + stage.for_ns
    return before


def moments(stages: Sequence[Stage]) -> list[int]:
    """When the number of users may change: at each stage's start, at its ramp's end, and every second of a ramp."""
    changes = {0}
    begin = 0
    for stage in stages:
        changes.add(begin)
        changes.update(range(begin, begin + stage.ramp_ns, _SECOND_NS))
        changes.add(begin + min(stage.ramp_ns, stage.for_ns))
        begin += stage.for_ns
    return sorted(t for t in changes if t < begin)


def mean_users(stages: Sequence[Stage], until_ns: int) -> float:
    """The time-weighted mean of `users_at` up to ``until_ns``; at time zero the first stage's users."""
    if until_ns <= 0:
        return float(stages[0].users)
    edges = [t for t in moments(stages) if t < until_ns]
    lengths = [end - begin for begin, end in zip(edges, [*edges[1:], until_ns], strict=True)]
    return sum(users_at(stages, t) * length for t, length in zip(edges, lengths, strict=True)) / until_ns


class UserCounts:
    """How many users there are, counted as they come and leave, and the integral of their number over time."""

    def __init__(self) -> None:
        self._now = 0
        self._most = 0
        self._user_ns = 0
        self._since_ns: int | None = None
        self._changed_ns = 0

    def change(self, by: int) -> None:
        """Count users in (positive) or out (negative)."""
        now = time.monotonic_ns()
        if self._since_ns is None:
            self._since_ns = now
        else:
            self._user_ns += self._now * (now - self._changed_ns)
        self._changed_ns = now
        self._now += by
        self._most = max(self._most, self._now)

    def restart(self) -> None:
        """Begin the average anew with the users of now, because the measure phase begins."""
        if self._since_ns is not None:
            self._since_ns = self._changed_ns = time.monotonic_ns()
            self._user_ns, self._most = 0, self._now

    def summary(self) -> dict[str, float]:
        if self._since_ns is None:
            return {"mean": 0.0, "max": 0.0}
        now = time.monotonic_ns()
        whole = self._user_ns + self._now * (now - self._changed_ns)
        return {"mean": whole / max(now - self._since_ns, 1), "max": float(self._most)}
