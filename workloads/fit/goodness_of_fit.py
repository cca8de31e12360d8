"""Figures of a fit with their 95 % intervals, and the same figures of the log and of plans drawn from the fit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.config.workload import WorkloadSpec
from tailgate.workloads.plan.plan import make_plan
from tailgate.workloads.statistics.arrivals import dispersion, gap_cv, ks_distance, spearman
from tailgate.workloads.statistics.prefix_reuse import implied_reuse
from tailgate.workloads.table.columns import NO_TIME, Columns

Z95: Final = 1.959963984540054
_SEEDS: Final = 10
_FEW_SEEDS: Final = 3
_MANY_ROWS: Final = 100_000
_WINDOWS: Final = (1.0, 10.0, 60.0)
_TICKS_A_WINDOW: Final = 5.0
_TICKS_A_GAP: Final = 20.0
_TOLERANCE: Final = 0.1
_MOST: Final = 0.5
# The log is one sample of what the fit draws: t(9)'s 97.5 % quantile times sqrt(1 + 1/10).
_SPREADS: Final = 2.4


@dataclass(frozen=True)
class FittedValue:
    """A figure with the ends of its two-sided 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        return bool(np.isfinite(self.high))

    def as_dict(self) -> dict[str, float]:
        """The value and its interval for JSON and YAML, rounded to six significant digits."""
        return {key: float(f"{getattr(self, key):.6g}") for key in ("value", "low", "high")}


def log_normal(log_value: float, log_error: float, freedom: float | None = None) -> FittedValue:
    """A value whose logarithm is about normal with the given standard error (with `freedom`: Student's t)."""
    from scipy.stats import t

    spread = (Z95 if freedom is None else float(t.ppf(0.975, freedom))) * log_error
    return FittedValue(float(np.exp(log_value)), float(np.exp(log_value - spread)), float(np.exp(log_value + spread)))


def point(value: float) -> FittedValue:
    """A value whose interval can't be given."""
    return FittedValue(value, 0.0, float("inf"))


def quantile(values: npt.NDArray[Any], share: float) -> FittedValue | None:
    """A quantile with its interval from order statistics (binomial, no law assumed); None where n is too small."""
    from scipy.stats import binom

    ordered, n = np.sort(values), len(values)
    low, high = int(binom.ppf(0.025, n, share)), int(binom.ppf(0.975, n, share)) + 1
    if low < 1 or high > n:
        return None
    value = float(ordered[min(int(np.ceil(share * n)), n) - 1])
    return FittedValue(value, float(ordered[low - 1]), float(ordered[high - 1]))


@dataclass(frozen=True)
class FitCheck:
    """A figure of the log beside the same figure of what the fit draws (mean of 10 seeds).

    `allowed` is how far apart they may be: a tenth, or as far as one draw is from the next, but no more than half.
    """

    name: str
    log: float
    fit: float
    allowed: float

    @property
    def error(self) -> float:
        """The difference relative to the log's figure, or absolute where that is 0."""
        return self.fit / self.log - 1.0 if self.log else self.fit

    @property
    def ok(self) -> bool:
        return abs(self.fit - self.log) <= self.allowed


def checks(columns: Columns, workload: dict[str, Any], block_tokens: int, tick_s: float) -> list[FitCheck]:
    """Figures of the log beside those of plans drawn from the fit over the same span.

    Figures of arrivals finer than the log's stamps are left out.
    """
    timed = np.sort(columns.at_ns[columns.at_ns != NO_TIME]) / 1e9
    span = span_s(timed)
    drawn = draw(columns, workload, span)
    results: list[FitCheck | None] = []
    if "arrivals" in workload:
        times = [np.sort(table["at_ns"].drop_null().to_numpy()) / 1e9 for table in drawn]
        log = timed - timed[0]

        def arrivals(name: str, figure: Callable[[Floats], float | None]) -> None:
            results.append(_check(name, figure(log), [figure(times_s) for times_s in times]))

        arrivals("requests per second", lambda times_s: len(times_s) / span)
        if span / len(log) >= _TICKS_A_GAP * tick_s:
            arrivals("variation of gaps", gap_cv)
        for window in _WINDOWS:
            if window >= _TICKS_A_WINDOW * tick_s:
                arrivals(f"dispersion at {window:g} s", lambda times_s, w=window: dispersion(times_s, w, span).value)  # type: ignore[misc]
    for name in ("prompt_tokens", "output_tokens"):
        values = getattr(columns, name)
        distance = float(np.mean([ks_distance(table[name].to_numpy(), values) for table in drawn]))
        # Two samples of one law are 1.36 sqrt(2/n) apart in one case of twenty.
        allowed = 0.02 + 1.36 * float(np.sqrt(2.0 / len(values)))
        results.append(FitCheck(f"KS distance of {name}", 0.0, distance, allowed))
    rho = spearman(columns.prompt_tokens, columns.output_tokens)
    rhos = [spearman(table["prompt_tokens"].to_numpy(), table["output_tokens"].to_numpy()) for table in drawn]
    results.append(_check("rank correlation", rho, rhos, least=0.05))
    if columns.prefix_blocks is not None:
        shares = [implied_reuse(table, block_tokens).token_share for table in drawn]
        results.append(_check("prompt tokens seen before", reuse_of(columns, block_tokens), shares, least=0.02))
    return [check for check in results if check is not None]


def reuse_of(columns: Columns, block_tokens: int) -> float:
    """The share of a log's prompt tokens that an earlier prompt began with."""
    log = pa.table({"prompt_tokens": columns.prompt_tokens, "prefix_blocks": columns.prefix_blocks})
    return implied_reuse(log, block_tokens).token_share


def draw(columns: Columns, workload: dict[str, Any], span: float, seeds: int = _SEEDS) -> list[pa.Table]:
    """Plans of the workload that are as long as the log; fewer of them where the log has many rows."""
    spec = dict(workload)
    if "arrivals" in workload:
        spec["duration"] = span
    else:
        spec.pop("duration", None)
        spec["requests"] = len(columns)
    wanted = range(seeds if len(columns) <= _MANY_ROWS else min(seeds, _FEW_SEEDS))
    return [make_plan(WorkloadSpec.model_validate(spec), seed).table for seed in wanted]


def span_s(times_s: Floats) -> float:
    """The time from a log's first to its last arrival, and one mean gap more."""
    if len(times_s) < 2:
        return 0.0
    return float((times_s[-1] - times_s[0]) * len(times_s) / (len(times_s) - 1))


def _check(name: str, log: float | None, drawn: Sequence[float | None], least: float = 0.0) -> FitCheck | None:
    values = [value for value in drawn if value is not None]
    if log is None or not values:
        return None
    spread = _SPREADS * float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return FitCheck(name, log, float(np.mean(values)), max(_TOLERANCE * abs(log), min(spread, _MOST * abs(log)), least))
