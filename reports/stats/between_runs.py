"""Figures between runs, where the run is the sample: means, intervals and ratios on logarithms.

Pooling the requests of a few runs into one test is wrong (docs/metrics.md, "Between runs"). The gate's
decision is `reports.verdicts.gate.verdict`; this is the description that a comparison shows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tailgate.reports.stats.order_statistics import LEVEL


@dataclass(frozen=True)
class RunsMean:
    """One figure over the replicates of one configuration.

    Attributes:
        value: geometric mean (arithmetic where a value is not positive); None without any run.
        low, high: two-sided 95 % interval between runs; None with fewer than two runs.
        runs: each run's own value.
    """

    value: float | None
    low: float | None
    high: float | None
    runs: tuple[float, ...]


@dataclass(frozen=True)
class Ratio:
    """A figure of one configuration over the same of another.

    Attributes:
        value: ratio of the means.
        low, high: two-sided 95 % interval; None unless both sides have two runs (or two pairs).
        how: `paired` (same plans on both sides), `unpaired` (Welch), or `single runs`.
    """

    value: float
    low: float | None
    high: float | None
    how: Literal["paired", "unpaired", "single runs"]


def estimate(values: Sequence[float]) -> RunsMean:
    """Mean over runs with its interval (Student's t, on logarithms where all values are positive)."""
    found = np.asarray(values, np.float64)
    if not len(found):
        return RunsMean(None, None, None, ())
    logs = bool((found > 0).all())
    x = np.log(found) if logs else found
    back = math.exp if logs else float
    mean = float(x.mean())
    if len(x) < 2:
        return RunsMean(float(found[0]), None, None, tuple(values))
    half = _t(len(x) - 1) * float(x.std(ddof=1)) / math.sqrt(len(x))
    return RunsMean(back(mean), back(mean - half), back(mean + half), tuple(values))


def ratio(
    base: Sequence[float], other: Sequence[float], base_plans: Sequence[str], other_plans: Sequence[str]
) -> Ratio | None:
    """`other` over `base`; None where a side has no value or one that is not positive.

    Where both sides ran the same plans, once each, pairs are compared: what a plan does to both cancels.
    """
    a, b = np.asarray(base, np.float64), np.asarray(other, np.float64)
    if not len(a) or not len(b) or (a <= 0).any() or (b <= 0).any():
        return None
    x, y = np.log(a), np.log(b)
    pairs = _pairs(base_plans, other_plans)
    if pairs is not None and len(pairs) >= 2:
        d = np.array([y[j] - x[i] for i, j in pairs])
        return _around(float(d.mean()), float(d.std(ddof=1)) / math.sqrt(len(d)), len(d) - 1, "paired")
    mean = float(y.mean() - x.mean())
    if len(x) < 2 or len(y) < 2:
        return Ratio(math.exp(mean), None, None, "single runs")
    vx, vy = float(x.var(ddof=1)) / len(x), float(y.var(ddof=1)) / len(y)
    if vx + vy == 0:
        return Ratio(math.exp(mean), math.exp(mean), math.exp(mean), "unpaired")
    # Welch (1947), Satterthwaite's degrees of freedom.
    df = (vx + vy) ** 2 / (vx**2 / (len(x) - 1) + vy**2 / (len(y) - 1))
    return _around(mean, math.sqrt(vx + vy), df, "unpaired")


def _around(mean: float, error: float, df: float, how: Literal["paired", "unpaired"]) -> Ratio:
    half = _t(df) * error
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half), how)


def _pairs(base: Sequence[str], other: Sequence[str]) -> list[tuple[int, int]] | None:
    """Places of equal plans; None unless every plan stands once on each side."""
    if len(set(base)) != len(base) or sorted(base) != sorted(other) or "" in base:
        return None
    return [(place, list(other).index(plan)) for place, plan in enumerate(base)]


def _t(df: float) -> float:
    """Two-sided 95 % quantile of Student's t, of fractional degrees too."""
    from scipy.special import stdtrit  # comparisons are off the run's path: scipy may take its time to load

    return float(stdtrit(df, (1 + LEVEL) / 2))
