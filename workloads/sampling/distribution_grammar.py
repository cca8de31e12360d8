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
               | grid:NAME                   a measured quantile grid of the package (`data/quantiles.json`)
               | mixture(weight: expression, ...)
               | clip(expression, low, high)
               | scale(expression, factor)

The distributions themselves are in `workloads.sampling.distributions`.
"""

import difflib
import json
import re
from functools import cache, lru_cache
from importlib import resources
from typing import Annotated, Any, Final, cast

from pydantic import BeforeValidator

from tailgate.workloads.sampling import distributions, portable_math
from tailgate.workloads.sampling.distributions import ProbabilityDistribution

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
def parse(text: str | float) -> ProbabilityDistribution:
    """The distribution that an expression names; a ValueError says where it is none and which forms there are."""
    reader = _Reader(str(text))
    distribution = reader.expression()
    reader.expect_end()
    return distribution


class _Reader:
    """A recursive-descent parser of one expression."""

    def __init__(self, text: str) -> None:
        self._text = text.strip()
        self._tokens: list[tuple[str, str, int]] = []
        for match in _TOKEN.finditer(self._text):
            kind = ("grid", "name", "number", "sign")[(match.lastindex or 1) - 1]
            self._tokens.append((kind, match[match.lastindex or 0], match.start(match.lastindex or 0)))
        self._at = 0

    def expression(self) -> ProbabilityDistribution:
        kind, token = self._next()
        if kind == "number":
            if float(token) < 0:
                raise self._error(f"{token} is negative", back=1)
            return distributions.Fixed(float(token))
        if kind == "grid":
            shares, values = _grid(token.removeprefix("grid:"))
            return distributions.Quantiles(shares, values)
        if kind != "name":
            raise self._error("expected a length", back=1)
        self._sign("(")
        distribution = self._call(token)
        self._sign(")")
        return distribution

    def expect_end(self) -> None:
        if self._at < len(self._tokens):
            raise self._error(f"nothing may follow here, but there is {self._tokens[self._at][1]!r}")

    def _call(self, name: str) -> ProbabilityDistribution:
        match name:
            case "quantiles" | "logquantiles":
                shares, values = self._points()
                if name == "quantiles":
                    return distributions.Quantiles(shares, values)
                if values[0] <= 0:
                    raise self._error("logquantiles must be above 0")
                return distributions.LogQuantiles(shares, values)
            case "mixture":
                return self._mixture()
            case "clip":
                inner = self.expression()
                low, high = self._number(after=","), self._number(after=",")
                if low > high:
                    raise self._error(f"clip's low {low:g} is above its high {high:g}")
                return distributions.Clip(inner, low, high)
            case "scale":
                inner = self.expression()
                return distributions.Scale(inner, self._positive(self._number(after=","), "factor"))
            case _:
                return self._named(name)

    def _named(self, name: str) -> ProbabilityDistribution:
        if name not in _ARITY:
            raise self._error(f"there is no distribution called {name!r}", back=2)
        names = _ARITY[name]
        values = [self._number()]
        while self._peek() == ",":
            values.append(self._number(after=","))
        if len(values) != len(names):
            raise self._error(f"{name} takes {', '.join(names)}: {len(names)} numbers, not {len(values)}")
        first, second = values[0], values[-1]
        match name:
            case "lognormal":
                if second < 0:
                    raise self._error("sigma is negative")
                if first > 18 or second > 5:
                    raise self._error("mu and sigma describe the natural logarithm: e^18 is 66 million")
                return distributions.Lognormal(first, second)
            case "uniform":
                if not 0 <= first <= second:
                    raise self._error(f"uniform needs 0 <= low <= high, not {first:g} and {second:g}")
                return distributions.Uniform(first, second)
            case "exponential":
                return distributions.Exponential(self._positive(first, "mean"))
            case "gamma":
                return distributions.GammaDistribution(self._positive(first, "shape"), self._positive(second, "mean"))
            case "weibull":
                shape = self._positive(first, "shape")
                return distributions.WeibullDistribution(
                    shape, self._positive(second, "mean") / portable_math.gamma_function(1.0 + 1.0 / shape)
                )
            case _:
                return distributions.Pareto(self._positive(first, "alpha"), self._positive(second, "low"))

    def _points(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        points = [(self._number(), self._number(after=":"))]
        while self._peek() == ",":
            points.append((self._number(after=","), self._number(after=":")))
        shares, values = zip(*points, strict=True)
        if shares[0] != 0 or shares[-1] != 1 or list(shares) != sorted(shares) or list(values) != sorted(values):
            raise self._error("quantiles go from 0: to 1:, with shares and values ascending")
        return shares, values

    def _mixture(self) -> ProbabilityDistribution:
        parts = [self._weighted()]
        while self._peek() == ",":
            self._sign(",")
            parts.append(self._weighted())
        total = sum(weight for weight, _ in parts)
        return distributions.Mixture(tuple((weight / total, part) for weight, part in parts))

    def _weighted(self) -> tuple[float, ProbabilityDistribution]:
        weight = self._positive(self._number(), "weight")
        self._sign(":")
        return weight, self.expression()

    def _number(self, after: str = "") -> float:
        if after:
            self._sign(after)
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
            raise self._error("the expression ends too early")
        kind, token, _ = self._tokens[self._at]
        self._at += 1
        return kind, token

    def _error(self, what: str, back: int = 0) -> ValueError:
        at = max(self._at - back, 0)
        column = self._tokens[at][2] if at < len(self._tokens) else len(self._text)
        return ValueError(f"{self._text!r}, column {column + 1}: {what} (a length is {_FORMS})")


def _grid(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Shares (0 to 1) and values of `TRACE.COLUMN`, e.g. `azure_2023_conv.input`; a ValueError names the nearest."""
    content = _grids()
    trace, _, column = name.partition(".")
    values = content["traces"].get(trace, {}).get(column)
    if values is None:
        near = difflib.get_close_matches(name, _grid_names(), n=3, cutoff=0.3)
        raise ValueError(f"there is no quantile grid {name!r} (near it: {', '.join(near) or 'none'})")
    return tuple(content["q"]), tuple(values)


def _grid_names() -> list[str]:
    return [f"{trace}.{column}" for trace, columns in _grids()["traces"].items() for column in columns]


@cache
def _grids() -> dict[str, Any]:
    """Quantile functions of public traces; `data/README.md` has their sources and licences."""
    text = resources.files("tailgate.workloads").joinpath("data/quantiles.json").read_text(encoding="utf-8")
    return cast(dict[str, Any], json.loads(text))


def _check(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is not a length: write {_FORMS}")  # noqa: TRY004
    parse(value)
    # A flag's "32" is a spec's 32: what means the same must hash the same.
    return int(value) if isinstance(value, str) and value.strip().isdigit() else value


Length = Annotated[int | float | str, BeforeValidator(_check)]
"""A pydantic field: an expression of the grammar above, kept as it was written."""


def _check_tokens(value: Any) -> Any:
    checked = _check(value)
    length = parse(checked)
    if isinstance(length, distributions.Fixed) and (length.value < 1 or length.value != int(length.value)):
        raise ValueError(f"{value!r} is not a number of tokens: it must be a whole number of at least 1")
    return checked


Tokens = Annotated[int | float | str, BeforeValidator(_check_tokens)]
"""As `Length`, of a prompt or an answer: a plain number is a whole one of at least 1."""
