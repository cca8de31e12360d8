"""A class of requests, ready to be drawn from: its distributions parsed, its names numbered."""

from dataclasses import dataclass, replace

from tailgate.workloads.config.classes import ClassSpec, PrefixSpec, SessionSpec
from tailgate.workloads.config.workload import WorkloadSpec
from tailgate.workloads.sampling.distribution_grammar import parse
from tailgate.workloads.sampling.distributions import ProbabilityDistribution


@dataclass(frozen=True)
class SessionDistributions:
    """Conversations: see `classes.SessionSpec`."""

    turns: ProbabilityDistribution
    think_s: ProbabilityDistribution
    new_tokens: ProbabilityDistribution
    resend: bool
    compact_at: int | None
    by_clock: bool
    max_turns: int
    max_think_s: float


@dataclass(frozen=True)
class RequestClass:
    """A class: `code` is its place in the plan's dictionary; weight 0 means that it has its own arrivals."""

    name: str
    code: int
    weight: float
    priority: int
    prompt: ProbabilityDistribution
    output: ProbabilityDistribution
    spearman: float
    sessions: SessionDistributions | None
    prefix: PrefixSpec | None

    @property
    def has_blocks(self) -> bool:
        """Whether its requests share anything."""
        return self.prefix is not None or (self.sessions is not None and self.sessions.resend)


def classes_of(spec: WorkloadSpec) -> tuple[RequestClass, ...]:
    """All classes of a resolved workload without a trace, in the order they are written."""
    return tuple(_parsed(name, code, class_spec) for code, (name, class_spec) in enumerate(spec.class_specs().items()))


def _parsed(name: str, code: int, spec: ClassSpec) -> RequestClass:
    if spec.prompt_tokens is None or spec.output_tokens is None:
        raise ValueError(f"class {name!r} has no lengths")
    sessions = None if spec.sessions is None else _parsed_sessions(spec.sessions)
    return RequestClass(
        name, code, 0.0 if spec.arrivals is not None else spec.weight, spec.priority,
        parse(spec.prompt_tokens), parse(spec.output_tokens), spec.correlation or 0.0, sessions, spec.prefix,
    )  # fmt: skip


def _parsed_sessions(spec: SessionSpec) -> SessionDistributions:
    return SessionDistributions(
        parse(spec.turns), parse(spec.think), parse(spec.new_tokens), spec.history != "none", spec.compact_at,
        spec.pace == "clock", spec.max_turns, spec.max_think if spec.max_think is not None else float("inf"),
    )  # fmt: skip


def by_traffic(spec: WorkloadSpec, classes: tuple[RequestClass, ...]) -> tuple[RequestClass, ...]:
    """The classes weighted by the traffic they have: of the shared arrivals by weight, or of their own.

    In a closed loop, where there are no shared ones, classes that only have a weight keep it.
    """
    own = {name: s.arrivals.mean_rate() or 0.0 for name, s in spec.classes.items() if s.arrivals is not None}
    if not own:
        return classes
    shared = spec.arrivals.mean_rate() or 0.0 if spec.arrivals is not None else None
    if shared is None and len(own) < len(classes):
        return tuple(replace(each, weight=each.weight or 1.0) for each in classes)
    weights = sum(each.weight for each in classes)
    rates = {each.name: own.get(each.name, (shared or 0.0) * each.weight / (weights or 1.0)) for each in classes}
    return tuple(replace(each, weight=rates[each.name]) for each in classes)
