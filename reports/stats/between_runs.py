"""Statistics between runs, where the run is the sample: means, ratios and differences of logarithms with their error.

Pooling the requests of a few runs into one test is wrong (docs/metrics.md, "Between runs"). Estimates only: what is
good enough is `reports.stats.sequential_design` and `reports.verdicts.gate.verdict`. `paired` and `drifting` take any
number of leading axes, so that the simulation (`reports.verdicts.gate.operating_curve`) runs the very code that judges.

Sources: Student (1908); Welch (1947) with Satterthwaite's degrees of freedom; Hodges and Lehmann (1963);
Wilcoxon (1945), its null distribution exact, conditional on the ranks as they are (ties share their mean rank).
Counts of requests are `reports.stats.proportions`.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

import numpy as np

from tailgate.reports.stats.order_statistics import LEVEL
from tailgate.workloads.common.arrays import Floats

# An effect that is seen in so many of a hundred repetitions counts as one that would have been seen.
POWER: Final = 0.8
MOST_PAIRS: Final = 200
_NODES: Final = 60


@dataclass(frozen=True)
class Shift:
    """A difference of logarithms: positive is worse. Scalars, or arrays of one shape."""

    mean: Any
    error: Any  # its standard error
    df: float  # degrees of freedom of the error
    n: float  # pairs; of two unpaired samples the harmonic mean of their sizes


@dataclass(frozen=True)
class RunsMean:
    """One figure over the replicates of one configuration."""

    value: float | None  # geometric mean (arithmetic where a value is not positive); None without any run
    # low, high: two-sided 95 % interval between runs; None with fewer than two runs
    low: float | None
    high: float | None
    runs: tuple[float, ...]  # each run's own value


@dataclass(frozen=True)
class Ratio:
    """A figure of one configuration over the same of another."""

    value: float  # ratio of the means
    # low, high: two-sided 95 % interval; None unless both sides have two runs (or two pairs)
    low: float | None
    high: float | None
    # `paired` (same plans on both sides), `unpaired` (Welch), or `single runs`
    how: Literal["paired", "unpaired", "single runs"]

    def better(self, higher: bool) -> bool | None:
        """Whether it is shown to be better, or worse; None where the interval allows both. `higher`: more is better."""
        if self.low is None or self.high is None or self.low <= 1 <= self.high:
            return None
        return (self.low > 1) == higher


def paired(d: Floats) -> Shift:
    """Mean of the differences along the last axis, which has the pairs; shape (..., n), n >= 2."""
    n = d.shape[-1]
    return Shift(d.mean(axis=-1), d.std(axis=-1, ddof=1) / math.sqrt(n), n - 1.0, float(n))


def unpaired(base: Floats, other: Floats) -> Shift:
    """Difference of means of two samples of at least two runs each, unequal variances (Welch)."""
    vb, vo = float(base.var(ddof=1)) / len(base), float(other.var(ddof=1)) / len(other)
    total = vb + vo
    df = total**2 / (vb**2 / (len(base) - 1) + vo**2 / (len(other) - 1)) if total > 0 else len(base) + len(other) - 2.0
    n = 2 / (1 / len(base) + 1 / len(other))
    return Shift(float(other.mean() - base.mean()), math.sqrt(total), df, n)


def drifting(base: Floats, base_at: Floats, other: Floats, other_at: Floats) -> Shift:
    """The difference of means beside a straight trend over time that both share: least squares on (1, time, side).

    Runs along the last axis; times, in any unit, are the same for all leading axes. The error grows with the distance
    of the candidate's runs from the baseline's. Equal variances are assumed; needs five runs in all and three different
    times of the baseline.
    """
    y, t = np.concatenate([base, other], axis=-1), np.concatenate([base_at, other_at])
    scale, sizes = float(np.ptp(t)) or 1.0, (base.shape[-1], other.shape[-1])
    side = np.repeat([0.0, 1.0], sizes)
    x = np.column_stack([np.ones(len(t)), (t - t.mean()) / scale, side])
    inverse = np.linalg.inv(x.T @ x)
    beta = y @ (inverse @ x.T).T
    df = len(t) - 3
    variance = ((y - beta @ x.T) ** 2).sum(axis=-1) / df
    n = 2 / (1 / sizes[0] + 1 / sizes[1])
    return Shift(beta[..., 2], np.sqrt(variance * inverse[2, 2]), float(df), n)


def at_ends(shift_of: Callable[[Floats], Shift], values: Floats, low: Floats, high: Floats) -> tuple[Shift, Shift]:
    """The shift at the least and at the most that values between `low` and `high` allow.

    `shift_of` is linear in the values: each goes to the end that its weight asks for.
    """
    here = float(shift_of(values).mean)
    weights = np.array([float(shift_of(values + one).mean) - here for one in np.eye(len(values))])
    up = weights > 0
    return shift_of(np.where(up, low, high)), shift_of(np.where(up, high, low))


def t_point(tail: float, df: float) -> float:
    """The point that Student's t exceeds with probability `tail`."""
    from scipy.special import stdtrit  # takes its time to load: only comparisons need it

    return float(stdtrit(df, 1 - tail))


def over_runs(values: Sequence[float], tail: float) -> tuple[float, float, float]:
    """Mean over at least two runs, with bounds that are each wrong in at most `tail` (Student's t).

    Geometric; arithmetic if a value is not positive, which has no logarithm.
    """
    sample = np.asarray(values, np.float64)
    by_logs = bool((sample > 0).all())
    x = np.log(sample) if by_logs else sample
    back = math.exp if by_logs else float
    mean = float(x.mean())
    half = t_point(tail, len(x) - 1) * float(x.std(ddof=1)) / math.sqrt(len(x))
    return back(mean), back(mean - half), back(mean + half)


def runs_mean(values: Sequence[float]) -> RunsMean:
    """The mean over runs with its two-sided 95 % interval."""
    if len(values) < 2:
        return RunsMean(float(values[0]) if values else None, None, None, tuple(values))
    return RunsMean(*over_runs(values, (1 - LEVEL) / 2), tuple(values))


# A run's figure, and the least and the most that the load generator's own error leaves possible of it.
Known = tuple[float, float, float]


def ratio(
    base: Sequence[Known], other: Sequence[Known], base_plans: Sequence[str], other_plans: Sequence[str]
) -> Ratio | None:
    """`other` over `base`; None where a side has no value or one that is not positive.

    Where both sides ran the same plans, once each, pairs are compared: what a plan does to both cancels.
    """
    if not base or not other or min(known[0] for known in (*base, *other)) <= 0:
        return None
    values, low, high = np.log(np.maximum(np.array([*base, *other]), 1e-12)).T
    n, pairs = len(base), _pairs(base_plans, other_plans)
    if pairs is not None and len(pairs) >= 2:
        mine, theirs = (np.array(places) for places in zip(*pairs, strict=True))
        return _ratio_of(lambda x: paired(x[n + theirs] - x[mine]), values, low, high, "paired")
    if len(base) < 2 or len(other) < 2:
        return Ratio(math.exp(float(values[n:].mean() - values[:n].mean())), None, None, "single runs")
    return _ratio_of(lambda x: unpaired(x[:n], x[n:]), values, low, high, "unpaired")


def _ratio_of(
    shift_of: Callable[[Floats], Shift], values: Floats, low: Floats, high: Floats, how: Literal["paired", "unpaired"]
) -> Ratio:
    here = shift_of(values)
    shifts = (here, *at_ends(shift_of, values, low, high))
    halves = [t_point((1 - LEVEL) / 2, shift.df) * float(shift.error) for shift in shifts]
    each = [(float(shift.mean) - half, float(shift.mean) + half) for shift, half in zip(shifts, halves, strict=True)]
    return Ratio(
        math.exp(float(here.mean)), math.exp(min(a for a, _ in each)), math.exp(max(b for _, b in each)), how
    )  # fmt: skip


def _pairs(base: Sequence[str], other: Sequence[str]) -> list[tuple[int, int]] | None:
    """Places of equal plans; None unless every plan stands once on each side."""
    if len(set(base)) != len(base) or sorted(base) != sorted(other) or "" in base:
        return None
    return [(place, list(other).index(plan)) for place, plan in enumerate(base)]


def p_worse(shift: Shift) -> float:
    """One-sided p-value of "not worse"; 0 or 1 where nothing varies at all."""
    from scipy.special import stdtr

    if shift.error == 0:
        return 0.0 if shift.mean > 0 else 1.0
    return float(stdtr(shift.df, -shift.mean / shift.error))


def chance_of_pass(effect: float, margin: float, error: float, df: float, tail: float) -> float:
    """P(upper bound < margin) where the truth is `effect` and the estimate's standard error `error`."""
    return _expected(lambda bound: margin - bound - effect, error, df, tail)


def chance_of_fail(effect: float, margin: float, error: float, df: float, tail: float) -> float:
    """P(lower bound > 0 and estimate >= margin) where the truth is `effect`."""
    return _expected(lambda bound: effect - np.maximum(margin, bound), error, df, tail)


def _expected(room: Callable[[Floats], Floats], error: float, df: float, tail: float) -> float:
    """P(estimate lies inside `room`, which depends on the bound's distance), over the errors that may be estimated."""
    from scipy.special import chdtri, ndtr

    nodes, weights = _quadrature()
    bounds = t_point(tail, df) * error * np.sqrt(chdtri(df, (1 - nodes) / 2) / df)
    return float((weights / 2 * ndtr(room(bounds) / max(error, 1e-300))).sum())


@cache
def _quadrature() -> tuple[Floats, Floats]:
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return nodes, weights


def detectable(shift: Shift, margin: float, tail: float) -> float:
    """Smallest true difference that would have made a FAIL in POWER of cases."""
    error = float(shift.error)
    if error == 0:
        return margin

    def seen(effect: float) -> bool:
        return chance_of_fail(effect, margin, error, shift.df, tail) >= POWER

    low, high = margin, margin + error
    while not seen(high):
        low, high = high, high + 2 * (high - margin)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if seen(middle) else (middle, high)
    return high


def pairs_to_settle(
    deviation: float, mean: float, margin: float, tails: tuple[float, float], df_each: float = 1.0
) -> int | None:
    """Pairs after which a difference like this one is decided in POWER of cases; None beyond MOST_PAIRS.

    Args:
        deviation: standard deviation of one pair's difference.
        mean: what the difference is taken to be.
        margin: what it may be at most.
        tails: error allowed to a PASS, and to a FAIL.
        df_each: degrees of freedom that a further pair (of stored runs: one a side) brings.
    """
    chance, tail = (chance_of_fail, tails[1]) if mean >= margin else (chance_of_pass, tails[0])

    def settled(n: int) -> bool:
        return chance(mean, margin, deviation / math.sqrt(n), df_each * (n - 1), tail) >= POWER

    n = 3 + bisect_left(range(3, MOST_PAIRS + 1), True, key=settled)
    return n if n <= MOST_PAIRS else None


def hodges_lehmann(d: Floats) -> float:
    """Median of all pairwise means of the differences; shape (n,)."""
    rows, columns = np.triu_indices(len(d))
    return float(np.median((d[rows] + d[columns]) / 2))


def hodges_lehmann_shift(base: Floats, other: Floats) -> float:
    return float(np.median(other[:, None] - base[None, :]))


def signed_rank_p(d: Floats) -> float:
    """Wilcoxon's signed rank test, one-sided for "positive", exact; zeros are left out."""
    d = d[d != 0]
    ranks = _doubled_ranks(np.abs(d))
    counts = np.zeros(int(ranks.sum()) + 1)
    counts[0] = 1.0
    for rank in ranks:
        counts[rank:] += counts[: len(counts) - rank].copy()
    return float(counts[int(ranks[d > 0].sum()) :].sum() / 2.0 ** len(d))


def rank_sum_p(base: Floats, other: Floats) -> float:
    """Wilcoxon's rank sum test, one-sided for "other is larger", exact."""
    ranks = _doubled_ranks(np.concatenate([base, other]))
    # ways[k, s]: choices of k runs whose doubled ranks add up to s.
    ways = np.zeros((len(other) + 1, int(ranks.sum()) + 1))
    ways[0, 0] = 1.0
    for rank in ranks:
        ways[1:, rank:] += ways[:-1, : ways.shape[1] - rank].copy()
    chosen = ways[len(other)]
    return float(chosen[int(ranks[len(base) :].sum()) :].sum() / chosen.sum())


def _doubled_ranks(values: Floats) -> Any:
    """Twice the mean ranks: integers even with ties."""
    ordered = np.sort(values)
    return np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1
