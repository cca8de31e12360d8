"""Service level objectives: the grammar of their strings, parsed once; errors point into the string.

    ttft: p99 < 800ms          a percentile, mean or max of a latency figure
    errors: < 0.1%             share of requests that did not end ok
    good: ttft < 800ms and tpot < 60ms and stall < 1s        what makes one request good
    attained: ">= 99%"         share of good requests among all scheduled
    output_tokens_per_s: "> 1000/s"       also requests_per_s, total_tokens_per_s, goodput

Whether a run meets them is `reports.summary.objectives`; this module knows no data.
"""

import difflib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tailgate.reports.metrics import catalogue
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.formatting import plain

LATENCIES: Final = catalogue.keys(metric for metric in catalogue.LATENCIES if metric.objective)
SHARES: Final = catalogue.keys(catalogue.SHARES)
RATES: Final = catalogue.keys(catalogue.RATES)
TOKEN_RATES: Final = ("input_tokens_per_s", "output_tokens_per_s", "total_tokens_per_s")
# What `good:` may name: pooled gaps between tokens have no value of one request.
OF_ONE_REQUEST: Final = catalogue.keys(m for m in catalogue.LATENCIES if m.objective and m.per_request)

# Of numbers and of arrays; nothing holds of NaN.
HOLDS: Final[dict[str, Callable[[Any, float], Any]]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_MS: Final = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4, "min": 6e4}
_TOKEN: Final = re.compile(r"\s*(?:(<=|>=|<|>)|([A-Za-z_][A-Za-z_0-9.]*)|(\d+(?:\.\d+)?|\.\d+)([a-zµ%]+|/s)?)")


@dataclass(frozen=True)
class Threshold:
    """One objective on a whole run, e.g. `ttft: p99 < 800ms`."""

    metric: str  # a name of LATENCIES, SHARES or RATES
    statistic: str  # `p99`, `mean`, `max`, ...; empty for shares and rates
    op: str  # `<`, `<=`, `>` or `>=`
    limit: float  # in ms, as a fraction, or per second
    text: str  # as it was written

    @property
    def demand(self) -> str:
        """What it demands, without the metric's name: `p99 < 800ms`."""
        return self.text.partition(": ")[2]

    @property
    def percentile(self) -> float | None:
        """99.9 of `p99.9`; None if the statistic is no percentile."""
        return float(self.statistic[1:]) if re.fullmatch(r"p\d.*", self.statistic) else None


@dataclass(frozen=True)
class Condition:
    """One condition on one request, e.g. `tpot < 60ms` (limit in ms)."""

    metric: str
    op: str
    limit: float

    @property
    def demand(self) -> str:
        return f"{self.op} {plain(self.limit)} ms"


@dataclass(frozen=True)
class Slo:
    """All objectives of a run. `good` is what one request must meet besides ending ok."""

    thresholds: tuple[Threshold, ...] = ()
    good: tuple[Condition, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.thresholds)

    def limits(self) -> list[tuple[str, float]]:
        return [(t.metric, t.limit) for t in self.thresholds if t.metric in LATENCIES] + [
            (c.metric, c.limit) for c in self.good
        ]

    @property
    def ttft_limit_ms(self) -> float | None:
        limits = [t.limit for t in self.thresholds if t.metric == "ttft"]
        limits += [c.limit for c in self.good if c.metric == "ttft"]
        return min(limits, default=None)


class _Cursor:
    """Reads tokens off one string and knows where it is, so that errors can point."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where, self.at = text, where, 0

    def fail(self, what: str, remedy: str, at: int | None = None) -> UserError:
        at = self.at if at is None else at
        at += len(self.text[at:]) - len(self.text[at:].lstrip())
        return UserError(f"{what}. {remedy}\n    {self.text}\n    {' ' * at}^", where=self.where)

    def next(self, kind: int) -> str | None:
        """The next token if it is of `kind` (1 operator, 2 word, 3 number with its unit)."""
        match = _TOKEN.match(self.text, self.at)
        if match is None or match.group(kind) is None:
            return None
        self.at = match.end()
        return match.group(kind) + ((match.group(4) or "") if kind == 3 else "")

    @property
    def done(self) -> bool:
        return not self.text[self.at :].strip()


def parse(spec: Mapping[str, Any] | Sequence[str] | str | None, where: str = "slo") -> Slo:
    """Parse the `slo:` of a spec (a mapping), or the lines of `--slo` flags.

    Raises:
        UserError: an unknown figure or a malformed string; the message points to the place.
    """
    pairs = [split_line(line, where) for line in _lines(spec)] if not isinstance(spec, Mapping) else [*spec.items()]
    thresholds: list[Threshold] = []
    good: list[Condition] = []
    for key, value in pairs:
        _check_name(key, where)
        for text in value if isinstance(value, list | tuple) else [value]:
            cursor = _Cursor(str(text), f"{where}.{key}")
            if key == "good":
                good += _conditions(cursor)
            else:
                thresholds += _thresholds(key, cursor)
    return Slo(tuple(thresholds), tuple(good) or _implied(thresholds))


def _lines(spec: Sequence[str] | str | None) -> Sequence[str]:
    return [spec] if isinstance(spec, str) else spec or []


def split_line(line: str, where: str = "slo") -> tuple[str, str]:
    key, colon, value = line.partition(":")
    if not colon:
        raise UserError(
            f"expected 'figure: condition', found {line!r}", where=where, remedy="For example 'ttft: p99 < 800ms'."
        )
    return key.strip(), value.strip()


def _check_name(key: str, where: str) -> None:
    names = [*LATENCIES, *SHARES, *RATES, "good"]
    if key not in names:
        near = difflib.get_close_matches(key, names, 1)
        remedy = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(names)}."
        raise UserError(f"unknown figure {key!r}", where=where, remedy=remedy)


def _implied(thresholds: Sequence[Threshold]) -> tuple[Condition, ...]:
    """Without `good:` the limits of the percentile thresholds on per-request figures serve.

    Of several on one figure the highest percentile's: half the requests may miss the limit of a p50.
    """
    by_metric: dict[str, Threshold] = {}
    for threshold in sorted(thresholds, key=lambda t: t.percentile or 0.0):
        if threshold.metric in OF_ONE_REQUEST and threshold.percentile and threshold.op in ("<", "<="):
            by_metric[threshold.metric] = threshold
    return tuple(Condition(t.metric, t.op, t.limit) for t in by_metric.values())


def _thresholds(metric: str, cursor: _Cursor) -> list[Threshold]:
    thresholds = []
    while True:
        begin, statistic = cursor.at, ""
        if metric in LATENCIES:
            statistic = _statistic(cursor)
        op = cursor.next(1)
        if op is None:
            raise cursor.fail("expected <, <=, > or >=", "For example 'p99 < 800ms' or '< 0.1%'.")
        limit = _limit(metric, cursor)
        text = cursor.text[begin : cursor.at].strip()
        thresholds.append(Threshold(metric, statistic, op, limit, f"{metric}: {text}"))
        if not _more(cursor):
            return thresholds


def _statistic(cursor: _Cursor) -> str:
    at = cursor.at
    word = cursor.next(2)
    if word in ("mean", "max", "min"):
        return str(word)
    if word == "median":
        return "p50"
    if word and (match := re.fullmatch(r"p(\d{1,2}(?:\.\d+)?)", word)) and 0 < float(match.group(1)) < 100:
        return word
    raise cursor.fail("expected a statistic", "One of p50, p90, p95, p99, p99.9 (any percentile), mean, max.", at)


def _limit(metric: str, cursor: _Cursor) -> float:
    at = cursor.at
    number = cursor.next(3)
    if number is None:
        raise cursor.fail("expected a number", "For example 800ms, 1.5s or 0.1%.", at)
    match = re.match(r"[\d.]+", number)
    assert match is not None
    value, unit = float(match.group()), number[match.end() :]
    if metric in LATENCIES:
        if unit not in _MS:
            raise cursor.fail("a latency needs a unit", "One of us, ms, s, m.", at)
        return value * _MS[unit]
    if metric in SHARES:
        if unit not in ("%", "") or value > (100 if unit == "%" else 1):
            raise cursor.fail("a share is a percentage, or a fraction up to 1", "For example 0.1% or 0.001.", at)
        return value / 100 if unit == "%" else value
    if unit not in ("/s", ""):
        raise cursor.fail("a rate is per second", "For example 1000/s.", at)
    return value


def _conditions(cursor: _Cursor) -> list[Condition]:
    conditions = []
    while True:
        at = cursor.at
        metric = cursor.next(2)
        if metric not in OF_ONE_REQUEST:
            why = "itl is pooled over requests: one request has none" if metric == "itl" else "unknown figure"
            raise cursor.fail(why, f"Figures of one request: {', '.join(OF_ONE_REQUEST)}.", at)
        op = cursor.next(1)
        if op is None:
            raise cursor.fail("expected <, <=, > or >=", "For example 'ttft < 800ms'.")
        conditions.append(Condition(metric, op, _limit(metric, cursor)))
        if not _more(cursor):
            return conditions


def _more(cursor: _Cursor) -> bool:
    """Whether `and` follows; anything else after a condition is an error."""
    if cursor.done:
        return False
    at = cursor.at
    if cursor.next(2) != "and":
        raise cursor.fail("expected 'and' or the end", "Join conditions with 'and'.", at)
    return True
