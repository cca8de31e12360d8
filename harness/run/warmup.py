"""Before anything is measured: traffic of its own until the server's pace is steady.

Late compilation, autotuning and graph capture make the first requests slow, and a batch larger than any before can
make the server compile again. So rounds of requests, of the plan's own lengths, go to every endpoint: first a few
at once, then twice as many each, up to what the plan will keep in flight; then the same number until the rounds'
duration shows no trend any more. What is spent on that is extended once; a server that is not steady then makes the
run invalid (the `warmth` check).

They have the form of the measured ones (`harness.run.own_requests`), with other text, and all of it ends before the
first scrape, so that it is in no figure.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import numpy as np

from tailgate.harness.run.own_requests import OwnRequests, send
from tailgate.harness.targets.base import Identity, TargetGone
from tailgate.loadgen.injector.http.endpoint import public_name
from tailgate.loadgen.job import PATHS
from tailgate.workloads.common.formatting import counted
from tailgate.workloads.plan.plan import Plan

AT_ONCE: Final = 4  # of an endpoint, to begin with
MOST_AT_ONCE: Final = 64
WINDOW: Final = 6  # rounds that must show no trend
BUDGET_S: Final = 90.0
_OUTPUT_TOKENS: Final = 32
_DRIFT: Final = 0.05  # a trend of less than this share of the median over the window is none
_NOISE: Final = 0.5  # nor may a round be this much slower than the median
PATIENCE: Final = aiohttp.ClientTimeout(total=300)  # a first request may compile for minutes


class WarmupRefused(TargetGone):
    """The server answers a warm-up request with something else than 200."""


class _Full(WarmupRefused):
    """The server has as many requests as it admits (429, 503): that is no fault, but there can't be more at once."""


@dataclass(frozen=True)
class WarmupResult:
    """How it went."""

    steady: bool  # the last rounds showed no trend
    rounds_s: tuple[float, ...]
    requests: int  # sent in all
    at_once: int = AT_ONCE  # in flight at each endpoint in the last rounds
    extended: bool = False  # the budget was not enough, and was given once more

    @property
    def text(self) -> str:
        """What it took, in words."""
        pace = "its pace is steady" if self.steady else "its pace is still not steady"
        return f"warmed up with {counted(self.requests, 'request')} in {sum(self.rounds_s):.0f} s: {pace}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "steady": self.steady,
            "requests": self.requests,
            "at_once": self.at_once,
            "extended": self.extended,
            "seconds": round(sum(self.rounds_s), 3),
            "rounds_s": [round(seconds, 4) for seconds in self.rounds_s],
        }


async def warm_up(
    http: aiohttp.ClientSession, identity: Identity, own: OwnRequests, plan: Plan, users: int = 0,
    budget_s: float = BUDGET_S,
) -> WarmupResult:  # fmt: skip
    """Send rounds until they are steady or `budget_s` is spent twice.

    Rounds of one size are the same set of requests but for its text, so that they compare. A server that admits
    only so many is sent half as many at once, and never more again. `users` of a closed loop bound what is in flight.

    Raises:
        WarmupRefused: an answer that is not 200, or no request is admitted alone.
        TargetGone: no answer.
    """
    lengths = _lengths(plan, identity.max_model_len)
    rounds: list[float] = []
    at_once, most, requests, alike = AT_ONCE, MOST_AT_ONCE, 0, 0
    began = time.monotonic()
    while time.monotonic() - began < 2 * budget_s:
        bodies = [
            (url, own.body(lengths[number % len(lengths)], _OUTPUT_TOKENS))
            for url in identity.urls
            for number in range(at_once)
        ]
        at = time.monotonic()
        try:
            await _all(http, own.endpoint, bodies)
        except _Full:
            if at_once == 1:
                raise
            at_once = most = at_once // 2
            rounds, alike = [], 0
            continue
        rounds.append(time.monotonic() - at)
        requests += len(bodies)
        alike += 1
        # The first rounds may compile: how long a request takes is known from the second on.
        wanted = _in_flight(plan, users, min(rounds)) / len(identity.urls) if len(rounds) > 1 else 0
        if len(rounds) > 1 and at_once < min(wanted, most):
            at_once, alike = min(2 * at_once, most), 0
        elif alike >= WINDOW and is_steady(rounds):
            return WarmupResult(True, tuple(rounds), requests, at_once, time.monotonic() - began > budget_s)
    return WarmupResult(False, tuple(rounds), requests, at_once, extended=True)


def is_steady(rounds_s: Sequence[float]) -> bool:
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


def _in_flight(plan: Plan, users: int, round_s: float) -> float:
    """Requests that the plan will keep in flight: its users, or by Little's law its rate times a request's duration.

    A request takes as much longer than a round as its answer has more tokens.
    """
    if users or not plan.span_s:
        return users
    mean = float(np.mean(plan.table["output_tokens"].to_numpy()))
    rate = plan.table.num_rows / plan.span_s
    return float(rate * round_s * max(1.0, mean / _OUTPUT_TOKENS))


def _lengths(plan: Plan, context: int | None) -> list[int]:
    """Prompt lengths of a round: the plan's own quantiles, within the context."""
    planned = plan.table["prompt_tokens"].to_numpy()
    if not len(planned):
        return [128]
    quantiles = np.quantile(planned, [0.25, 0.5, 0.75, 0.95])
    most = (context or 1 << 30) - _OUTPUT_TOKENS
    # Text can come to twice as many tokens as guessed.
    return [int(max(8, min(length, most // 2))) for length in quantiles]


async def _all(http: aiohttp.ClientSession, endpoint: str, bodies: Sequence[tuple[str, bytes]]) -> None:
    """Send a round; the first failure ends it. Where the server is full, what it admitted is waited for."""
    asking = [asyncio.create_task(_ask(http, url, endpoint, body)) for url, body in bodies]
    try:
        await asyncio.gather(*asking)
    except _Full:
        await asyncio.gather(*asking, return_exceptions=True)
        raise
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def _ask(http: aiohttp.ClientSession, url: str, endpoint: str, body: bytes) -> None:
    """Send one request; its answer doesn't matter here, since only measured ones are judged."""
    try:
        answer = await send(http, url, endpoint, body, PATIENCE)
    except TimeoutError as error:
        raise TargetGone(
            f"no answer to a warm-up request within {PATIENCE.total:g} s", where=public_name(url)
        ) from error
    if not answer.served:
        raise (_Full if answer.status in (429, 503) else WarmupRefused)(
            f"answers warm-up requests with HTTP {answer.status}: {answer.error}",
            where=f"{public_name(url)}{PATHS[endpoint]}",
            remedy="Does the model serve target.endpoint? settle: none (--no-settle) leaves the warm-up out.",
        )
