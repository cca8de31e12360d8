"""Requests that went wrong, and requests that were good: shares of the two sides, judged by exact tests.

The error rule holds for every gate. Good requests stand in for a percentile that failures make infinite, where the
runs' SLO says what a good request is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tailgate.reports.compare.runs import StoredRun
from tailgate.reports.stats.proportions import Proportion, counts, p_more, shares

# The error rule is a hypothesis of its own beside the metrics: small, so that it adds little to their budget.
ERROR_TAIL: Final = 0.005


@dataclass(frozen=True)
class ErrorRule:
    """Did the candidate err more?"""

    # failed requests among judged ones
    baseline: Proportion
    candidate: Proportion
    p: float  # one-sided, of no more failing
    tail: float  # what it was held against: half of the budget at each of two looks
    allowed: float  # how many more are acceptable, as a difference of shares
    most: float  # upper bound of that difference (conservative, 95 %)
    outcome: Literal["ok", "fail"]  # `fail` if more were proved and the difference is beyond what is allowed

    @property
    def says(self) -> str:
        a, b = self.baseline, self.candidate
        text = f"{b.hits:,} of {b.trials:,} requests failed, {a.hits:,} of {a.trials:,} on the baseline"
        if self.outcome == "fail":
            return f"{text} (p = {self.p:.2g})"
        return f"{text}: not provably more (at most {100 * max(self.most, 0.0):.2g} points more)"


def error_rule(
    baseline: Sequence[StoredRun], candidate: Sequence[StoredRun], allowed: float, looks: int = 1
) -> ErrorRule:
    """Judge the failed requests of both sides' runs, of all points; `looks` in all at growing data."""
    points = dict.fromkeys(run.point for run in (*baseline, *candidate))
    loads = [
        [counts([(run.failed, run.judged) for run in side if run.point == point]) for side in (baseline, candidate)]
        for point in points
    ]
    a, b = shares(loads)
    p, tail, more = p_more(loads), ERROR_TAIL / looks, b.share - a.share
    outcome: Literal["ok", "fail"] = "fail" if p <= tail and more > 0 and more >= allowed else "ok"
    return ErrorRule(a, b, p, tail, allowed, largest_difference(a, b, 0.05), outcome)


@dataclass(frozen=True)
class GoodShare:
    """Were fewer of the candidate's requests good? Where ratios of latencies mean nothing."""

    # good requests among judged ones
    baseline: Proportion
    candidate: Proportion
    p: float  # one-sided, of no fewer good ones
    most: float  # upper bound of how much smaller the candidate's share is
    margin: float  # how much smaller is acceptable; both as a difference of shares

    @property
    def lost(self) -> float:
        return self.baseline.share - self.candidate.share


def good_share(
    baseline: Sequence[StoredRun], candidate: Sequence[StoredRun], margin: float, tail: float
) -> GoodShare | None:
    """Judge the good requests of both sides at one point; None where a run's SLO doesn't say what good is.

    `tail` is the error allowed to the bound of how many fewer there are.
    """
    if any(run.good is None for run in (*baseline, *candidate)):
        return None
    judged = [run.judged for run in baseline], [run.judged for run in candidate]
    a, b, p, most = _lost([run.good or 0 for run in baseline], [run.good or 0 for run in candidate], *judged, tail)
    # A loss must be there at the least that the load generator's own error leaves possible, and be bounded at the most.
    fewest, plenty = ([[run.good_ends[end] for run in side] for side in (baseline, candidate)] for end in (0, 1))
    _, _, at_least, _ = _lost(fewest[0], plenty[1], *judged, tail)
    _, _, _, at_most = _lost(plenty[0], fewest[1], *judged, tail)
    return GoodShare(a, b, max(p, at_least), max(most, at_most), margin)


def _lost(
    baseline: Sequence[int],
    candidate: Sequence[int],
    of_baseline: Sequence[int],
    of_candidate: Sequence[int],
    tail: float,
) -> tuple[Proportion, Proportion, float, float]:
    """(both shares, p of no fewer good ones, upper bound of how many fewer) from good requests among judged ones."""
    good = [[*zip(baseline, of_baseline, strict=True)], [*zip(candidate, of_candidate, strict=True)]]
    bad = [counts([(n - hits, n) for hits, n in side]) for side in good]
    a, b = shares([[counts(side) for side in good]])
    return a, b, p_more([bad]), largest_difference(b, a, tail)


def largest_difference(a: Proportion, b: Proportion, tail: float) -> float:
    """Upper bound of share b - share a: the ends of two exact intervals, together wrong in at most `tail`."""
    return b.bounds(tail / 2)[1] - a.bounds(tail / 2)[0]
