"""`summary.json` (`tailgate.summary/1`) as a typed object. Latencies are in ms, shares fractions.

The stored shape is stable: keys are added, never renamed. A percentile that its sample can't support is None (see
`percentile_needs`); an infinite one (failures counted as infinitely late) is infinity, stored as "inf". Sections
that a run has nothing for are None, stored as `{}`. `reports.summary.summary` makes, writes and reads summaries.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final, Literal

from tailgate.reports.cost.cost import Cost
from tailgate.reports.cost.energy import Energy
from tailgate.reports.metrics.breakdown import Fairness, GroupFigures
from tailgate.reports.metrics.in_flight import InFlight
from tailgate.reports.metrics.throughput import Throughput
from tailgate.reports.metrics.workload_as_sent import WorkloadAsSent
from tailgate.reports.rundir.json_files import from_json, jsonable
from tailgate.reports.summary.findings import Finding
from tailgate.reports.summary.latency import LatencySummary, Needs, Percentiles, latencies, short_of
from tailgate.reports.summary.objective_model import Objective
from tailgate.reports.telemetry.deployment import DeploymentMemory, Lifecycle
from tailgate.reports.telemetry.gpu import GpuView
from tailgate.reports.telemetry.server import ServerView
from tailgate.reports.validity.client import Check

Outcome = Literal["PASS", "INCONCLUSIVE", "FAIL", "INVALID"]
# Of a run's and of a gate's verdict, in the order of severity: the worst last.
EXIT_CODES: Final[dict[Outcome, int]] = {"PASS": 0, "INCONCLUSIVE": 3, "FAIL": 1, "INVALID": 4}


@dataclass(frozen=True)
class LoadSummary:
    """What was sent, by status, and what was in flight."""

    loop: str
    offered_rps: float | None
    sent_rps: float | None
    duration_s: float
    # `planned`, `ok` and the other statuses that came, of the measure phase; `all_phases` of all
    requests: dict[str, int]
    all_phases: dict[str, int]
    users: dict[str, float] | None = None  # of a closed loop their time-weighted `mean` and `max`
    in_flight: InFlight | None = None
    overloaded: bool | None = None  # whether requests in flight grew all along; None where that can't be told

    # of a closed loop that ended by a number of requests, how much of the window had users without one
    users_run_out_s: float | None = None

    OPTIONAL: ClassVar = ("users", "in_flight", "overloaded", "users_run_out_s")


@dataclass(frozen=True)
class SloSummary:
    """Attainment, goodput and each objective; what makes a request good, of the run and of its classes."""

    attained: float | None
    attained_of_admitted: float | None
    good: int | None
    goodput_rps: float | None
    good_output_tokens_per_s: float | None
    good_means: list[str]
    good_means_by_class: dict[str, list[str]]
    thresholds: list[Objective]
    # the fewest and the most good requests that the client's own error leaves possible
    good_ends: tuple[int, int] | None = None

    OPTIONAL: ClassVar = ("good_ends",)


@dataclass(frozen=True)
class Streaming:
    """How answers came over the wire: chunks, and how many tokens and reads shared one."""

    arrivals: int
    multi_token_share: float | None
    client_coalesced_share: float | None
    server_coalesced_share: float | None
    # answers whose tokens are estimates, since their stream proves usage wrong, or they have none
    usage_contradicted: int | None = None
    usage_missing: int | None = None
    tpot_is_bound: int | None = None  # answers whose TPOT is a lower bound: how many tokens came first, nobody tells
    OPTIONAL: ClassVar = ("usage_contradicted", "usage_missing", "tpot_is_bound")


@dataclass(frozen=True)
class Connections:
    """Requests that were sent, connections that they opened, and what the set-up of these took."""

    sent: int
    new: int
    set_up_ms: LatencySummary


@dataclass(frozen=True)
class ErrorKind:
    """Requests that ended with one status: how many, the first that says why, and how often each HTTP status came."""

    status: str
    count: int
    example: dict[str, Any]
    http_status: dict[str, int]


@dataclass(frozen=True)
class Errors:
    """Requests of the measure phase that did not end ok; `share` is of those that count."""

    share: float | None
    failed: int
    kinds: list[ErrorKind]


@dataclass(frozen=True)
class GroupSummary:
    """One group of one breakdown; see `reports.metrics.breakdown.GroupFigures`."""

    name: str
    n: int
    ok: int
    failed_share: float | None
    attained: float | None
    goodput_rps: float | None
    output_tokens_per_s: float | None
    latencies: dict[str, LatencySummary]
    failed_as_inf: dict[str, LatencySummary]
    itl: Percentiles
    needs: Needs
    stands_for: int = 1

    @classmethod
    def of(cls, group: GroupFigures) -> "GroupSummary":
        quantiles = {name: values.quantiles for name, values in group.latencies.items()} | {"itl": group.itl}
        quantiles |= {f"{name}_failed_as_inf": values.quantiles for name, values in group.failed_as_inf.items()}
        return cls(
            **{name: getattr(group, name) for name in _OF_GROUP},
            latencies=latencies(group.latencies),
            failed_as_inf=latencies(group.failed_as_inf),
            itl=Percentiles(**Percentiles.by_name(group.itl)),
            needs=short_of(quantiles),
            stands_for=group.stands_for,
        )

    def to_json(self) -> dict[str, Any]:
        """The latencies stand on the same level as the group's counts."""
        rest = {name: getattr(self, name) for name in ("failed_as_inf", "itl", "needs", "stands_for")}
        return dict(jsonable({**{name: getattr(self, name) for name in _OF_GROUP}, **self.latencies, **rest}))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "GroupSummary":
        own = {*_OF_GROUP, "failed_as_inf", "itl", "needs", "stands_for"}
        by_name = dict[str, LatencySummary]
        counts: dict[str, Any] = {name: data.get(name) for name in _OF_GROUP}
        return cls(
            **counts,
            latencies=from_json(by_name, {name: item for name, item in data.items() if name not in own}),
            failed_as_inf=from_json(by_name, data.get("failed_as_inf")),
            itl=Percentiles.from_json(data.get("itl") or {}),
            needs=data.get("needs") or {},
            stands_for=data.get("stands_for", 1),
        )


_OF_GROUP = ("name", "n", "ok", "failed_share", "attained", "goodput_rps", "output_tokens_per_s")


@dataclass(frozen=True)
class GpuSummary:
    """All GPUs together, and each; `count` without MIG instances, which are parts of a GPU."""

    count: int
    power_w: float | None
    slowdown_share_max: float | None
    gpus: list[GpuView]


@dataclass(frozen=True)
class ClientSummary:
    """How well the load generator kept up: lags by `p50`, `p99` and `max`, and how busy the busiest second was."""

    dispatch_lag_ms: dict[str, float | None]
    send_lag_ms: dict[str, float | None]
    receive_lag_ms: dict[str, float | None]
    cpu_fraction_max: float | None
    loop_max_ms: float | None
    clock_offset_ms: float | None
    injectors: int
    workers: list[dict[str, Any]]
    stamp: str
    turnaround_lag_ms: dict[str, float | None] | None = None  # of a closed loop
    # By `ttft` and `itl`: half of the own error of p99 that was expected of this machine before the load.
    expected_error_ms: dict[str, float] | None = None

    OPTIONAL: ClassVar = ("turnaround_lag_ms", "expected_error_ms")


@dataclass(frozen=True)
class Summary:
    """All figures of one run. `why` is the reason for the verdict, in one sentence."""

    schema: str
    run: str
    name: str
    valid: bool
    invalid_reasons: list[str]
    simulated: bool
    state: str
    verdict: Outcome
    exit_code: int  # that of EXIT_CODES, or 130 where a person interrupted the run
    why: str
    load: LoadSummary
    latency_ms: dict[str, LatencySummary]
    latency_failed_as_inf_ms: dict[str, LatencySummary]
    percentile_needs: Needs
    percentile_needs_failed_as_inf: Needs
    checks: list[Check]
    throughput: Throughput | None
    slo: SloSummary | None
    streaming: Streaming
    connections: Connections
    errors: Errors
    splits: dict[str, list[GroupSummary]]
    fairness: Fairness | None
    workload: WorkloadAsSent
    cost: Cost | None
    energy: Energy | None
    server: ServerView | None
    gpu: GpuSummary | None
    life: Lifecycle | None
    vram: DeploymentMemory | None
    findings: list[Finding]
    client: ClientSummary
    notices: list[str]

    @property
    def failed_checks(self) -> list[Check]:
        """Checks of the measurement itself that failed."""
        return [check for check in self.checks if check.status == "fail"]

    @property
    def objectives(self) -> list[Objective]:
        """Every judged objective; none without an SLO."""
        return self.slo.thresholds if self.slo else []

    def value(self, path: tuple[str, ...]) -> float | None:
        """A metric's value by its path in the catalogue: infinite where failures make it so, None without one."""
        at: Any = self
        for name in path:
            if isinstance(at, LatencySummary):
                at = at.statistic(name)
            else:
                at = at.get(name) if isinstance(at, Mapping) else getattr(at, name, None)
        is_number = isinstance(at, int | float) and not isinstance(at, bool) and not math.isnan(at)
        return float(at) if is_number else None

    def own_error(self, path: tuple[str, ...]) -> tuple[float, float] | None:
        """The ends of the load generator's own error of a latency's statistic; None where the records don't tell it."""
        latency = getattr(self, path[0]).get(path[1]) if path[0].startswith("latency") else None
        ends = latency.errors.get(path[2]) if isinstance(latency, LatencySummary) else None
        return None if ends is None or ends[0] is None or ends[1] is None else (ends[0], ends[1])

    def to_json(self) -> dict[str, Any]:
        sections = {field.name: jsonable(getattr(self, field.name)) for field in fields(self)}
        return {name: {} if section is None else section for name, section in sections.items()}
