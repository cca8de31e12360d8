"""How a spec describes requests (lengths, sessions, shared prefixes), and the classes and tenants that mix them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tailgate.workloads.arrivals.spec import ArrivalSpec
from tailgate.workloads.common.units import Duration
from tailgate.workloads.common.validation import Strict
from tailgate.workloads.sampling.distribution_grammar import Length, Tokens


class SessionSpec(Strict):
    """Conversations of several turns, each sent with the history before it or alone (`history: none`).

    The answers in the history are planned filler of exact length (`resend`), or the model's own (`answers`, with chat
    or prompts as text; lengths then follow the plan only roughly).

    `turns` is the number of requests; the first has `prompt_tokens`, each later one adds `new_tokens` to the
    history. `think` is the pause in seconds: after the answer (`pace: answer`, the later turn has no time of
    its own) or from one turn's time to the next (`pace: clock`, as a trace records it). A prompt that would exceed
    `compact_at` tokens begins anew with the length of the first one, or a quarter of `compact_at` if that is less,
    as agents do that summarize their history.
    """

    turns: Length
    think: Length = 0
    new_tokens: Length = 64
    history: Literal["resend", "answers", "none"] = "resend"
    pace: Literal["answer", "clock"] = "answer"
    compact_at: int | None = Field(None, ge=1)
    max_turns: int = Field(64, ge=1, le=4096)
    max_think: Duration | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _answers_come_first(self) -> Self:
        if self.history == "answers" and self.pace == "clock":
            raise ValueError("`history: answers` needs `pace: answer`: by the clock a turn may come before the answer")
        return self


class SharedSpec(Strict):
    """A pool of contexts (documents, repositories, templates) that prompts begin with.

    Context k of the pool is chosen with probability proportional to k^-popularity (Zipf). It covers `tokens`
    tokens, or the `share` (0 to 1) of a session's first prompt.
    """

    pool: int = Field(ge=1, le=10_000_000)
    popularity: float = Field(1.0, ge=0, le=5)
    tokens: Length | None = None
    share: Length | None = None

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.tokens is None) == (self.share is None):
            raise ValueError("give either `tokens` or `share`: how much of a prompt is the shared context")
        return self


class PassageSpec(Strict):
    """Retrieved passages: `count` of them a prompt, `tokens` each, chosen from a pool by Zipf's law."""

    pool: int = Field(ge=1, le=10_000_000)
    popularity: float = Field(1.0, ge=0, le=5)
    count: Length
    tokens: int = Field(ge=1, le=100_000)


class PrefixSpec(Strict):
    """What prompts of a class share, from their first token on: system prompt, then context, then passages.

    Lengths are rounded to whole prefix blocks (`workload.block_tokens`).
    """

    system_tokens: int = Field(0, ge=0, le=1_000_000)
    shared: SharedSpec | None = None
    passages: PassageSpec | None = None


class RequestSpec(Strict):
    """What the requests of a workload, or of one class of it, are like.

    `correlation` is Spearman's rank correlation of prompt and output lengths. A larger `priority` is less
    urgent (vLLM's `--scheduling-policy priority`).
    """

    prompt_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    correlation: float | None = Field(None, gt=-1, lt=1)
    sessions: SessionSpec | None = None
    prefix: PrefixSpec | None = None
    priority: int = Field(0, ge=-1000, le=1000)


class ClassSpec(RequestSpec):
    """A class: its share of the common arrivals by `weight`, or `arrivals` of its own.

    `profile` gives what the class doesn't say itself. `slo`, `tier` (a price) and `adapter` (a LoRA's model
    name) are for the injector and the reports.
    """

    profile: str | None = None
    weight: float = Field(1.0, gt=0)
    arrivals: ArrivalSpec | None = None
    slo: dict[str, str] = {}
    tier: str | None = None
    adapter: str | None = None


class SurgeSpec(Strict):
    """A tenant that turns aggressor: `factor` times its own traffic for a while of the measured part."""

    start: Duration
    end: Duration
    factor: float = Field(gt=1, le=1000)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.end <= self.start:
            raise ValueError("`end` is not after `start`")
        return self


class TenantSpec(Strict):
    """A tenant: its share of all sessions by `weight`."""

    weight: float = Field(1.0, gt=0)
    surge: SurgeSpec | None = None
