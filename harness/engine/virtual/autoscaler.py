"""More replicas when the ones that serve are busy, fewer when they are not.

    waiting > 5 for 30s, most 6, cold 90s, warm 1, below 1 for 120s

The metric is the mean over the replicas that serve, looked at once a tick. One replica comes at a time: it serves after
its cold start, at once if one is kept warm (which is replaced in a cold start's time). One goes at a time: it gets no
more requests, ends those that it has, and is gone.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tailgate.harness.engine.virtual.replica import VirtualReplica
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.units import parse_duration
from tailgate.workloads.common.validation import meant

METRICS: Final[dict[str, Callable[[VirtualReplica], float]]] = {
    "waiting": lambda replica: replica.scheduler.waiting_count,
    "running": lambda replica: len(replica.scheduler.running),
    "in-flight": lambda replica: replica.in_flight,
    "kv-usage": lambda replica: replica.scheduler.pool.usage,  # a share: 0.9
}
_ABOVE: Final = re.compile(r"(?P<metric>[\w-]+)\s*>\s*(?P<value>[\d.]+)\s+for\s+(?P<time>\S+)")
_BELOW: Final = re.compile(r"below\s+(?P<value>[\d.]+)\s+for\s+(?P<time>\S+)")
_REMEDY: Final = "Write waiting > 5 for 30s, most 6, cold 90s, warm 1, below 1 for 120s; the first two are needed."
_COLD_START_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class ScalePolicy:
    """When replicas come and go. Without `below` none ever goes."""

    metric: str
    above: float
    above_for_s: float
    most: int
    cold_start_s: float = _COLD_START_S
    warm: int = 0
    below: float | None = None
    below_for_s: float = 0.0


def parse_policy(text: str, replicas: int, where: str) -> ScalePolicy:
    """The policy of a fleet that begins with so many replicas, and never has fewer. UserError for anything else."""
    first, *others = [part.strip() for part in text.split(",")]
    try:
        above = _ABOVE.fullmatch(first)
        if above is None:
            raise ValueError(f"{first!r} is no condition")
        if above["metric"] not in METRICS:
            raise ValueError(f"unknown metric {above['metric']!r}: {meant(above['metric'], list(METRICS))}")
        given: dict[str, float] = {}
        for part in others:
            if below := _BELOW.fullmatch(part):
                given |= {"below": float(below["value"]), "below_for_s": parse_duration(below["time"])}
                continue
            key, _, value = part.partition(" ")
            if key not in ("most", "cold", "warm"):
                raise ValueError(f"{part!r} is no part of a policy")
            given[key] = parse_duration(value) if key == "cold" else int(value)
        if "most" not in given:
            raise ValueError("it doesn't say how many replicas there may be (most)")
        if given["most"] <= replicas:
            raise ValueError(f"there are {replicas} replicas from the start, so most must be greater")
        if given.get("below", -1.0) >= float(above["value"]):
            raise ValueError("a replica would go and come for ever: below must be less than what adds one")
        policy = ScalePolicy(
            above["metric"], float(above["value"]), parse_duration(above["time"]), int(given["most"]),
            given.get("cold", _COLD_START_S), int(given.get("warm", 0)), given.get("below"),
            given.get("below_for_s", 0.0),
        )  # fmt: skip
    except ValueError as error:
        raise UserError(f"autoscale: {error}", where=where, remedy=_REMEDY) from error
    return policy


class Autoscaler:
    """Decides, tick by tick."""

    def __init__(self, policy: ScalePolicy, least: int) -> None:
        self.policy = policy
        self._least = least
        self._warm_at_s = [0.0] * policy.warm  # when each place of the warm pool has its replica
        self._hot_since: float | None = None
        self._idle_since: float | None = None

    def decide(self, now_s: float, serving: Sequence[VirtualReplica], starting: int) -> int:
        """1: start a replica, -1: let one go, 0: leave it."""
        policy, there = self.policy, len(serving) + starting
        value = sum(map(METRICS[policy.metric], serving)) / len(serving) if serving else float("inf")
        hot, idle = value > policy.above, policy.below is not None and value < policy.below
        self._hot_since = (now_s if self._hot_since is None else self._hot_since) if hot else None
        self._idle_since = (now_s if self._idle_since is None else self._idle_since) if idle else None
        if self._hot_since is not None and now_s - self._hot_since >= policy.above_for_s and there < policy.most:
            self._hot_since = now_s
            return 1
        if self._idle_since is not None and now_s - self._idle_since >= policy.below_for_s and there > self._least:
            self._idle_since = now_s
            return -1
        return 0

    def start_s(self, now_s: float) -> float:
        """When a replica serves that is started now."""
        for place, since_s in enumerate(self._warm_at_s):
            if since_s <= now_s:
                self._warm_at_s[place] = now_s + self.policy.cold_start_s
                return now_s
        return now_s + self.policy.cold_start_s
