"""Requests that went wrong, and requests that were good: shares of the two sides, judged by exact tests.

Used for the error rule of every gate, and in place of a latency where failures make it infinite. The runs are
clusters: counts are thinned to what independent requests would be worth (`reports.gate_stats.shares`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from reports.gate_runs import GateRun
from reports.gate_stats import Share, fisher_more, shares
from reports.stats import share_bounds

# The error rule is a hypothesis of its own beside the metrics: small, so that it adds little to their budget.
ERROR_TAIL: Final = 0.005


@dataclass(frozen=True)
class ErrorRule:
    """Did the candidate err more?

    Attributes:
        baseline, candidate: failed requests among judged ones.
        p: Fisher's exact test, one-sided.
        allowed: how many more are acceptable, as a difference of shares.
        most: upper bound of that difference (conservative, 95 %).
        outcome: `fail` if more were proved and the difference is beyond what is allowed.
    """

    baseline: Share
    candidate: Share
    p: float
    allowed: float
    most: float
    outcome: Literal["ok", "fail"]

    @property
    def says(self) -> str:
        """One sentence."""
        a, b = self.baseline, self.candidate
        text = f"{b.hits:,} of {b.trials:,} requests failed, {a.hits:,} of {a.trials:,} on the baseline"
        if self.outcome == "fail":
            return f"{text} (p = {self.p:.2g})"
        return f"{text}: not provably more (at most {100 * max(self.most, 0.0):.2g} points more)"


def error_rule(base: Sequence[GateRun], other: Sequence[GateRun], allowed: float) -> ErrorRule:
    """Judge the failed requests of both sides' runs, of all points."""
    a, b = shares([[(run.failed, run.judged) for run in side] for side in (base, other)])
    p = fisher_more(a.effective, b.effective)
    more = b.share - a.share
    outcome: Literal["ok", "fail"] = "fail" if p <= ERROR_TAIL and more > 0 and more >= allowed else "ok"
    return ErrorRule(a, b, p, allowed, largest_difference(a, b), outcome)


@dataclass(frozen=True)
class GoodShare:
    """Were fewer of the candidate's requests good? Where ratios of latencies mean nothing.

    Attributes:
        baseline, candidate: good requests among judged ones.
        p: Fisher's exact test, one-sided, of fewer good ones.
        most: upper bound of how much smaller the candidate's share is.
    """

    baseline: Share
    candidate: Share
    p: float
    most: float


def good_share(base: Sequence[GateRun], other: Sequence[GateRun]) -> GoodShare:
    """Judge the good requests of both sides at one point."""
    a, b = shares([[(run.good, run.judged) for run in side] for side in (base, other)])
    bad = [(s.effective[1] - s.effective[0], s.effective[1]) for s in (a, b)]
    return GoodShare(a, b, fisher_more(bad[0], bad[1]), largest_difference(b, a))


def largest_difference(a: Share, b: Share) -> float:
    """Upper bound of share b - share a: the ends of two exact intervals, together wrong in at most 5 %."""
    low, _ = share_bounds(*a.effective, tail=0.025)
    _, high = share_bounds(*b.effective, tail=0.025)
    return high - low
