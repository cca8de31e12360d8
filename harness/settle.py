"""Before anything is measured on a server that we started: traffic of its own until the server's pace is steady.

Late compilation, autotuning and graph capture make the first requests slow. Rounds of a few requests at once,
of the plan's own lengths, are sent until their duration shows no trend any more. Their text, their seed and
their cache salt are not the measured ones, and all of it ends before the first scrape, so that it is in no
figure. Whether the measured phase itself was steady is judged later (the `warmth` check).
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import numpy as np

from harness.targets.base import Identity
from workloads.corpus import corpus_text
from workloads.plan import Plan

AT_ONCE: Final = 4
WINDOW: Final = 6  # rounds that must show no trend
BUDGET_S: Final = 90.0
_OUTPUT_TOKENS: Final = 32
_DRIFT: Final = 0.05  # a trend of less than this share of the median over the window is none
_NOISE: Final = 0.5  # nor may a round be this much slower than the median
_TOKENS_PER_CHAR: Final = 0.25  # of English, roughly; lengths only need to be typical here
_PATIENCE: Final = aiohttp.ClientTimeout(total=300)  # a first request may compile for minutes
_SEED: Final = 0x5E771E


@dataclass(frozen=True)
class Settled:
    """How it went: the rounds' durations in seconds, and whether the last of them showed no trend."""

    steady: bool
    rounds_s: tuple[float, ...]
    requests: int

    def as_dict(self) -> dict[str, Any]:
        """As the manifest keeps it."""
        return {
            "steady": self.steady,
            "requests": self.requests,
            "seconds": round(sum(self.rounds_s), 3),
            "rounds_s": [round(seconds, 4) for seconds in self.rounds_s],
        }


async def settle(
    http: aiohttp.ClientSession, identity: Identity, endpoint: str, plan: Plan, budget_s: float = BUDGET_S
) -> Settled:
    """Send rounds until they are steady or `budget_s` is spent.

    Every round is the same set of requests but for its text, so that rounds compare.

    Args:
        endpoint: completions | chat.
        plan: for typical lengths.
    """
    rng = random.Random(_SEED)
    text = corpus_text(200_000)
    lengths = _lengths(plan, identity.max_model_len)
    rounds: list[float] = []
    began = time.monotonic()
    while time.monotonic() - began < budget_s:
        bodies = [_body(identity, endpoint, text, rng, prompt, number) for number, prompt in enumerate(lengths)]
        at = time.monotonic()
        await asyncio.gather(*(_ask(http, identity, endpoint, body) for body in bodies))
        rounds.append(time.monotonic() - at)
        if steady(rounds):
            return Settled(True, tuple(rounds), len(rounds) * AT_ONCE)
    return Settled(False, tuple(rounds), len(rounds) * AT_ONCE)


def steady(rounds_s: Sequence[float]) -> bool:
    """Whether the last `WINDOW` rounds show no trend.

    The slope is Theil and Sen's (the median of all pairwise slopes), which one slow round doesn't bend.
    """
    if len(rounds_s) < WINDOW:
        return False
    last = np.array(rounds_s[-WINDOW:])
    middle = float(np.median(last))
    early, late = np.triu_indices(WINDOW, 1)
    slope = float(np.median((last[late] - last[early]) / (late - early)))
    return -slope * (WINDOW - 1) <= _DRIFT * middle and float(last.max()) <= (1 + _NOISE) * middle


def _lengths(plan: Plan, context: int | None) -> list[int]:
    """Prompt lengths of a round: the plan's own quantiles, within the context."""
    planned = plan.table["prompt_tokens"].to_numpy()
    if not len(planned):
        return [128] * AT_ONCE
    quantiles = np.quantile(planned, [0.25, 0.5, 0.75, 0.95])
    most = (context or 1 << 30) - _OUTPUT_TOKENS
    # Text can come to twice as many tokens as guessed.
    return [int(max(8, min(length, most // 2))) for length in quantiles]


def _body(
    identity: Identity, endpoint: str, text: str, rng: random.Random, prompt_tokens: int, number: int
) -> dict[str, Any]:
    size = min(int(prompt_tokens / _TOKENS_PER_CHAR), len(text) // 2)
    start = rng.randrange(len(text) - size)
    piece = text[start : start + size]
    body: dict[str, Any] = {"model": identity.model, "max_tokens": _OUTPUT_TOKENS}
    if endpoint == "chat":
        body["messages"] = [{"role": "user", "content": piece}]
    else:
        body["prompt"] = piece
    if identity.dialect == "vllm":
        body |= {"ignore_eos": True, "cache_salt": f"settle-{rng.random()}-{number}"}
    return body


async def _ask(http: aiohttp.ClientSession, identity: Identity, endpoint: str, body: dict[str, Any]) -> None:
    """One request; what it answers doesn't matter here, the measured ones are judged."""
    path = "/v1/chat/completions" if endpoint == "chat" else "/v1/completions"
    async with http.post(f"{identity.urls[0]}{path}", json=body, timeout=_PATIENCE) as response:
        await response.read()
