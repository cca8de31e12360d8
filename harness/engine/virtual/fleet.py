"""Replicas behind a router on one virtual clock: what is due next happens next, and no time passes in between.

At one moment this is the order: steps end, faults, users whose patience is over, new requests, the series' sample, and
then steps begin. A load says which requests arrive when, and hears of each request's end.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from tailgate.harness.engine.config import Resolved
from tailgate.harness.engine.virtual.autoscaler import Autoscaler, ScalePolicy
from tailgate.harness.engine.virtual.faults import ReplicaFault
from tailgate.harness.engine.virtual.outcome import Ending
from tailgate.harness.engine.virtual.record import ServedRows
from tailgate.harness.engine.virtual.replica import VirtualReplica, VirtualSequence
from tailgate.harness.engine.virtual.routers import ROUTERS
from tailgate.harness.engine.virtual.series import SeriesRecorder


class VirtualLoad(Protocol):
    """Where requests come from. `feedback`: whether a request's end may bring another one.

    A request that isn't over at `until_s` is unserved; a load may come to know that time only later.
    """

    feedback: bool
    until_s: float

    def next_s(self) -> float:
        """When the next request arrives that is known of; inf if none is."""

    def take(self, now_s: float) -> Iterable[tuple[VirtualSequence, float]]:
        """The requests that arrive now, each with the time at which its user gives up (inf: never)."""

    def ended(self, row: int, now_s: float) -> None:
        """Hear that a request is over, however it ended."""


class _Kind(IntEnum):
    FAULT = 0
    WELL_AGAIN = 1
    STARTED = 2  # a replica that the autoscaler started
    DEADLINE = 3
    SAMPLE = 5


_ARRIVAL = 4  # the place of new requests in this order


@dataclass(frozen=True)
class FleetSettings:
    """What is simulated: `replicas` alike behind `router`, and `faults`. The series has an entry every `tick_s`.

    With `scaling` replicas come and go as it says, looked at every `tick_s`; there are never fewer than `replicas`.
    """

    resolved: Resolved
    replicas: int = 1
    router: str = "round-robin"
    faults: Sequence[ReplicaFault] = ()
    scaling: ScalePolicy | None = None
    keep_tokens: bool = False
    tick_s: float = 1.0
    skip: bool = True  # False: every step is scheduled; what comes out is the same

    @property
    def most_replicas(self) -> int:
        return self.replicas if self.scaling is None else self.scaling.most


class Fleet:
    """One simulation, from time 0 on."""

    def __init__(self, settings: FleetSettings, load: VirtualLoad) -> None:
        self._settings = settings
        self._load = load
        self._replicas = [
            VirtualReplica(settings.resolved, k + 1, keep_tokens=settings.keep_tokens, skip=settings.skip)
            for k in range(settings.most_replicas)
        ]
        for replica in self._replicas[settings.replicas :]:
            replica.alive = False
        self._starting: set[VirtualReplica] = set()
        self._killed: set[VirtualReplica] = set()
        self._scaler = Autoscaler(settings.scaling, settings.replicas) if settings.scaling is not None else None
        self.happened: list[tuple[float, str, str]] = []  # (s, kind, text) of faults and replicas that come and go
        self._route = ROUTERS[settings.router](settings.resolved.settings.seed)
        self._where: dict[int, tuple[VirtualSequence, VirtualReplica]] = {}  # by row, while it is in flight
        self._events: list[tuple[float, int, int, Any]] = []
        self._numbered = self._pending = 0  # events so far; those to come that are no samples
        self._ready: dict[VirtualReplica, None] = {}
        self.rows = ServedRows(settings.keep_tokens)
        self.series = [SeriesRecorder() for _ in self._replicas]
        self.ended_s = 0.0
        for fault in settings.faults:
            self._at(fault.at_s, _Kind.FAULT, fault)
        self._at(settings.tick_s, _Kind.SAMPLE, 1)
        self._handlers: dict[int, Callable[[float, Any], None]] = {
            _Kind.FAULT: self._fault,
            _Kind.WELL_AGAIN: self._well_again,
            _Kind.STARTED: self._started,
            _Kind.DEADLINE: self._give_up,
            _Kind.SAMPLE: self._sample,
        }

    def run(self) -> None:
        """Serve the load to its end, or to its `until_s`."""
        now, replicas = 0.0, self._replicas
        while True:
            until = self._load.until_s
            first = min(replicas, key=_end_of) if len(replicas) > 1 else replicas[0]
            event, arrives = self._events[0], self._load.next_s()
            outside = min(event[0], arrives)
            due = min(first.end_s, outside)
            if self._ready and due > now:
                for replica in self._ready:
                    replica.begin(now, self._horizon(replica, outside))
                self._ready.clear()
                continue
            if arrives == math.inf and not self._where:
                break
            if (
                arrives == first.end_s == math.inf and not self._pending and not self._ready
            ):  # all stands still for ever
                now = until if until < math.inf else now
                break
            if due > until:
                now = until
                break
            now = max(now, due)  # a whole nanosecond may lie just before
            if first.end_s <= outside:
                self._finish(first, now)
            elif event[:2] < (arrives, _ARRIVAL):
                self._happen(now)
            else:
                self._arrive(now)
        self._close(now)

    def _happen(self, now: float) -> None:
        _, kind, _, what = heapq.heappop(self._events)
        self._pending -= kind != _Kind.SAMPLE
        self._handlers[kind](now, what)

    def _at(self, time_s: float, kind: _Kind, what: Any) -> None:
        self._numbered += 1
        self._pending += kind != _Kind.SAMPLE
        heapq.heappush(self._events, (time_s, kind, self._numbered, what))

    def _horizon(self, replica: VirtualReplica, outside: float) -> float:
        """Until when a replica sees nothing but its own steps. Those of others matter where an end brings a request."""
        horizon = min(outside, self._load.until_s)
        if self._load.feedback:
            for other in self._replicas:
                if other is not replica:
                    # One that has yet to begin may end a request at any time from now on.
                    horizon = -math.inf if other in self._ready else min(horizon, other.earliest_end_s())
        return horizon

    def _finish(self, replica: VirtualReplica, now: float) -> None:
        for sequence in replica.finish():
            self._end(sequence, now, Ending.COMPLETE)
        self._ready[replica] = None

    def _arrive(self, now: float) -> None:
        for sequence, deadline_s in self._load.take(now):
            self.rows.arrived(sequence)
            ending = self._admit(sequence)
            if ending is not None:
                self.rows.ended(sequence, now, ending)
                self._load.ended(sequence.row, now)
            elif deadline_s < math.inf:
                self._at(deadline_s, _Kind.DEADLINE, sequence)

    def _admit(self, sequence: VirtualSequence) -> Ending | None:
        """Hand a request to a replica; or how it ended at once."""
        serving = self._serving()
        if not serving:
            return Ending.UNREACHABLE
        replica = self._route(sequence, serving) if len(self._replicas) > 1 else serving[0]
        self.rows.sent_to(sequence, replica.number)
        if sequence.prompt_tokens + sequence.output_tokens > self._settings.resolved.max_model_len:
            return Ending.TOO_LONG
        if replica.full:
            return Ending.REJECTED
        replica.submit(sequence)
        self._where[sequence.row] = sequence, replica
        self._ready[replica] = None
        return None

    def _serving(self) -> list[VirtualReplica]:
        return [replica for replica in self._replicas if replica.alive and replica.accepting]

    def _end(self, sequence: VirtualSequence, now: float, ending: Ending) -> None:
        _, replica = self._where.pop(sequence.row)
        self.rows.ended(sequence, now, ending, replica.step_ends)
        self._load.ended(sequence.row, now)

    def _give_up(self, now: float, sequence: VirtualSequence) -> None:
        found = self._where.get(sequence.row)
        if found is not None and found[0] is sequence:
            found[1].abort(sequence)
            self._end(sequence, now, Ending.ABANDONED)

    def _fault(self, now: float, fault: ReplicaFault) -> None:
        replica = self._replicas[fault.replica - 1]
        lasts = "" if fault.lasts_s is None else f" for {fault.lasts_s:g} s"
        slower = f" to {fault.speed:g} of its speed" if fault.kind == "slow" else ""
        self.happened.append((now, "fault", f"{fault.kind} replica {fault.replica}{slower}{lasts}"))
        match fault.kind:
            case "kill":
                replica.kill()
                self._killed.add(replica)
                for sequence, place in list(self._where.values()):
                    if place is replica:
                        self._end(sequence, now, Ending.LOST)
            case "stop":
                replica.freeze(now)
            case "slow":
                replica.pace.speed = fault.speed
        if fault.lasts_s is not None:
            self._at(now + fault.lasts_s, _Kind.WELL_AGAIN, fault)

    def _well_again(self, now: float, fault: ReplicaFault) -> None:
        replica = self._replicas[fault.replica - 1]
        self.happened.append((now, "fault", f"replica {fault.replica} is well again"))
        match fault.kind:
            case "kill":
                if not replica.alive:
                    replica.launch(now)
                    self._killed.discard(replica)
            case "stop":
                replica.thaw(now)
            case "slow":
                replica.pace.speed = 1.0
        self._ready[replica] = None

    def _sample(self, now: float, number: int) -> None:
        for replica, series in zip(self._replicas, self.series, strict=True):
            series.add(now, replica)
        if self._scaler is not None:
            self._scale(now, self._scaler)
        self._at((number + 1) * self._settings.tick_s, _Kind.SAMPLE, number + 1)

    def _scale(self, now: float, scaler: Autoscaler) -> None:
        for replica in self._replicas:
            if replica.alive and not replica.accepting and not replica.in_flight:
                replica.alive = False
        serving = self._serving()
        change = scaler.decide(now, serving, len(self._starting))
        if change > 0:
            spare = (r for r in self._replicas if not r.alive and r not in self._starting and r not in self._killed)
            if (new := next(spare, None)) is not None:
                self._starting.add(new)
                self.happened.append((now, "scale", f"replica {new.number} is started"))
                self._at(scaler.start_s(now), _Kind.STARTED, new)
        elif change < 0 and len(serving) > 1:
            least = min(serving, key=lambda r: (r.in_flight, -r.number))
            least.accepting = False
            self.happened.append((now, "scale", f"replica {least.number} gets no more requests"))

    def _started(self, now: float, replica: VirtualReplica) -> None:
        self._starting.discard(replica)
        replica.launch(now)
        self._ready[replica] = None
        self.happened.append((now, "scale", f"replica {replica.number} serves"))

    def _close(self, now: float) -> None:
        """Whatever is in flight at the horizon is unserved. The last sample is the end's."""
        for sequence, replica in list(self._where.values()):
            replica.abort(sequence)
            self.rows.ended(sequence, now, Ending.UNSERVED, replica.step_ends)
        self._where.clear()
        self.ended_s = now
        for replica, series in zip(self._replicas, self.series, strict=True):
            series.add(now, replica)


def _end_of(replica: VirtualReplica) -> float:
    return replica.end_s
