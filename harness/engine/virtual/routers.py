"""Which replica a request goes to. A router sees what a gateway sees: who is up, what is in flight, what was cached."""

from collections.abc import Callable, Sequence
from typing import Final

from tailgate.harness.engine.virtual.replica import VirtualReplica, VirtualSequence
from tailgate.workloads.sampling.random_streams import RandomStream

# A cached prefix is followed unless its replica has this many times as many requests, and as many more, in flight.
_IMBALANCE_TIMES: Final = 2
_IMBALANCE_MORE: Final = 8
_AT_ONCE: Final = 1024

Router = Callable[[VirtualSequence, Sequence[VirtualReplica]], VirtualReplica]


class _Turns:
    """Breaks ties: replicas take turns."""

    def __init__(self) -> None:
        self._last = 0

    def least(self, replicas: Sequence[VirtualReplica], load: Callable[[VirtualReplica], int]) -> VirtualReplica:
        loads = [load(replica) for replica in replicas]
        low = min(loads)
        tied = [replica for replica, value in zip(replicas, loads, strict=True) if value == low]
        chosen = next((replica for replica in tied if replica.number > self._last), tied[0])
        self._last = chosen.number
        return chosen


def _round_robin(_seed: int) -> Router:
    turns = _Turns()
    return lambda _request, replicas: turns.least(replicas, lambda _: 0)


def _least_in_flight(_seed: int) -> Router:
    turns = _Turns()
    return lambda _request, replicas: turns.least(replicas, lambda replica: replica.in_flight)


def _length_aware(_seed: int) -> Router:
    """The fewest tokens of prompts still to be computed, and then the fewest requests."""
    turns = _Turns()
    return lambda _request, replicas: turns.least(
        replicas, lambda replica: replica.scheduler.prompt_tokens_left() * 4096 + replica.in_flight
    )


def _prefix_aware(_seed: int) -> Router:
    turns = _Turns()

    def choose(request: VirtualSequence, replicas: Sequence[VirtualReplica]) -> VirtualReplica:
        least = turns.least(replicas, lambda replica: replica.in_flight)
        most = len(request.chain)
        hits = [len(replica.scheduler.pool.find(request.chain, most)[0]) for replica in replicas]
        best = replicas[hits.index(max(hits))]
        crowded = best.in_flight > _IMBALANCE_TIMES * least.in_flight + _IMBALANCE_MORE
        return least if not max(hits) or crowded else best

    return choose


def _random(seed: int) -> Router:
    stream, drawn = RandomStream(seed, "engine", "router"), list[float]()

    def choose(_request: VirtualSequence, replicas: Sequence[VirtualReplica]) -> VirtualReplica:
        if not drawn:
            drawn.extend(stream.uniform(_AT_ONCE).tolist()[::-1])
        return replicas[int(drawn.pop() * len(replicas))]

    return choose


ROUTERS: Final[dict[str, Callable[[int], Router]]] = {
    "round-robin": _round_robin,
    "least-in-flight": _least_in_flight,
    "prefix-aware": _prefix_aware,
    "length-aware": _length_aware,
    "random": _random,
}
