"""Shares of requests (failed ones, good ones) of two sides, where the run is the sample and errors come in bursts.

Between runs such shares vary more than independent requests would make them, and a few runs say little about how
much more. So more hits count as proved only where two tests agree: Fisher's exact test, as if requests were
independent, and Student's t, whose error is what the runs themselves show. Bounds are exact, of counts thinned by that
variation.

Arrays have the runs on their last axis and any leading ones, so that the simulation runs the very code that judges.

Sources: Fisher (1935); Clopper and Pearson (1934); overdispersion by Pearson's chi-square, McCullagh and Nelder (1989),
4.5; thinned counts, Rao and Scott (1992).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tailgate.reports.stats.between_runs import t_point
from tailgate.reports.stats.order_statistics import share_bounds
from tailgate.workloads.common.arrays import Floats

# (hits, trials) of a side's runs at one load.
Counts = tuple[Floats, Floats]


@dataclass(frozen=True)
class Proportion:
    """Hits among trials over the runs of a side."""

    hits: int
    trials: int
    dispersion: float  # how many times more the runs' shares vary than chance would have it; 0 where that can't be seen
    df: int  # degrees of freedom of the dispersion

    @property
    def share(self) -> float:
        return self.hits / self.trials if self.trials else 0.0

    def bounds(self, tail: float) -> tuple[float, float]:
        """One-sided bounds, each wrong in at most `tail`: exact, of so many trials as independent ones would be."""
        from scipy.special import ndtri

        few = (t_point(tail, self.df) / float(ndtri(1 - tail))) ** 2 if self.df else 1.0
        inflation = max(1.0, self.dispersion * few)
        return share_bounds(round(self.hits / inflation), round(self.trials / inflation), tail=tail)


def counts(pairs: Sequence[tuple[int, int]]) -> Counts:
    """(hits, trials) of runs as arrays; runs without trials say nothing."""
    with_trials = [(hits, trials) for hits, trials in pairs if trials]
    return np.array([h for h, _ in with_trials], np.float64), np.array([n for _, n in with_trials], np.float64)


def shares(loads: Sequence[Sequence[Counts]]) -> tuple[Proportion, ...]:
    """One Share a side, of the loads together; `loads` has the sides' counts at each load."""
    dispersion, df = dispersion_of(loads)
    return tuple(Proportion(hits, trials, float(dispersion), int(df)) for hits, trials in _totals(loads))


def _totals(loads: Sequence[Sequence[Counts]]) -> list[tuple[int, int]]:
    sides = list(zip(*loads, strict=True))
    return [(int(sum(h.sum() for h, _ in side)), int(sum(n.sum() for _, n in side))) for side in sides]


def dispersion_of(loads: Sequence[Sequence[Counts]]) -> tuple[Any, Any]:
    """(Pearson's chi-square of the runs about their side's share over its df, df); 0 and 0 where nothing shows it."""
    chi, df = np.zeros(()), np.zeros(())
    for sides in loads:
        variance = _variance(sides)
        seen = variance > 0
        for hits, trials in sides:
            if not trials.size:
                continue
            share = hits.sum(-1, keepdims=True) / trials.sum(-1, keepdims=True)
            square = ((hits - trials * share) ** 2 / trials).sum(-1)
            chi = chi + np.where(seen, square / np.where(seen, variance, 1.0), 0.0)
            df = df + np.where(seen, hits.shape[-1] - 1, 0)
    return np.where(df > 0, chi / np.maximum(df, 1), 0.0), df


def _variance(sides: Sequence[Counts]) -> Any:
    """p (1 - p) of both sides together: what a single request's outcome varies by, were they equal."""
    hits, trials = sum(h.sum(-1) for h, _ in sides), sum(n.sum(-1) for _, n in sides)
    share = np.asarray(hits) / np.maximum(trials, 1.0)
    return share * (1 - share)


def p_more(loads: Sequence[Sequence[Counts]]) -> float:
    """Chance of the second side's having so many hits or more, were the shares equal; 1 where single runs are all."""
    return max(float(p_more_by_runs(loads)), fisher_more(*_totals(loads)))


def p_more_by_runs(loads: Sequence[Sequence[Counts]]) -> Any:
    """The chance by Student's t: the difference of hits (at equal loads, summed) over the error that the runs show."""
    from scipy.special import stdtr

    dispersion, df = dispersion_of(loads)
    more, variance = np.zeros(()), np.zeros(())
    for base, other in loads:
        (k, m), n = (side.sum(-1) for side in other), base[1].sum(-1)
        total = np.maximum(n + m, 1.0)
        more = more + k - m * (base[0].sum(-1) + k) / total
        variance = variance + _variance((base, other)) * n * m / total
    error = np.sqrt(dispersion * variance)
    t = more / np.where(error > 0, error, 1.0)
    by_sign = np.where(more > 0, 0.0, 1.0)  # the runs of a side don't differ at all
    return np.where(df > 0, np.where(error > 0, stdtr(np.maximum(df, 1), -t), by_sign), 1.0)


def fisher_more(base: tuple[int, int], other: tuple[int, int]) -> float:
    """Fisher's exact test, one-sided: chance of `other` having so many hits or more, were the shares equal."""
    (h, n), (k, m) = base, other
    total, drawn = n + m, m
    log_all = _log_choose(total, drawn)
    most = min(h + k, drawn)
    terms = [_log_choose(h + k, i) + _log_choose(total - h - k, drawn - i) - log_all for i in range(k, most + 1)]
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def _log_choose(n: int, k: int) -> float:
    if not 0 <= k <= n:
        return -math.inf
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
