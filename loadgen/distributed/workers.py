"""The workers of a distributed run as the master knows them: who joined, what each has, who is missing or given up."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tailgate.loadgen.control.stages import Stage
from tailgate.loadgen.distributed.protocol import PROTOCOL, VERSION
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.formatting import visible

# A worker is missing after so long without a message or a heartbeat of Locust.
_SILENT_S: Final = 4.0
# It is given up when it has been missing for so long, all others are done, and nothing is sent any more.
_PATIENCE_S: Final = 8.0
_LONGEST_NAME: Final = 64


@dataclass
class Worker:
    """One worker, with its part of the run and its progress."""

    id: str  # Locust's name for the connection
    number: int
    name: str
    injectors: int
    version: str
    first: int = 0  # number of its first injector
    prepared: bool = False
    stamps: bool = True
    offset_ns: int = 0  # the master's clock less its own
    error_ns: int = 0
    drift_ns: int = 0  # how far the offset moved through the run
    began: bool = False  # has reported something since go
    closed_at_ns: int | None = None  # closed loop: when it asked for its last request, on the master's clock
    users: dict[str, float] = field(default_factory=dict)
    drained: bool = False
    last_heard_s: float = field(default_factory=time.monotonic)
    missing_since: float | None = None  # monotonic; neither a heartbeat nor a word
    given_up: bool = False
    alone_s: float = 0.0  # how long it sends on without hearing of the master

    @property
    def here(self) -> bool:
        """Whether anything is still to be expected of it."""
        return not (self.drained or self.given_up)

    def facts(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "injectors": list(range(self.first, self.first + self.injectors)),
            "version": self.version,
            "clock_offset_ms": self.offset_ns / 1e6,
            "clock_error_ms": self.error_ns / 1e6,
            "clock_drift_ms": self.drift_ns / 1e6,
            "drained": self.drained,
            "given_up": self.given_up,
        }


def shown_name(text: str) -> str:
    """A worker's own word, such as its name, as one short line that nothing obeys."""
    return " ".join(visible(text).split())[:_LONGEST_NAME]


def dealt_in_order(clients: Iterable[str]) -> list[str]:
    """The order in which Locust deals users out: one to each worker in turn, those of one host not in a row.

    Source: `locust.dispatch.UsersDispatcher._sort_workers`; a worker's id is its host's name, `_` and a random part.
    """
    seen: Counter[str] = Counter()
    places = []
    for client in sorted(clients):
        host = client.rpartition("_")[0]
        places.append((seen[host], client))
        seen[host] += 1
    return [client for _, client in sorted(places)]


def apportioned(whole: int, weights: Mapping[str, int]) -> dict[str, int]:
    """Whole numbers in proportion to the weights, which add up to ``whole`` (largest remainders)."""
    total = sum(weights.values())
    parts = {name: divmod(whole * weight, total) for name, weight in weights.items()}
    rest = whole - sum(part for part, _ in parts.values())
    favoured = sorted(parts, key=lambda name: -parts[name][1])[:rest]
    return {name: part + (name in favoured) for name, (part, _) in parts.items()}


class Workers:
    """The workers that were let in, in order of their joining."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.by_id: dict[str, Worker] = {}
        self.turned_away: list[str] = []
        self.sharded = False
        self._admitted = 0

    def admit(self, client: str, about: dict[str, Any]) -> Worker | UserError:
        """Let a worker in, or say why not. A worker that is in stays in."""
        if client in self.by_id:
            return self.by_id[client]
        version, number = shown_name(about["version"]), self._admitted + 1
        if version != VERSION or about["protocol"] != PROTOCOL:
            return UserError(
                f"this worker is tailgate {version}, the master is tailgate {VERSION}",
                remedy="Install the same version on all machines.",
            )
        if self.sharded or len(self.by_id) == self.expected:
            why = "has begun" if self.sharded else f"has its {self.expected} workers"
            return UserError(f"too late: the run {why}", remedy="Raise --expect-workers on the master.")
        name = shown_name(about["name"]) or f"worker-{number}"
        worker = Worker(client, number, name, about["injectors"], version)
        worker.alone_s = about["alone_s"]
        self.by_id[client] = worker
        self._admitted = number
        return worker

    def forget(self, worker: Worker) -> None:
        del self.by_id[worker.id]

    def takes_part(self, client: str) -> bool | None:
        """Whether this connection's worker was let in; None while others still may be."""
        return client in self.by_id if self.sharded else None

    @property
    def complete(self) -> bool:
        return len(self.by_id) == self.expected

    @property
    def injectors(self) -> int:
        return sum(worker.injectors for worker in self.by_id.values())

    def number_injectors(self) -> None:
        """Give each worker the numbers of its injectors. From now on no worker is let in."""
        self.sharded = True
        first = 0
        for worker in self.by_id.values():
            worker.first = first
            first += worker.injectors

    def shares(self, requests: int | None, stages: Sequence[Stage]) -> dict[str, int | None]:
        """Each worker's part (by its id) of a closed loop's number of requests: in proportion to its users.

        A worker without a user gets none; by equal parts it would wait for ever for somebody to send its own.
        """
        if requests is None:
            return dict.fromkeys(self.by_id)
        ranks = {client: k for k, client in enumerate(dealt_in_order(self.by_id))}
        n = len(ranks)
        weights = {
            client: sum((stage.users // n + (rank < stage.users % n)) * stage.for_ns for stage in stages)
            for client, rank in ranks.items()
        }
        return dict(apportioned(requests, weights))

    def who_came(self) -> str:
        came = ", ".join(f"{r.name} (tailgate {r.version})" for r in self.by_id.values()) or "nobody"
        return came + "".join(f"; turned away: {worker}" for worker in self.turned_away)


class Liveness:
    """Which workers are there, missing, back again or given up. The run may end when all are accounted for.

    ``beats(client)`` says whether Locust counts a connection as alive.
    """

    def __init__(self, workers: Workers, beats: Callable[[str], bool], event: Callable[[str], None]) -> None:
        self._workers = workers
        self._beats = beats
        self._event = event

    def newly_missing(self) -> list[Worker]:
        now = time.monotonic()
        missing_workers = []
        for worker in list(self._workers.by_id.values()):
            missing = now - worker.last_heard_s > _SILENT_S and not self._beats(worker.id)
            if missing and worker.missing_since is None and worker.here:
                worker.missing_since = now
                self._event(f"{worker.name} is missing: it died, or the network between is down")
                missing_workers.append(worker)
            elif not missing and worker.missing_since is not None:
                self._event(f"{worker.name} is back after {now - worker.missing_since:.0f} s")
                worker.missing_since, worker.given_up = None, False
        return missing_workers

    def newly_given_up(self, over_s: float) -> list[Worker]:
        """Those that don't come back, once nobody else is waited for.

        ``over_s``: for how long every request has ended (negative: not yet). Before, a worker sends on for as long
        as its `--alone` says, and is waited for as long.
        """
        waiting = [worker for worker in self._workers.by_id.values() if worker.here]
        if any(worker.missing_since is None for worker in waiting):
            return []
        now = time.monotonic()
        lost = [
            worker
            for worker in waiting
            if (missing_s := now - (worker.missing_since or now)) > max(_PATIENCE_S, worker.alone_s)
            or min(missing_s, over_s) > _PATIENCE_S
        ]
        for worker in lost:
            worker.given_up = True
            self._event(f"{worker.name} did not come back: what it did not report is lost")
        return lost

    @property
    def all_accounted_for(self) -> bool:
        return not any(worker.here for worker in self._workers.by_id.values())
