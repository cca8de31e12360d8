"""The grammar of lengths and times: `512`, `lognormal(6.2, 0.8)`, `grid:azure_2023_conv.input`.

    expression = number
               | lognormal(mu, sigma)        natural logarithm; median e^mu
               | uniform(low, high)          both ends included
               | exponential(mean)
               | gamma(shape, mean)
               | weibull(shape, mean)
               | pareto(alpha, low)
               | quantiles(0: v, 0.5: v, ..., 1: v)      straight lines between (a share and its value)
               | logquantiles(0: v, ..., 1: v)            the same, straight in the logarithm of the value
               | grid:NAME                   a measured quantile grid of the package (see `workloads.grids`)
               | mixture(weight: expression, ...)
               | clip(expression, low, high)
               | scale(expression, factor)

Every law is a small class with one operation, its quantile function, so that any two can be drawn together
with a rank correlation (`workloads.copula`). What a token is, and what a prompt holds, is not of this module.
"""

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated, Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator

from workloads import exact
from workloads.exact import Floats
from workloads.grids import grid
from workloads.streams import Stream

MOST_TOKENS: Final = 100_000_000
_TABLE: Final = 4000


class Numbers(Protocol):
    """A law of non-negative numbers: token counts, turns, or seconds."""

    def quantile(self, u: Floats) -> Floats:
        """The values below which the shares u (in (0, 1)) lie; not rounded."""
        ...

    def numbers(self, stream: Stream, n: int) -> Floats:
        """n draws, not rounded."""
        ...

    def sample(self, stream: Stream, n: int) -> npt.NDArray[np.int64]:
        """n draws as whole numbers, at least 1."""
        ...


class _Law:
    def quantile(self, u: Floats) -> Floats:
        raise NotImplementedError

    def numbers(self, stream: Stream, n: int) -> Floats:
        return self.quantile(stream.uniform(n))

    def sample(self, stream: Stream, n: int) -> npt.NDArray[np.int64]:
        return whole(self.numbers(stream, n))


def whole(values: Floats) -> npt.NDArray[np.int64]:
    """Rounded to whole numbers of at least 1 and at most MOST_TOKENS."""
    return np.clip(np.rint(values), 1, MOST_TOKENS).astype(np.int64)


@dataclass(frozen=True)
class Fixed(_Law):
    """Always the same."""

    value: float

    def quantile(self, u: Floats) -> Floats:
        """The value."""
        return np.full(u.shape, self.value)


@dataclass(frozen=True)
class Lognormal(_Law):
    """exp(mu + sigma z), z standard normal."""

    mu: float
    sigma: float

    def quantile(self, u: Floats) -> Floats:
        """By the normal quantile."""
        return exact.exp(self.mu + self.sigma * exact.normal_quantile(u))


@dataclass(frozen=True)
class Uniform(_Law):
    """Whole numbers from low to high, each as likely."""

    low: float
    high: float

    def quantile(self, u: Floats) -> Floats:
        """Half a unit beyond both ends, so that rounding gives the ends their full share."""
        return np.clip(self.low - 0.5 + (self.high - self.low + 1.0) * u, self.low, self.high)


@dataclass(frozen=True)
class Exponential(_Law):
    """P(x > v) = exp(-v / mean)."""

    mean: float

    def quantile(self, u: Floats) -> Floats:
        """-mean ln(1 - u)."""
        return -self.mean * exact.log(1.0 - u)


@dataclass(frozen=True)
class WeibullLaw(_Law):
    """P(x > v) = exp(-(v / s)^shape)."""

    shape: float
    scale: float

    def quantile(self, u: Floats) -> Floats:
        """s (-ln(1 - u))^(1/shape)."""
        return self.scale * exact.power(-exact.log(1.0 - u), 1.0 / self.shape)


@dataclass(frozen=True)
class Pareto(_Law):
    """P(x > v) = (low / v)^alpha above low."""

    alpha: float
    low: float

    def quantile(self, u: Floats) -> Floats:
        """low (1 - u)^(-1/alpha)."""
        return self.low * exact.power(1.0 - u, -1.0 / self.alpha)


@dataclass(frozen=True)
class GammaLaw(_Law):
    """Gamma with the given shape and mean, through a table of its distribution function."""

    shape: float
    mean: float

    def quantile(self, u: Floats) -> Floats:
        """Straight lines through 4,000 points (relative error about 1e-6 away from the far tails)."""
        values, shares = self._points
        return exact.interpolate(u, shares, values) * (self.mean / self.shape)

    @cached_property
    def _points(self) -> tuple[Floats, Floats]:
        top = self.shape + 12.0 * np.sqrt(self.shape) + 40.0
        least = -34.0 / self.shape + float(exact.log(np.array([top]))[0])
        logs = np.linspace(least, float(exact.log(np.array([top]))[0]), _TABLE // 2, endpoint=False)
        values = np.concatenate([exact.exp(logs), np.linspace(0.0, top, _TABLE // 2 + 1)])
        values = np.unique(values)
        shares = np.maximum.accumulate(_gamma_probability(self.shape, values))
        return values, shares / shares[-1]


@dataclass(frozen=True)
class Quantiles(_Law):
    """Straight lines through measured quantiles: `shares` from 0 to 1, `values` ascending."""

    shares: tuple[float, ...]
    values: tuple[float, ...]

    def quantile(self, u: Floats) -> Floats:
        """By interpolation."""
        return exact.interpolate(u, np.array(self.shares), np.array(self.values, dtype=np.float64))


@dataclass(frozen=True)
class LogQuantiles(_Law):
    """Quantiles joined by lines that are straight in the logarithm: for times over several magnitudes."""

    shares: tuple[float, ...]
    values: tuple[float, ...]

    def quantile(self, u: Floats) -> Floats:
        """By interpolation of logarithms."""
        logs = exact.log(np.array(self.values, dtype=np.float64))
        return exact.exp(exact.interpolate(u, np.array(self.shares), logs))


@dataclass(frozen=True)
class Mixture(_Law):
    """Each part with its weight. Its quantile function is one table, so that it keeps ranks."""

    parts: tuple[tuple[float, Numbers], ...]

    def quantile(self, u: Floats) -> Floats:
        """Straight lines through the merged quantiles of the parts."""
        values, shares = self._points
        return exact.interpolate(u, shares, values)

    @cached_property
    def _points(self) -> tuple[Floats, Floats]:
        middles = (np.arange(_TABLE) + 0.5) / _TABLE
        values = np.concatenate([part.quantile(middles) for _, part in self.parts])
        weights = np.concatenate([np.full(_TABLE, weight / _TABLE) for weight, _ in self.parts])
        order = np.argsort(values, kind="stable")
        above = np.cumsum(weights[order])
        return values[order], (above - weights[order] / 2) / above[-1]


@dataclass(frozen=True)
class Clip(_Law):
    """Another law, with what is beyond the bounds moved onto them."""

    inner: Numbers
    low: float
    high: float

    def quantile(self, u: Floats) -> Floats:
        """Clipped."""
        return np.clip(self.inner.quantile(u), self.low, self.high)


@dataclass(frozen=True)
class Scale(_Law):
    """Another law, times a factor."""

    inner: Numbers
    factor: float

    def quantile(self, u: Floats) -> Floats:
        """Scaled."""
        return self.inner.quantile(u) * self.factor


_TOKEN: Final = re.compile(r"\s*(?:(grid:[\w.\-]+)|([A-Za-z_]\w*)|([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(.))")
_ARITY: Final = {
    "lognormal": ("mu", "sigma"),
    "uniform": ("low", "high"),
    "exponential": ("mean",),
    "gamma": ("shape", "mean"),
    "weibull": ("shape", "mean"),
    "pareto": ("alpha", "low"),
}
_FORMS: Final = (
    "a number, lognormal(mu, sigma), uniform(low, high), exponential(mean), gamma(shape, mean), "
    "weibull(shape, mean), pareto(alpha, low), quantiles(0: v, ..., 1: v), logquantiles(0: v, ..., 1: v), grid:NAME, "
    "mixture(weight: ..., ...), clip(..., low, high) or scale(..., factor)"
)


@lru_cache(maxsize=256)
def parse(text: str | float) -> Numbers:
    """The law that an expression names.

    Raises:
        ValueError: with what was read, where it went wrong, and the forms that are understood.
    """
    reader = _Reader(str(text))
    law = reader.expression()
    reader.expect_end()
    return law


class _Reader:
    """A recursive-descent reader of one expression."""

    def __init__(self, text: str) -> None:
        self._text = text.strip()
        self._tokens: list[tuple[str, str, int]] = []
        for match in _TOKEN.finditer(self._text):
            kind = ("grid", "name", "number", "sign")[(match.lastindex or 1) - 1]
            self._tokens.append((kind, match[match.lastindex or 0], match.start(match.lastindex or 0)))
        self._at = 0

    def expression(self) -> Numbers:
        kind, token = self._next()
        if kind == "number":
            if float(token) < 0:
                raise self._error(f"{token} is negative", back=1)
            return Fixed(float(token))
        if kind == "grid":
            shares, values = grid(token.removeprefix("grid:"))
            return Quantiles(shares, values)
        if kind != "name":
            raise self._error("expected a length", back=1)
        self._sign("(")
        law = self._call(token)
        self._sign(")")
        return law

    def expect_end(self) -> None:
        if self._at < len(self._tokens):
            raise self._error(f"nothing may follow, but there is {self._tokens[self._at][1]!r}")

    def _call(self, name: str) -> Numbers:
        match name:
            case "quantiles" | "logquantiles":
                shares, values = self._points()
                if name == "quantiles":
                    return Quantiles(shares, values)
                if values[0] <= 0:
                    raise self._error("logquantiles are above 0")
                return LogQuantiles(shares, values)
            case "mixture":
                return self._mixture()
            case "clip":
                inner = self.expression()
                low, high = self._then_number(), self._then_number()
                if low > high:
                    raise self._error(f"clip's low {low:g} is above its high {high:g}")
                return Clip(inner, low, high)
            case "scale":
                inner = self.expression()
                return Scale(inner, self._positive(self._then_number(), "factor"))
            case _:
                return self._law(name)

    def _law(self, name: str) -> Numbers:
        if name not in _ARITY:
            raise self._error(f"there is no law called {name!r}", back=2)
        names = _ARITY[name]
        values = [self._number()]
        while self._peek() == ",":
            values.append(self._then_number())
        if len(values) != len(names):
            raise self._error(f"{name} takes {', '.join(names)}: {len(names)} numbers, not {len(values)}")
        first, second = values[0], values[-1]
        match name:
            case "lognormal":
                if second < 0:
                    raise self._error("sigma is negative")
                if first > 18 or second > 5:
                    raise self._error("mu and sigma are of the natural logarithm: e^18 is 66 million")
                return Lognormal(first, second)
            case "uniform":
                if not 0 <= first <= second:
                    raise self._error(f"uniform needs 0 <= low <= high, not {first:g} and {second:g}")
                return Uniform(first, second)
            case "exponential":
                return Exponential(self._positive(first, "mean"))
            case "gamma":
                return GammaLaw(self._positive(first, "shape"), self._positive(second, "mean"))
            case "weibull":
                shape = self._positive(first, "shape")
                return WeibullLaw(shape, self._positive(second, "mean") / exact.gamma_function(1.0 + 1.0 / shape))
            case _:
                return Pareto(self._positive(first, "alpha"), self._positive(second, "low"))

    def _points(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        points = [(self._number(), self._after_colon())]
        while self._peek() == ",":
            points.append((self._then_number(), self._after_colon()))
        shares, values = zip(*points, strict=True)
        if shares[0] != 0 or shares[-1] != 1 or list(shares) != sorted(shares) or list(values) != sorted(values):
            raise self._error("quantiles go from 0: to 1:, shares and values ascending")
        return shares, values

    def _mixture(self) -> Numbers:
        parts = []
        while True:
            weight = self._positive(self._number(), "weight")
            self._sign(":")
            parts.append((weight, self.expression()))
            if self._peek() != ",":
                break
            self._sign(",")
        total = sum(weight for weight, _ in parts)
        return Mixture(tuple((weight / total, part) for weight, part in parts))

    def _after_colon(self) -> float:
        self._sign(":")
        return self._number()

    def _then_number(self) -> float:
        self._sign(",")
        return self._number()

    def _number(self) -> float:
        kind, token = self._next()
        if kind != "number":
            raise self._error("expected a number", back=1)
        return float(token)

    def _positive(self, value: float, name: str) -> float:
        if value <= 0:
            raise self._error(f"{name} must be above 0")
        return value

    def _sign(self, sign: str) -> None:
        if self._peek() != sign:
            raise self._error(f"expected {sign!r}")
        self._at += 1

    def _peek(self) -> str | None:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else None

    def _next(self) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise self._error("it ends too early")
        kind, token, _ = self._tokens[self._at]
        self._at += 1
        return kind, token

    def _error(self, what: str, back: int = 0) -> ValueError:
        at = max(self._at - back, 0)
        column = self._tokens[at][2] if at < len(self._tokens) else len(self._text)
        return ValueError(f"{self._text!r}, column {column + 1}: {what} (a length is {_FORMS})")


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
    log_front = shape * exact.log(safe) - safe - exact.log_gamma_function(shape)
    front = exact.exp(log_front + exact.log(total))
    return np.where(values > 0, np.minimum(front, 1.0), 0.0)


def _check(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is not a length: write {_FORMS}")  # noqa: TRY004
    parse(value)
    # A flag's "32" is a spec's 32: what means the same must hash the same.
    return int(value) if isinstance(value, str) and value.strip().isdigit() else value


Length = Annotated[int | float | str, BeforeValidator(_check)]
"""A pydantic field: an expression of the grammar above, kept as it was written."""
