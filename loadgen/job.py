"""The job of an injector: its part of a run, as plain JSON over its control socket.

Secrets (API keys in `headers`) travel only there: never in a file, an argument or the environment.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from tailgate.loadgen.injector.http.endpoint import Trust

# What a body says to have its answer streamed.
STREAMED: Final[dict[str, Any]] = {"stream": True, "stream_options": {"include_usage": True}}
# What bounds an answer's length. With two of the names a server may heed the one that isn't ours.
LIMITS: Final = ("max_tokens", "max_completion_tokens", "min_tokens", "ignore_eos")
# Where each API is, below a server's base URL.
PATHS: Final = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}


@dataclass(frozen=True)
class Job:
    """One injector's part of a run. Durations and times are in nanoseconds."""

    plan: str  # path of plan.parquet
    spool: str  # directory for records
    injector: int
    injectors: int
    loop: str  # open | closed | locustfile (users' own code asks)
    urls: tuple[str, ...]
    api: str  # completions | chat
    model: str
    dialect: str  # vllm | openai
    content: str | None = None  # path of a content table; None: the default one
    content_options: dict[str, Any] = field(default_factory=dict)
    # Path of a log whose own bodies are sent instead of made prompts; a row's content seed is a line of it.
    bodies: str | None = None
    served: tuple[str, ...] = ()  # models that a replayed body may name; any other gives way to `model`
    adapters: dict[str, str] = field(default_factory=dict)  # class -> the model name that it asks for
    headers: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)  # merged into every request body
    streamed: bool = True
    forced_output: bool = True
    limit: str = "max_tokens"  # max_tokens | max_completion_tokens: what the server calls an answer's limit
    omitted: tuple[str, ...] = ()  # fields that we would send and that the server doesn't take
    trust: Trust = field(default_factory=Trust)
    balance: str = "round-robin"  # round-robin | least-in-flight
    delayed_acks: str = "loopback"  # loopback | always | never: whose tokens are acknowledged several at a time
    keepalive_ns: int = 4_000_000_000
    timeout_ns: int | None = None  # per request, from scheduled
    measure_end_ns: int | None = None
    drain_ns: int = 60_000_000_000
    # Closed loop that ends by a number of requests: when nothing has come for this long it ends without them.
    stall_ns: int | None = None
    run_nonce: str = ""
    answers: tuple[str, ...] = ()  # classes whose later turns send the model's own answers again
    report_gaps: bool = False  # to users' own code, the gaps between an answer's tokens
    by_class: bool = False  # ticks tell latencies by class, for the web UI
    stamps: str = "kernel"  # kernel | user: who says when bytes arrived (user as well where the kernel doesn't)
    # A share of the users hangs up when its patience, in seconds after the scheduled time, ends; `patience` is a
    # law as `workloads.sampling.distribution_grammar` reads it. Who, and how patient: functions of the seed and the
    # row's index.
    patience: str | None = None
    patience_share: float = 1.0
    patience_seed: int = 0
    # Closed loop: {"workload": ..., "seed": ...}, from which rows beyond the plan's file are made.
    extend_plan: dict[str, Any] | None = None

    def for_injector(self, k: int) -> "Job":
        return replace(self, injector=k)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Job":
        lists = {name: tuple(data[name]) for name in ("urls", "served", "omitted")}
        return cls(**{**data, **lists, "trust": Trust(**data["trust"])})


def meaning_changed(body: Mapping[str, Any]) -> str:
    """What a request's body asks for that its figures could not tell; empty if nothing.

    Several answers come in one stream, their tokens in turn: TPOT and ITL would be a fraction of each one's.
    """
    for name in ("n", "best_of", "num_return_sequences", "beam_width"):
        if body.get(name) not in (None, 1):
            return f"`{name}` asks for several answers at once, whose tokens can't be told apart"
    if body.get("use_beam_search"):
        return "`use_beam_search` makes several answers at once and shows the best at its end"
    if body.get("echo"):
        return "`echo` sends the prompt back, which would count as a token"
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) > 1 and not isinstance(prompt[0], int):
        return "`prompt` holds several prompts, whose answers can't be told apart"
    return ""
