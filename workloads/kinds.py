"""A class of requests, ready to be drawn from: its laws parsed, its names numbered."""

from dataclasses import dataclass

from workloads.classes import ClassSpec, PrefixSpec
from workloads.laws import Numbers
from workloads.lengths import parse
from workloads.spec import WorkloadSpec


@dataclass(frozen=True)
class SessionLaw:
    """Conversations: see `classes.SessionSpec`."""

    turns: Numbers
    think_s: Numbers
    new_tokens: Numbers
    resend: bool
    compact_at: int | None
    by_clock: bool
    max_turns: int
    max_think_s: float


@dataclass(frozen=True)
class Kind:
    """A class: `code` is its place in the plan's dictionary; weight 0 means that it has its own arrivals."""

    name: str
    code: int
    weight: float
    priority: int
    prompt: Numbers
    output: Numbers
    spearman: float
    sessions: SessionLaw | None
    prefix: PrefixSpec | None

    @property
    def has_blocks(self) -> bool:
        """Whether its requests share anything."""
        return self.prefix is not None or (self.sessions is not None and self.sessions.resend)


def kinds_of(spec: WorkloadSpec) -> tuple[Kind, ...]:
    """All classes of a resolved workload without a trace, in the order they are written."""
    return tuple(_kind(name, code, one) for code, (name, one) in enumerate(spec.class_specs().items()))


def _kind(name: str, code: int, spec: ClassSpec) -> Kind:
    if spec.prompt_tokens is None or spec.output_tokens is None:
        raise ValueError(f"class {name!r} has no lengths")
    sessions = None
    if spec.sessions is not None:
        s = spec.sessions
        longest = s.max_think if s.max_think is not None else float("inf")
        sessions = SessionLaw(
            parse(s.turns), parse(s.think), parse(s.new_tokens), s.history != "none", s.compact_at, s.pace == "clock",
            s.max_turns, longest,
        )  # fmt: skip
    return Kind(
        name, code, 0.0 if spec.arrivals is not None else spec.weight, spec.priority,
        parse(spec.prompt_tokens), parse(spec.output_tokens), spec.correlation or 0.0, sessions, spec.prefix,
    )  # fmt: skip
