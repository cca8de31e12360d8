"""Distributions of non-negative numbers (token counts, turns, seconds), each a small class with its quantile function.

That one operation is enough: draws are quantiles of uniform numbers, and two distributions can be drawn together with a
rank correlation (`correlated`). How they are written is the matter of `distribution_grammar`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from tailgate.workloads.common.arrays import Floats, Ints
from tailgate.workloads.sampling import portable_math
from tailgate.workloads.sampling.random_streams import RandomStream

MAX_TOKENS: Final = 100_000_000
_TABLE: Final = 4000
_PI: Final = 3.141592653589793


class ProbabilityDistribution(ABC):
    """A distribution of non-negative numbers: token counts, turns, or seconds."""

    @abstractmethod
    def quantile(self, u: Floats) -> Floats:
        """The values below which the shares u (in (0, 1)) lie; not rounded."""

    def numbers(self, stream: RandomStream, n: int) -> Floats:
        return self.quantile(stream.uniform(n))


def whole(values: Floats) -> Ints:
    """Rounded to whole numbers of at least 1 and at most MAX_TOKENS."""
    return np.clip(np.rint(values), 1, MAX_TOKENS).astype(np.int64)


@dataclass(frozen=True)
class Fixed(ProbabilityDistribution):
    """Always the same value."""

    value: float

    def quantile(self, u: Floats) -> Floats:
        return np.full(u.shape, self.value)


@dataclass(frozen=True)
class Lognormal(ProbabilityDistribution):
    """exp(mu + sigma z), z standard normal."""

    mu: float
    sigma: float

    def quantile(self, u: Floats) -> Floats:
        return portable_math.exp(self.mu + self.sigma * portable_math.normal_quantile(u))


@dataclass(frozen=True)
class Uniform(ProbabilityDistribution):
    """Whole numbers from low to high, each as likely."""

    low: float
    high: float

    def quantile(self, u: Floats) -> Floats:
        """Half a unit beyond both ends, so that rounding gives the ends their full share."""
        return np.clip(self.low - 0.5 + (self.high - self.low + 1.0) * u, self.low, self.high)


@dataclass(frozen=True)
class Exponential(ProbabilityDistribution):
    """P(x > v) = exp(-v / mean)."""

    mean: float

    def quantile(self, u: Floats) -> Floats:
        return -self.mean * portable_math.log(1.0 - u)


@dataclass(frozen=True)
class WeibullDistribution(ProbabilityDistribution):
    """P(x > v) = exp(-(v / s)^shape)."""

    shape: float
    scale: float

    def quantile(self, u: Floats) -> Floats:
        return self.scale * portable_math.power(-portable_math.log(1.0 - u), 1.0 / self.shape)


@dataclass(frozen=True)
class Pareto(ProbabilityDistribution):
    """P(x > v) = (low / v)^alpha above low."""

    alpha: float
    low: float

    def quantile(self, u: Floats) -> Floats:
        return self.low * portable_math.power(1.0 - u, -1.0 / self.alpha)


@dataclass(frozen=True)
class GammaDistribution(ProbabilityDistribution):
    """Gamma with the given shape and mean, through a table of its distribution function."""

    shape: float
    mean: float

    def quantile(self, u: Floats) -> Floats:
        """Straight lines through 4,000 points (relative error about 1e-6 away from the far tails)."""
        values, shares = self._points
        return portable_math.interpolate(u, shares, values) * (self.mean / self.shape)

    @cached_property
    def _points(self) -> tuple[Floats, Floats]:
        top = self.shape + 12.0 * np.sqrt(self.shape) + 40.0
        least = -34.0 / self.shape + float(portable_math.log(np.array([top]))[0])
        logs = np.linspace(least, float(portable_math.log(np.array([top]))[0]), _TABLE // 2, endpoint=False)
        values = np.concatenate([portable_math.exp(logs), np.linspace(0.0, top, _TABLE // 2 + 1)])
        values = np.unique(values)
        shares = np.maximum.accumulate(_gamma_probability(self.shape, values))
        return values, shares / shares[-1]


@dataclass(frozen=True)
class Quantiles(ProbabilityDistribution):
    """Straight lines between measured quantiles: `shares` from 0 to 1, `values` ascending."""

    shares: tuple[float, ...]
    values: tuple[float, ...]

    def quantile(self, u: Floats) -> Floats:
        return portable_math.interpolate(u, np.array(self.shares), np.array(self.values, dtype=np.float64))


@dataclass(frozen=True)
class LogQuantiles(ProbabilityDistribution):
    """Quantiles joined by lines that are straight in the logarithm: for times over several magnitudes."""

    shares: tuple[float, ...]
    values: tuple[float, ...]

    def quantile(self, u: Floats) -> Floats:
        logs = portable_math.log(np.array(self.values, dtype=np.float64))
        return portable_math.exp(portable_math.interpolate(u, np.array(self.shares), logs))


@dataclass(frozen=True)
class Mixture(ProbabilityDistribution):
    """Each part with its weight; the quantile function is a single table, so that ranks are kept."""

    parts: tuple[tuple[float, ProbabilityDistribution], ...]

    def quantile(self, u: Floats) -> Floats:
        values, shares = self._points
        return portable_math.interpolate(u, shares, values)

    @cached_property
    def _points(self) -> tuple[Floats, Floats]:
        middles = (np.arange(_TABLE) + 0.5) / _TABLE
        values = np.concatenate([part.quantile(middles) for _, part in self.parts])
        weights = np.concatenate([np.full(_TABLE, weight / _TABLE) for weight, _ in self.parts])
        order = np.argsort(values, kind="stable")
        above = np.cumsum(weights[order])
        return values[order], (above - weights[order] / 2) / above[-1]


@dataclass(frozen=True)
class Clip(ProbabilityDistribution):
    """Another distribution whose values beyond the bounds are moved onto them."""

    inner: ProbabilityDistribution
    low: float
    high: float

    def quantile(self, u: Floats) -> Floats:
        return np.clip(self.inner.quantile(u), self.low, self.high)


@dataclass(frozen=True)
class Scale(ProbabilityDistribution):
    """Another distribution times a factor."""

    inner: ProbabilityDistribution
    factor: float

    def quantile(self, u: Floats) -> Floats:
        return self.inner.quantile(u) * self.factor


def _gamma_probability(shape: float, values: Floats) -> Floats:
    """The lower incomplete gamma function P(shape, v), by its series (Abramowitz and Stegun 6.5.29)."""
    safe = np.maximum(values, 1e-300)
    term = np.full_like(safe, 1.0 / shape)
    total = term.copy()
    for k in range(1, 100_000):
        term = term * (safe / (shape + k))
        total = total + term
        if float(term.max() / total.min()) < 1e-17 or bool(np.all(term <= 1e-17 * total)):
            break
    log_front = shape * portable_math.log(safe) - safe - portable_math.log_gamma_function(shape)
    front = portable_math.exp(log_front + portable_math.log(total))
    return np.where(values > 0, np.minimum(front, 1.0), 0.0)


def correlated(first: Floats, second: Floats, spearman: float) -> Floats:
    """Uniform numbers made of `second` with the given rank correlation to `first`; both in (0, 1).

    A Gaussian copula: two standard normals with correlation r have Spearman's rho = (6/pi) asin(r/2) (Pearson, "On
    further methods of determining correlation", 1907), so r = 2 sin(pi rho / 6). Pushed through the normal distribution
    function and two quantile functions they keep that rank correlation, whatever the distributions are.
    """
    r = 2.0 * _sine(_PI * spearman / 6.0)
    mixed = r * portable_math.normal_quantile(first) + np.sqrt(1.0 - r * r) * portable_math.normal_quantile(second)
    return np.clip(portable_math.normal_probability(mixed), 2.0**-53, 1.0 - 2.0**-53)


def _sine(x: float) -> float:
    """sin x for |x| <= pi/6, by its series (a library's may differ in the last bit)."""
    term = total = x
    for k in range(1, 12):
        term *= -x * x / ((2 * k) * (2 * k + 1))
        total += term
    return total
