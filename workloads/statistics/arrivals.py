"""Figures of arrivals and lengths: index of dispersion, variation of gaps, peaks, distances, rank correlation.

They take plain arrays, of a plan, a trace, or the requests that a run really sent.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tailgate.workloads.common.arrays import Floats, Ints


@dataclass(frozen=True)
class IndexOfDispersion:
    """Variance over mean of the counts in windows of `window_s`: 1 for Poisson at every window.

    `low` and `high` are its 95 % sampling interval if counts of different windows are independent (the law of
    a variance, chi-square with `windows` - 1 degrees of freedom); slow modulation makes the true one wider.
    None where fewer than 10 windows fit.
    """

    window_s: float
    windows: int
    value: float | None
    low: float | None
    high: float | None


def dispersion(times_s: Floats, window_s: float, span_s: float) -> IndexOfDispersion:
    """Index of dispersion for counts of arrivals in [0, span) (Cox and Lewis, "Statistical Analysis of Series of
    Events", 1966, ch. 4).
    """
    windows = int(span_s / window_s + 1e-9)
    if windows < 10:
        return IndexOfDispersion(window_s, windows, None, None, None)
    counts = counts_in(times_s, window_s, windows)
    mean = float(counts.mean())
    if mean == 0:
        return IndexOfDispersion(window_s, windows, None, None, None)
    value = float(counts.var(ddof=1)) / mean
    from scipy.special import chdtri  # scipy.stats has it too, and takes four times as long to import

    # Chi-square quantiles by the probability above them.
    low, high = float(chdtri(windows - 1, 0.025)), float(chdtri(windows - 1, 0.975))
    return IndexOfDispersion(window_s, windows, value, value * (windows - 1) / low, value * (windows - 1) / high)


def counts_in(times_s: Floats, window_s: float, windows: int) -> Ints:
    """Arrivals in each of `windows` consecutive windows from 0 on."""
    slots = np.floor(times_s / window_s).astype(np.int64)
    return np.bincount(slots[(slots >= 0) & (slots < windows)], minlength=windows)


def gap_cv(times_s: Floats) -> float | None:
    """Coefficient of variation of the gaps between arrivals; 1 for Poisson. None below three arrivals."""
    gaps = np.diff(times_s)
    if len(gaps) < 2 or gaps.mean() == 0:
        return None
    return float(gaps.std(ddof=1) / gaps.mean())


def peak_to_mean(times_s: Floats, window_s: float, span_s: float) -> float | None:
    """The busiest window's rate over the mean rate; None where no whole window fits."""
    windows = int(span_s / window_s + 1e-9)
    if windows < 1 or not len(times_s):
        return None
    counts = counts_in(times_s, window_s, windows)
    return float(counts.max() / counts.mean()) if counts.any() else None


def ks_distance(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Largest difference of the two samples' distribution functions (Kolmogorov-Smirnov), ties included."""
    points = np.union1d(a, b)
    shares = (np.searchsorted(np.sort(sample), points, side="right") / len(sample) for sample in (a, b))
    return float(np.abs(np.subtract(*shares)).max())


def spearman(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Rank correlation, ties with their mean rank; 0 where one of the two is constant."""
    ra, rb = mean_ranks(a), mean_ranks(b)
    if ra.std() == 0 or rb.std() == 0:
        return 0.0
    return float(np.corrcoef(ra, rb)[0, 1])


def mean_ranks(values: npt.NDArray[Any]) -> Floats:
    """Ranks from 1; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2.0)[inverse])


@dataclass(frozen=True)
class OnOffPeriods:
    """Lengths of bursts and of the pauses between them in seconds, and the share of time in bursts."""

    on_s: Floats
    off_s: Floats
    duty: float


def on_off(times_s: Floats, gap_s: float = 5.0) -> OnOffPeriods:
    """Split at gaps of at least `gap_s`; a burst lasts from its first to its last arrival."""
    gaps = np.diff(times_s)
    breaks = np.flatnonzero(gaps >= gap_s)
    begins = np.concatenate([[0], breaks + 1])
    ends = np.concatenate([breaks, [len(times_s) - 1]])
    on = times_s[ends] - times_s[begins]
    span = float(times_s[-1] - times_s[0])
    return OnOffPeriods(on, gaps[breaks], float(on.sum() / span) if span else 1.0)
