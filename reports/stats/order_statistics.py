"""Percentiles, means and shares with the uncertainty they carry. No distribution is assumed.

Estimates that their sample can't support are `None` and say how many requests they need. Nothing here
knows what is measured (that is `reports.metrics.requests`), nor what is good enough (`reports.metrics.slo`).

Sources: order-statistic intervals, e.g. H. A. David, H. N. Nagaraja, Order Statistics (2003), ch. 7;
batch means, e.g. A. M. Law, Simulation Modeling and Analysis (2015), ch. 9; Clopper and Pearson (1934).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from tailgate.workloads.common.arrays import Floats

LEVEL: Final = 0.95
# Numbers of batches that `effective_size` tries, and values beyond a percentile that tell autocorrelation.
_BATCHES: Final = (8, 16, 32)
_TAIL: Final = 50
# What is less than this share above a percentile is as good as it.
MATERIAL: Final = 0.05
PERCENTILES: Final = (50.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True)
class Quantile:
    """One percentile of a sample."""

    q: float  # the percentile, 0 to 100
    value: float | None  # nearest rank, i.e. the ceil(q n)-th smallest; None below the floor `needs`
    low: float | None  # lower end of the two-sided 95 % interval; None where the sample can't give one
    high: float | None  # upper end of it
    below: float | None  # one-sided 95 % lower bound
    above: float | None  # one-sided 95 % upper bound
    n: int  # sample size, requests
    n_eff: float  # that many independent requests would know as much
    needs: int  # requests this percentile needs, at this sample's autocorrelation


def floor(q: float) -> int:
    """Smallest independent sample whose one-sided 95 % bound on the q-th percentile is finite.

    n >= ln(0.05) / ln(q/100): 59 for p95, 299 for p99, 2,995 for p99.9. For q < 50 the lower side decides.
    """
    share = max(q, 100 - q) / 100
    return max(1, math.ceil(math.log(1 - LEVEL) / math.log(share))) if 0 < share < 1 else 1


@lru_cache(maxsize=4096)
def _ranks(n: int, share: float, tail: float) -> tuple[int, int | None]:
    """Ranks (1-based) of the order statistics that bound a quantile, each side with error at most `tail`.

    The lower rank is 0 and the upper one None where the sample has no such order statistic.
    """
    first, cumulative = _binomial_cdf(n, share)
    # P(B <= l - 1) <= tail for the lower rank l; P(B <= u - 1) >= 1 - tail for the upper rank u.
    low = first + int(np.searchsorted(cumulative, tail, side="right"))
    high = first + int(np.searchsorted(cumulative, 1 - tail, side="left")) + 1
    return low, high if high <= n else None


def _binomial_cdf(n: int, share: float) -> tuple[int, Floats]:
    """P(B <= k) for k = first, first + 1, ...: the part of Binomial(n, share) within ten deviations."""
    spread = 10 * math.sqrt(n * share * (1 - share)) + 40
    first, last = max(0, math.floor(n * share - spread)), min(n, math.ceil(n * share + spread))
    k = np.arange(first, last)
    log_first = (
        math.lgamma(n + 1) - math.lgamma(first + 1) - math.lgamma(n - first + 1)
        + first * math.log(share) + (n - first) * math.log1p(-share)
    )  # fmt: skip
    steps = np.log((n - k) / (k + 1)) + math.log(share) - math.log1p(-share)
    pmf = np.exp(log_first + np.concatenate([[0.0], np.cumsum(steps)]))
    return first, np.minimum(np.cumsum(pmf), 1.0)


def quantile(ordered: Floats, q: float, n_eff: float | None = None) -> Quantile:
    """The q-th percentile of `ordered` (sorted, one value per request; may end in inf).

    `n_eff` below the sample's size widens the intervals and raises the floor accordingly; the floor only
    where autocorrelation can matter (see `matters`).
    """
    n = len(ordered)
    floor_size = n_eff
    if n and n_eff is not None and n_eff < n:
        at = float(ordered[max(1, math.ceil(q / 100 * n - 1e-9)) - 1])
        low, high = np.searchsorted(ordered, [at * (1 - MATERIAL), at * (1 + MATERIAL)], side="right")
        floor_size = float(n) if constant(int(low), n - int(high), n, q) else n_eff
    return quantile_at(lambda rank: float(ordered[rank - 1]), n, q, n_eff, floor_size=floor_size)


def constant(below: int, above: int, n: int, q: float) -> bool:
    """Whether a sample of `n` is as good as constant for its q-th percentile.

    `below` and `above` are how many values lie further than MATERIAL from it. Where less than a quarter of
    those on either side do, the percentile can't move by more than that, and it says nothing against it that
    the values wander together (a server of fixed speed shows microseconds of drift).
    """
    share = q / 100
    return above < (1 - share) * n / 4 and below < share * n / 4


def quantile_at(
    value_at: Callable[[int], float],
    n: int,
    q: float,
    n_eff: float | None = None,
    size: int | None = None,
    floor_size: float | None = None,
) -> Quantile:
    """The percentile of any sample that can give its k-th smallest value (`value_at(k)`, k from 1).

    `n` counts requests, `size` values (when a request has several: they aren't independent samples).
    `floor_size` is what the floor is held against: `n_eff`, unless that is beside the point.
    """
    size = n if size is None else size
    n_eff = float(n) if n_eff is None else min(float(n), n_eff)
    floor_size = n_eff if floor_size is None else min(float(n), floor_size)
    needs = math.ceil(floor(q) * (n / floor_size if floor_size > 0 else 1))
    if size == 0 or math.floor(floor_size) < floor(q):
        return Quantile(q, None, None, None, None, None, n, n_eff, needs)
    share, whole = q / 100, max(1, math.floor(n_eff))

    def lower(rank: int) -> float | None:
        return value_at(max(1, rank * size // whole)) if rank >= 1 else None

    def upper(rank: int | None) -> float | None:
        return None if rank is None else value_at(min(size, -(-rank * size // whole)))

    low, high = _ranks(whole, share, (1 - LEVEL) / 2)
    below, above = _ranks(whole, share, 1 - LEVEL)
    value = value_at(max(1, math.ceil(share * size - 1e-9)))
    return Quantile(q, value, lower(low), upper(high), lower(below), upper(above), n, n_eff, needs)


def effective_size(series: Floats) -> float:
    """How many independent values know as much about the mean of `series` as it does; at most its length.

    Batch means: with b batches of m values, m Var(batch means) / Var(series) is 1 for an independent series
    and the factor by which autocorrelation inflates the variance of the mean otherwise. The factor counts
    only where it exceeds what independent values would show in one case of twenty (chi-square, b - 1).
    Long batches see slow drift, short ones measure it better: the largest of three factors counts.
    """
    n = len(series)
    variance = float(series.var(ddof=1)) if n > 1 else 0.0
    if n < 5 * max(_BATCHES) // 4 or variance == 0:
        return float(n)
    inflation = 1.0
    for batches in _BATCHES:
        size = n // batches
        means = series[: batches * size].reshape(batches, size).mean(axis=1)
        ratio = size * float(means.var(ddof=1)) / variance
        if ratio > _chi_square(1 - 0.05 / len(_BATCHES), batches - 1) / (batches - 1):
            inflation = max(inflation, ratio)
    return n / inflation


def effective_size_at(series: Floats, ordered: Floats, q: float) -> float:
    """Effective size of `series` (in time order) for its q-th percentile: of "above it or not".

    A tail of a few values can't tell its own autocorrelation: the nearest percentile with at least
    _TAIL values beyond it stands for it. `ordered` is the series, sorted.
    """
    n = len(series)
    within = 100 * _TAIL / n if n > 2 * _TAIL else 50.0
    rank = math.ceil(min(max(q, within), 100 - within) / 100 * n - 1e-9)
    return effective_size((series > ordered[max(0, rank - 1)]).astype(np.float64))


def tail_bounds(series: Floats, limit: float, inclusive: bool) -> tuple[float, float]:
    """One-sided 95 % bounds of the share of values above `limit` (or at it, if `inclusive`).

    They judge a percentile against a limit without asking where the percentile lies: p99 < limit if the
    upper bound is below 1 %. Autocorrelation counts as far as the values near the limit show it: if less
    than _TAIL of them lie beyond, that of the _TAIL largest, but of none below half the limit.
    """
    n = len(series)
    beyond = series >= limit if inclusive else series > limit
    level = limit
    if np.count_nonzero(beyond) < _TAIL < n:
        level = max(min(limit, float(np.partition(series, n - _TAIL)[n - _TAIL])), limit / 2)
    return thinned_bounds(beyond, effective_size((series >= level).astype(np.float64)))


def thinned_bounds(hits: npt.NDArray[np.bool_], n_eff: float) -> tuple[float, float]:
    """One-sided 95 % bounds of a share, from as many independent trials as `hits` are worth (at least one)."""
    n, share = max(1, math.floor(n_eff)), float(np.mean(hits))
    low, _ = share_bounds(math.floor(share * n + 1e-9), n)
    _, high = share_bounds(math.ceil(share * n - 1e-9), n)
    return low, high


def _chi_square(p: float, df: int) -> float:
    """Quantile of chi-square, Wilson and Hilferty (1931): within 1 % for df >= 10."""
    z = NormalDist().inv_cdf(p)
    return df * (1 - 2 / (9 * df) + z * math.sqrt(2 / (9 * df))) ** 3


def t_quantile(p: float, df: float) -> float:
    """Quantile (p >= 0.5) of Student's t: within 0.5 % for df >= 4 (Cornish-Fisher expansion, Hill 1970).

    Below that exact at 1, 2 and 3 degrees of freedom; in between it is the larger value of the next lower one.
    """
    if df < 4:
        return _t_of_few(p, max(1, math.floor(df)))
    z = NormalDist().inv_cdf(p)
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + g1 / df + g2 / df**2 + g3 / df**3


def _t_of_few(p: float, df: int) -> float:
    if df == 1:
        return math.tan(math.pi * (p - 0.5))
    if df == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    low, high = 0.0, 1e4
    while high - low > 1e-9 * (1 + low):
        x = (low + high) / 2 / math.sqrt(3)
        below = 0.5 + (x / (1 + x * x) + math.atan(x)) / math.pi < p
        low, high = ((low + high) / 2, high) if below else (low, (low + high) / 2)
    return high


def mean_interval(series: Floats, level: float = LEVEL) -> tuple[float, float] | None:
    """Two-sided interval of the mean of a series in time order; None below 10 values or with an inf."""
    if len(series) < 10 or not np.isfinite(series).all():
        return None
    n_eff = max(2.0, effective_size(series))
    half = t_quantile((1 + level) / 2, n_eff - 1) * float(series.std(ddof=1)) / math.sqrt(n_eff)
    centre = float(series.mean())
    return centre - half, centre + half


def share_bounds(hits: int, n: int, tail: float = 1 - LEVEL) -> tuple[float, float]:
    """One-sided lower and upper bounds of a share, each with error at most `tail` (Clopper-Pearson)."""
    if n == 0:
        return 0.0, 1.0
    low = 0.0 if hits == 0 else _solve(lambda p: 1 - _cdf_at(hits - 1, n, p) - tail)
    high = 1.0 if hits == n else _solve(lambda p: tail - _cdf_at(hits, n, p))
    return low, high


def _cdf_at(k: int, n: int, share: float) -> float:
    first, cumulative = _binomial_cdf(n, share)
    return 0.0 if k < first else float(cumulative[min(k - first, len(cumulative) - 1)])


def _solve(rising: Callable[[float], float]) -> float:
    """The root in (0, 1) of a rising function, by bisection to 1e-9."""
    low, high = 1e-12, 1 - 1e-12
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2
