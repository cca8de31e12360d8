"""What a finding is, and what it may rest on. The rules that make findings are `reports.summary.diagnosis`."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tailgate.reports.cost.cost import Cost
from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.in_flight import InFlight
from tailgate.reports.metrics.workload_as_sent import WorkloadAsSent
from tailgate.reports.rundir.events import Event
from tailgate.reports.telemetry.gpu import GpuView
from tailgate.reports.telemetry.server import ServerView
from tailgate.reports.validity.client import Check


class FindingKind(StrEnum):
    """What a finding is about; stable names for scripts."""

    CLIENT_BOUND = "client_bound"
    OVERLOADED = "overloaded"
    QUEUE_BOUND_KV = "queue_bound_kv"
    QUEUE_BOUND_SEQS = "queue_bound_seqs"
    QUEUE_DEFERRED = "queue_deferred"
    QUEUE_BOUND = "queue_bound"
    PREEMPTION_THRASH = "preemption_thrash"
    PREFILL_BOUND = "prefill_bound"
    DECODE_BOUND = "decode_bound"
    CACHE_COLD = "cache_cold"
    THROTTLED_GPU = "throttled_gpu"
    UNDER_USED = "under_used"
    IMBALANCE = "imbalance"
    CHANGED_IN_WINDOW = "changed_in_window"
    NOT_WARM = "not_warm"
    GATEWAY_COALESCED = "gateway_coalesced"
    STALLS = "stalls"
    SHED = "shed"
    LENGTHS_DIFFER = "lengths_differ"
    PROMPTS_DIFFER = "prompts_differ"


@dataclass(frozen=True)
class Finding:
    """One finding: what, how we know, what to try. `figures` are what it rests on, by name with unit."""

    kind: FindingKind
    says: str
    figures: dict[str, float]
    remedy: str


@dataclass(frozen=True)
class Evidence:
    """Everything a rule may look at; None or empty where there is nothing."""

    analysis: Analysis
    checks: Sequence[Check] = ()
    flight: InFlight | None = None
    overloaded: bool = False
    server: ServerView | None = None
    gpus: Sequence[GpuView] = ()
    workload: WorkloadAsSent | None = None
    cost: Cost | None = None
    events: Sequence[Event] = ()
