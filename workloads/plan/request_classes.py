"""A class of requests, ready to be drawn from: its laws parsed, its names numbered."""

from dataclasses import dataclass, replace

from tailgate.workloads.config.classes import ClassSpec, PrefixSpec
from tailgate.workloads.config.workload import WorkloadSpec
from tailgate.workloads.sampling.distribution_grammar import parse
from tailgate.workloads.sampling.distributions import Distribution


@dataclass(frozen=True)
class SessionDistributions:
    """Conversations: see `classes.SessionSpec`."""

    turns: Distribution
    think_s: Distribution
    new_tokens: Distribution
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
    prompt: Distribution
    output: Distribution
    spearman: float
    sessions: SessionDistributions | None
    prefix: PrefixSpec | None

    @property
    def has_blocks(self) -> bool:
        """Whether its requests share anything."""
        return self.prefix is not None or (self.sessions is not None and self.sessions.resend)


def classes_of(spec: WorkloadSpec) -> tuple[RequestClass, ...]:
    """All classes of a resolved workload without a trace, in the order they are written."""
    return tuple(_kind(name, code, one) for code, (name, one) in enumerate(spec.class_specs().items()))


def _kind(name: str, code: int, spec: ClassSpec) -> RequestClass:
    if spec.prompt_tokens is None or spec.output_tokens is None:
        raise ValueError(f"class {name!r} has no lengths")
    sessions = None
    if spec.sessions is not None:
        s = spec.sessions
        longest = s.max_think if s.max_think is not None else float("inf")
        sessions = SessionDistributions(
            parse(s.turns), parse(s.think), parse(s.new_tokens), s.history != "none", s.compact_at, s.pace == "clock",
            s.max_turns, longest,
        )  # fmt: skip
    return RequestClass(
        name, code, 0.0 if spec.arrivals is not None else spec.weight, spec.priority,
        parse(spec.prompt_tokens), parse(spec.output_tokens), spec.correlation or 0.0, sessions, spec.prefix,
    )  # fmt: skip


def by_traffic(spec: WorkloadSpec, kinds: tuple[RequestClass, ...]) -> tuple[RequestClass, ...]:
    """The classes weighted by the traffic they have: of the shared arrivals by weight, or of their own.

    In a closed loop, where there are no shared ones, classes that only have a weight keep it.
    """
    own = {name: one.arrivals.mean_rate() or 0.0 for name, one in spec.classes.items() if one.arrivals is not None}
    if not own:
        return kinds
    shared = spec.arrivals.mean_rate() or 0.0 if spec.arrivals is not None else None
    if shared is None and len(own) < len(kinds):
        return tuple(replace(kind, weight=kind.weight or 1.0) for kind in kinds)
    weights = sum(kind.weight for kind in kinds)
    rates = {kind.name: own.get(kind.name, (shared or 0.0) * kind.weight / (weights or 1.0)) for kind in kinds}
    return tuple(replace(kind, weight=rates[kind.name]) for kind in kinds)
