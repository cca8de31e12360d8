"""Laws of non-negative numbers (token counts, turns, seconds), each a small class around its quantile function.

One operation is enough: draws are quantiles of uniform numbers, and two laws can be drawn together with a rank
correlation (`correlated`). How laws are written is of `workloads.sampling.distribution_grammar`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.sampling import portable_math
from tailgate.workloads.sampling.random_streams import RandomStream

MOST_TOKENS: Final = 100_000_000
_TABLE: Final = 4000
_PI: Final = 3.141592653589793


class Distribution(Protocol):
    """A law of non-negative numbers: token counts, turns, or seconds."""

    def quantile(self, u: Floats) -> Floats:
        """The values below which the shares u (in (0, 1)) lie; not rounded."""
        ...

    def numbers(self, stream: RandomStream, n: int) -> Floats:
        """n draws, not rounded."""
        ...

    def sample(self, stream: RandomStream, n: int) -> npt.NDArray[np.int64]:
        """n draws as whole numbers, at least 1."""
        ...


class _Distribution:
    def quantile(self, u: Floats) -> Floats:
        raise NotImplementedError

    def numbers(self, stream: RandomStream, n: int) -> Floats:
        return self.quantile(stream.uniform(n))

    def sample(self, stream: RandomStream, n: int) -> npt.NDArray[np.int64]:
        return whole(self.numbers(stream, n))


def whole(values: Floats) -> npt.NDArray[np.int64]:
    """Rounded to whole numbers of at least 1 and at most MOST_TOKENS."""
    return np.clip(np.rint(values), 1, MOST_TOKENS).astype(np.int64)


@dataclass(frozen=True)
class Fixed(_Distribution):
    """Always the same."""

    value: float

    def quantile(self, u: Floats) -> Floats:
        """The value."""
        return np.full(u.shape, self.value)


@dataclass(frozen=True)
class Lognormal(_Distribution):
    """exp(mu + sigma z), z standard normal."""

    mu: float
    sigma: float

    def quantile(self, u: Floats) -> Floats:
        """By the normal quantile."""
        return portable_math.exp(self.mu + self.sigma * portable_math.normal_quantile(u))


@dataclass(frozen=True)
class Uniform(_Distribution):
    """Whole numbers from low to high, each as likely."""

    low: float
    high: float

    def quantile(self, u: Floats) -> Floats:
        """Half a unit beyond both ends, so that rounding gives the ends their full share."""
        return np.clip(self.low - 0.5 + (self.high - self.low + 1.0) * u, self.low, self.high)


@dataclass(frozen=True)
class Exponential(_Distribution):
    """P(x > v) = exp(-v / mean)."""

    mean: float

    def quantile(self, u: Floats) -> Floats:
        """-mean ln(1 - u)."""
        return -self.mean * portable_math.log(1.0 - u)


@dataclass(frozen=True)
class WeibullDistribution(_Distribution):
    """P(x > v) = exp(-(v / s)^shape)."""

    shape: float
    scale: float

    def quantile(self, u: Floats) -> Floats:
        """s (-ln(1 - u))^(1/shape)."""
        return self.scale * portable_math.power(-portable_math.log(1.0 - u), 1.0 / self.shape)


@dataclass(frozen=True)
class Pareto(_Distribution):
    """P(x > v) = (low / v)^alpha above low."""

    alpha: float
    low: float

    def quantile(self, u: Floats) -> Floats:
        """low (1 - u)^(-1/alpha)."""
        return self.low * portable_math.power(1.0 - u, -1.0 / self.alpha)


@dataclass(frozen=True)
class GammaDistribution(_Distribution):
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
class Quantiles(_Distribution):
    """Straight lines through measured quantiles: `shares` from 0 to 1, `values` ascending."""

    shares: tuple[float, ...]
    values: tuple[float, ...]

    def quantile(self, u: Floats) -> Floats:
        """By interpolation."""
        return portable_math.interpolate(u, np.array(self.shares), np.array(self.values, dtype=np.float64))


@dataclass(frozen=True)
class LogQuantiles(_Distribution):
    """Quantiles joined by lines that are straight in the logarithm: for times over several magnitudes."""

    shares: tuple[float, ...]
    values: tuple[float, ...]

    def quantile(self, u: Floats) -> Floats:
        """By interpolation of logarithms."""
        logs = portable_math.log(np.array(self.values, dtype=np.float64))
        return portable_math.exp(portable_math.interpolate(u, np.array(self.shares), logs))


@dataclass(frozen=True)
class Mixture(_Distribution):
    """Each part with its weight. Its quantile function is one table, so that it keeps ranks."""

    parts: tuple[tuple[float, Distribution], ...]

    def quantile(self, u: Floats) -> Floats:
        """Straight lines through the merged quantiles of the parts."""
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
class Clip(_Distribution):
    """Another law, with what is beyond the bounds moved onto them."""

    inner: Distribution
    low: float
    high: float

    def quantile(self, u: Floats) -> Floats:
        """Clipped."""
        return np.clip(self.inner.quantile(u), self.low, self.high)


@dataclass(frozen=True)
class Scale(_Distribution):
    """Another law, times a factor."""

    inner: Distribution
    factor: float

    def quantile(self, u: Floats) -> Floats:
        """Scaled."""
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
