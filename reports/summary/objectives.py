"""Each objective of an SLO against one run, with its confidence bound: met, broken, or can't tell.

The grammar is `reports.metrics.slo`; comparing runs is `reports.verdicts.gate.verdict`.
"""

import math
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.rate_intervals import rate
from tailgate.reports.metrics.requests import gap_mean_interval, of_gaps, of_series
from tailgate.reports.metrics.slo import RATES, Threshold
from tailgate.reports.stats.order_statistics import (
    LEVEL,
    effective_size,
    mean_interval,
    quantile,
    tail_bounds,
    thinned_bounds,
)
from tailgate.workloads.common.arrays import Floats, Mask

Judgement = Literal["met", "broken", "can't tell"]
# (value, one-sided lower and upper bound, why there is none)
Estimated = tuple[float | None, float | None, float | None, str]
NO_ARRIVALS: Final = "what it is made of is not known: arrivals.parquet or usage is missing"
BY_SHARE: Final = "told by the share of requests beyond the limit"
AS_MEASURED: Final = "no bound can be given for it: judged as measured"


@dataclass(frozen=True)
class Judged:
    """One objective judged. `below` and `above` are one-sided 95 % bounds of the true value.

    Of what has no bound by its nature (a largest value) both are None, `as_measured` is true, and the value
    itself was held against the limit.
    """

    threshold: Threshold
    value: float | None
    below: float | None
    above: float | None
    result: Judgement
    why: str  # empty where the bounds say it all
    scope: str = ""  # `class NAME` where it concerns one class only
    as_measured: bool = False


def judge(analysis: Analysis, overloaded: bool) -> list[Judged]:
    """Judge every objective of the run's SLO.

    Latencies count failures as infinitely late. In an overloaded run they grow with its duration, so that
    such an objective can be broken but not met.
    """
    everyone = np.ones(len(analysis.run), np.bool_)
    found = [_judged(analysis, threshold, everyone, overloaded) for threshold in analysis.slo.thresholds]
    for name, slo in analysis.class_slos.items():
        rows = analysis.run.is_text("class", name)
        judged = (_judged(analysis, threshold, rows, overloaded) for threshold in slo.thresholds)
        found += [replace(one, scope=f"class {name}") for one in judged]
    return found


def _judged(analysis: Analysis, threshold: Threshold, rows: Mask, overloaded: bool) -> Judged:
    value, below, above, why = _estimate(analysis, threshold, rows)
    result, by_share = compare(threshold, below, above), False
    if result == "can't tell" and threshold.percentile is not None:
        result = _by_share(analysis, threshold, rows)
        by_share = result != "can't tell"
    if as_measured := why == AS_MEASURED:
        result = compare(threshold, value, value)
    if value is not None and (below is None or above is None) and not why:
        why = "the sample is too small for a bound on that side"
    if overloaded and result == "met" and threshold.metric not in ("errors", "attained", "goodput"):
        result, by_share = "can't tell", False
        why = "requests in flight grew all along: this figure grows with the run's duration"
    told = BY_SHARE if by_share else why if result == "can't tell" or as_measured else ""
    return Judged(threshold, value, below, above, result, told, as_measured=as_measured)


def _by_share(analysis: Analysis, threshold: Threshold, rows: Mask) -> Judgement:
    """A percentile held against its limit by the share of requests beyond that.

    p99 < 800 ms says that less than 1 % take 800 ms or more. This decides where the percentile itself has no
    bound of its own (a wandering series far from its limit), and never against it.
    """
    upper = threshold.op in ("<", "<=")
    if threshold.metric == "itl" or _not_known(analysis, threshold.metric, rows):
        return "can't tell"
    series = _series(analysis, threshold.metric, rows)
    if not len(series):
        return "can't tell"
    # Values that break "<" are those at the limit or above; those that break "<=" are above it.
    low, high = tail_bounds(series, threshold.limit, inclusive=threshold.op in ("<", ">="))
    allowed = 1 - (threshold.percentile or 0.0) / 100
    few, many = high < allowed, low > allowed
    if upper:
        return "met" if few else "broken" if many else "can't tell"
    return "met" if many else "broken" if few else "can't tell"


def _series(analysis: Analysis, metric: str, rows: Mask) -> Floats:
    """A figure of all judged requests that have it, in the order in which they began; failures infinitely late."""
    ms = np.where(analysis.failed, np.inf, analysis.figures.ms[metric])
    wanted = rows & ((analysis.run.ok & analysis.run.measured) | analysis.failed)
    order = analysis.figures.order
    series = ms[order][wanted[order]]
    return series[~np.isnan(series)]


def compare(threshold: Threshold, below: float | None, above: float | None) -> Judgement:
    """What one-sided bounds of the true value say of a threshold."""
    limit = threshold.limit
    met = broken = False
    match threshold.op:
        case "<":
            met, broken = above is not None and above < limit, below is not None and below >= limit
        case "<=":
            met, broken = above is not None and above <= limit, below is not None and below > limit
        case ">":
            met, broken = below is not None and below > limit, above is not None and above <= limit
        case ">=":
            met, broken = below is not None and below >= limit, above is not None and above < limit
    return "met" if met else "broken" if broken else "can't tell"


def _estimate(analysis: Analysis, threshold: Threshold, rows: Mask) -> Estimated:
    """(value, lower bound, upper bound, why not) of what a threshold is about."""
    metric = threshold.metric
    match metric:
        case "errors":
            return _share(analysis, rows, analysis.failed, analysis.failed)
        case "attained":
            return _share(analysis, rows, analysis.good, analysis.good | analysis.unknown)
        case _ if metric in RATES:
            found = rate(analysis, metric, rows)
            if found is None:
                seconds = analysis.run.duration_s
                return None, None, None, NO_ARRIVALS if seconds > 0 else "the measure phase has no length"
            if found.below is None or found.above is None:
                return found.value, None, None, AS_MEASURED
            return found.value, found.below, found.above, ""
        case _:
            if _not_known(analysis, metric, rows):
                return None, None, None, NO_ARRIVALS
            return _latency(analysis, threshold, rows)


def _not_known(analysis: Analysis, metric: str, rows: Mask) -> bool:
    """Whether requests have such a figure and it isn't known."""
    return bool((rows & analysis.run.measured & analysis.not_known(metric)).any())


def _share(analysis: Analysis, rows: Mask, least: Mask, most: Mask) -> Estimated:
    """Share of judged requests; `least` surely count, `most` at best. Bursts count for less than their size."""
    order = analysis.figures.order
    judged = (rows & analysis.judged)[order]
    n = int(np.count_nonzero(judged))
    if n == 0:
        return None, None, None, "nothing was offered in the measure phase"
    sure, possible = least[order][judged], most[order][judged]
    low, _ = thinned_bounds(sure, effective_size(sure.astype(np.float64)))
    _, high = thinned_bounds(possible, effective_size(possible.astype(np.float64)))
    if not np.array_equal(sure, possible):
        return None, low, high, NO_ARRIVALS
    return float(np.mean(sure)), low, high, f"{n} requests can't tell it from the limit"


def _latency(analysis: Analysis, threshold: Threshold, rows: Mask) -> Estimated:
    q = threshold.percentile
    if threshold.metric == "itl":
        whole = bool(rows.all())
        sample = analysis.scan.sample if whole else analysis.scan.sample.of(rows)
        gaps = analysis.scan.gaps if whole else sample.pooled()
        found = of_gaps(gaps, sample, analysis.figures.order, (q,) if q is not None else ())
        if q is not None and found.n:
            one = found.quantiles[0]
            return one.value, one.below, one.above, _needs(one.value, one.needs, found.n)
        if not found.n or found.mean is None:
            return None, None, None, "no gaps between tokens"
        if threshold.statistic == "mean":
            bounds = gap_mean_interval(sample, analysis.figures.order, found.mean, 2 * LEVEL - 1)
            return (found.mean, *bounds, "") if bounds else (found.mean, None, None, "a mean needs 10 requests")
        return found.most if threshold.statistic == "max" else found.least, None, None, AS_MEASURED
    series = _series(analysis, threshold.metric, rows)
    if not len(series):
        return None, None, None, "no request has this figure"
    if q is not None:
        n_eff = of_series(series, (q,)).quantiles[0].n_eff
        one = quantile(np.sort(series), q, n_eff)
        return one.value, one.below, one.above, _needs(one.value, one.needs, one.n)
    if threshold.statistic == "mean":
        bounds = mean_interval(series, 2 * LEVEL - 1)
        mean = float(series.mean())
        if math.isinf(mean):
            return mean, mean, mean, ""
        return (mean, *bounds, "") if bounds else (mean, None, None, "a mean needs 10 requests")
    extreme = float(series.max() if threshold.statistic == "max" else series.min())
    return extreme, None, None, AS_MEASURED


def _needs(value: float | None, needs: int, n: int) -> str:
    return f"this percentile needs {needs:,} requests, there are {n:,}" if value is None else ""
