"""Latencies as they stand in a summary: percentiles, their intervals, and the client's own error of them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tailgate.reports.metrics.requests import LatencyDistribution
from tailgate.reports.rundir.json_files import from_json, jsonable
from tailgate.reports.stats.order_statistics import Quantile

# Requests that each percentile which is None would need, by name (`p99`), by latency.
Needs = dict[str, dict[str, int]]
Interval = tuple[float | None, float | None]


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of one latency by name (`p99`), None where the sample is too small, with 95 % intervals."""

    percentiles: dict[str, float | None]
    intervals: dict[str, Interval | None]

    @staticmethod
    def by_name(quantiles: tuple[Quantile, ...]) -> dict[str, Any]:
        ends = {f"p{q.q:g}": None if q.value is None else (q.low, q.high) for q in quantiles}
        return {"percentiles": {f"p{q.q:g}": q.value for q in quantiles}, "intervals": ends}

    @staticmethod
    def from_flat(data: Mapping[str, Any]) -> dict[str, Any]:
        names = [name for name in data if re.fullmatch(r"p\d+(\.\d+)?", name)]
        ends = {name: from_json(Interval | None, data.get(f"{name}_ci")) for name in names}
        return {"percentiles": {name: from_json(float | None, data[name]) for name in names}, "intervals": ends}

    def to_json(self) -> dict[str, Any]:
        """One level: `p99` and `p99_ci`."""
        return dict(jsonable(self.percentiles | {f"{name}_ci": ends for name, ends in self.intervals.items()}))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Percentiles":
        return cls(**cls.from_flat(data))


@dataclass(frozen=True)
class LatencySummary(Percentiles):
    """One latency over some requests; `n_eff` is how many independent requests would know as much.

    `errors`: by statistic (`mean`, `p99`) the least and the most that the client's own error leaves possible; empty
    where the records don't tell it.
    """

    n: int
    mean: float | None
    min: float | None
    max: float | None
    mean_ci: Interval | None
    n_eff: dict[str, float]
    errors: dict[str, Interval] = field(default_factory=dict)

    @classmethod
    def of(cls, values: LatencyDistribution) -> "LatencySummary":
        n_eff = {f"p{quantile.q:g}": round(quantile.n_eff, 1) for quantile in values.quantiles}
        by_name = cls.by_name(values.quantiles)
        return cls(**by_name, n=values.n, mean=values.mean, min=values.least, max=values.most,
                   mean_ci=values.mean_ci, n_eff=n_eff, errors=dict(values.errors))  # fmt: skip

    def statistic(self, name: str) -> float | None:
        """`mean`, `min`, `max` or a percentile such as `p99`; None where it is not known."""
        return getattr(self, name) if name in ("mean", "min", "max") else self.percentiles.get(name)

    def interval(self, name: str) -> Interval | None:
        """The 95 % interval of `mean` or of a percentile; None where there is none."""
        return self.mean_ci if name == "mean" else self.intervals.get(name)

    def to_json(self) -> dict[str, Any]:
        """One level: `mean`, `p99`, `p99_ci`, ..."""
        whole = {"n": self.n, "mean": self.mean, "min": self.min, **self.percentiles, "max": self.max}
        intervals = {f"{name}_ci": ends for name, ends in self.intervals.items()}
        errors = {f"{name}_error": ends for name, ends in self.errors.items()}
        return dict(jsonable({**whole, "mean_ci": self.mean_ci, **intervals, **errors, "n_eff": self.n_eff}))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "LatencySummary":
        ends = {name: from_json(float | None, data.get(name)) for name in ("mean", "min", "max")}
        mean_ci = from_json(Interval | None, data.get("mean_ci"))
        errors = {
            name.removesuffix("_error"): from_json(Interval, value)
            for name, value in data.items()
            if name.endswith("_error")
        }
        n_eff = data.get("n_eff") or {}
        return cls(**cls.from_flat(data), n=data["n"], **ends, mean_ci=mean_ci, n_eff=n_eff, errors=errors)


def short_of(latencies: Mapping[str, tuple[Quantile, ...]]) -> Needs:
    """How many requests each percentile that isn't known needs."""
    needs = {name: {f"p{q.q:g}": q.needs for q in qs if q.value is None} for name, qs in latencies.items()}
    return {name: missing for name, missing in needs.items() if missing}


def latencies(distributions: Mapping[str, LatencyDistribution]) -> dict[str, LatencySummary]:
    """Each distribution's summary."""
    return {name: LatencySummary.of(values) for name, values in distributions.items()}
