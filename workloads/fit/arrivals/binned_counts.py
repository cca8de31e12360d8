"""Arrivals counted in bins, and what the dispersion of such counts tells of them."""

from dataclasses import dataclass
from math import factorial
from typing import Final

import numpy as np

from tailgate.workloads.common.arrays import Floats

_LEAST_WINDOWS: Final = 15
_FALSE_ALARM: Final = 0.001
_LEAST_FACTOR: Final = 1e-3


@dataclass(frozen=True)
class Counts:
    """Counts in consecutive bins; `expected` is what each would hold at a constant rate, but for known shapes of a day.

    `noise` is variance over mean of a count at constant rate: 1 for Poisson, 1 / shape for gamma gaps.
    """

    values: Floats
    expected: Floats
    width_s: float
    noise: float

    @property
    def span_s(self) -> float:
        return self.width_s * len(self.values)


@dataclass(frozen=True)
class LoggedArrivals:
    """Ascending times (s) in [0, span), the stamps' resolution, and the day's factor on the rate at equal steps."""

    times_s: Floats
    span_s: float
    tick_s: float = 1e-9
    factors: Floats | None = None

    def counts(self, width_s: float, noise: float) -> Counts:
        """Counts in bins of whole ticks, about `width_s` each."""
        ticks = max(round(width_s / self.tick_s), 1)
        width = ticks * self.tick_s
        bins = int(self.span_s / width + 1e-9)
        # A stamp on a grid stands for the middle of its tick.
        place = ((self.times_s + self.tick_s / 2.0) / width).astype(np.int64)
        values = np.bincount(place[place < bins], minlength=bins).astype(np.float64)
        return Counts(values, values.mean() * self._factors(bins, width), width, noise)

    def _factors(self, bins: int, width_s: float) -> Floats:
        if self.factors is None:
            return np.ones(bins)
        steps = len(self.factors)
        total = np.concatenate([[0.0], np.cumsum(self.factors)])
        means = np.diff(np.interp(np.arange(bins + 1.0) * width_s, np.linspace(0.0, self.span_s, steps + 1), total))
        return np.asarray(np.maximum(means / means.mean(), _LEAST_FACTOR))


def averaged_variance(x: float) -> float:
    """The variance of an Ornstein-Uhlenbeck process of variance 1 averaged over x correlation times."""
    return 2.0 * (x - 1.0 + float(np.exp(-x))) / (x * x) if x > 1e-4 else 1.0 - x / 3.0


def averaged_rate_variance(cv: float, x: float) -> float:
    """The variance of a log-normal rate of mean 1 averaged over x correlation times of its logarithm.

    The covariance exp(s^2 r) - 1 as a series in r = e^-t, s^2 = ln(1 + cv^2).
    """
    square = float(np.log1p(cv * cv))
    return sum(square**k / factorial(k) * averaged_variance(k * x) for k in range(1, 30))


def dispersion_of(counts: Counts) -> float:
    """Variance over mean of counts around their expected values."""
    deviations = (counts.values - counts.expected) ** 2 / counts.expected
    return float(deviations.sum() / (len(counts.values) - 1))


def overdispersed(arrivals: LoggedArrivals, width_s: float, noise: float, freedom: float) -> bool:
    """Whether counts vary more than a renewal process's at some scale (1 in 1,000 by chance).

    `freedom` says how well the noise is known: the degrees of freedom of the variance that it comes from.
    """
    from scipy.stats import chi2, f

    scales = [m for m in (1, 2, 4, 8, 16) if arrivals.span_s / (m * width_s) >= _LEAST_WINDOWS]
    for m in scales:
        counts = arrivals.counts(m * width_s, noise)
        own, chance = len(counts.values) - 1, _FALSE_ALARM / len(scales)
        most = chi2.isf(chance, own) / own if np.isinf(freedom) else f.isf(chance, own, freedom)
        if dispersion_of(counts) > noise * float(most):
            return True
    return False


def match_dispersion(
    arrivals: LoggedArrivals, width_s: float, noise: float | None, correlation_s: float | None
) -> tuple[float, float, float]:
    """Noise, coefficient of variation and correlation time whose dispersion is the log's at windows from `width_s` on.

    noise + rate w cv^2 (g(w / tau) - g(span / tau)), g of `averaged_variance`: a log's own mean is subtracted from its
    counts, so what varies over the whole of it is not seen. A known noise is that of gamma gaps, less (noise^2 - 1) / 6
    counts for what a window's ends cut (Cox, "Renewal Theory", 1962, ch. 4.5). Least squares, each window by its
    sampling error; what is None is fitted.
    """
    from scipy.optimize import nnls

    windows = [width_s * 2.0**k for k in range(30) if arrivals.span_s / (width_s * 2.0**k) >= _LEAST_WINDOWS]
    counts = [arrivals.counts(window, 1.0) for window in windows]
    dispersions = np.array([dispersion_of(binned) for binned in counts])
    widths = np.array([binned.width_s for binned in counts])
    weights = np.sqrt([len(binned.values) / 2.0 for binned in counts]) / np.maximum(dispersions, 0.1)
    rate, longest = len(arrivals.times_s) / arrivals.span_s, arrivals.span_s / 10.0
    cut = 0.0 if noise is None else (noise * noise - 1.0) / (6.0 * rate)
    best, error = (1.0, 0.0, longest), np.inf
    for tau in np.geomspace(width_s / 4.0, longest, 60).tolist() if correlation_s is None else [correlation_s]:
        whole = averaged_variance(arrivals.span_s / tau)
        slope = np.array([rate * width * (averaged_variance(width / tau) - whole) for width in widths.tolist()])
        if noise is None:
            terms = np.stack([np.ones(len(dispersions)), slope], axis=1) * weights[:, None]
            # Poisson's noise, give or take as much, where counts hardly tell it.
            (fitted_noise, square), miss = nnls(np.vstack([terms, [1.0, 0.0]]), np.append(dispersions * weights, 1.0))
        else:
            fitted_noise, excess = noise, dispersions - noise + cut / widths
            (square,), miss = nnls((slope * weights)[:, None], excess * weights)
        if miss < error:
            best, error = (fitted_noise, min(float(np.sqrt(square)), 5.0), tau), miss
    return best
