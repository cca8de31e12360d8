"""Each objective of an SLO against one run, with its confidence bound: met, broken, or can't tell.

The grammar is `reports.metrics.slo`; comparing runs is `reports.verdicts.gate.verdict`.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np

from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.rate_intervals import rate
from tailgate.reports.metrics.requests import gap_mean_interval, in_time_order, of_gaps, of_series
from tailgate.reports.metrics.slo import HOLDS, RATES, Threshold
from tailgate.reports.stats.order_statistics import (
    LEVEL,
    Quantile,
    effective_size,
    mean_interval,
    quantile,
    tail_bounds,
    thinned_bounds,
)
from tailgate.workloads.common.arrays import Floats, Mask


class Judgement(StrEnum):
    """Whether an objective is met, as stored; a run's verdict (PASS, FAIL, INCONCLUSIVE) follows from them."""

    MET = "met"
    BROKEN = "broken"
    UNDECIDED = "can't tell"


# (value, one-sided lower and upper bound, why there is none)
Estimated = tuple[float | None, float | None, float | None, str]
NO_ARRIVALS: Final = "it can't be worked out: arrivals.parquet or the server's usage is missing"
BY_SHARE: Final = "judged by the share of requests beyond the limit"
AS_MEASURED: Final = "judged as measured: it has no confidence bound"


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
    verdicts = [_judged(analysis, threshold, everyone, overloaded) for threshold in analysis.slo.thresholds]
    for name, slo in analysis.class_slos.items():
        rows = analysis.run.is_text("class", name)
        judged = (_judged(analysis, threshold, rows, overloaded) for threshold in slo.thresholds)
        verdicts += [replace(verdict, scope=f"class {name}") for verdict in judged]
    return verdicts


def _judged(analysis: Analysis, threshold: Threshold, rows: Mask, overloaded: bool) -> Judged:
    value, below, above, why = _estimate(analysis, threshold, rows)
    result, by_share = compare(threshold, below, above), False
    if result == Judgement.UNDECIDED and threshold.percentile is not None:
        result = _by_share(analysis, threshold, rows)
        by_share = result != Judgement.UNDECIDED
    if as_measured := why == AS_MEASURED:
        result = compare(threshold, value, value)
    if value is not None and (below is None or above is None) and not why:
        why = "too few requests for a confidence bound on that side"
    if overloaded and result == Judgement.MET and threshold.metric not in ("errors", "attained", "goodput"):
        result, by_share = Judgement.UNDECIDED, False
        why = "requests in flight grew all along: this figure grows with the run's duration"
    remark = BY_SHARE if by_share else why if result == Judgement.UNDECIDED or as_measured else ""
    return Judged(threshold, value, below, above, result, remark, as_measured=as_measured)


def _by_share(analysis: Analysis, threshold: Threshold, rows: Mask) -> Judgement:
    """A percentile held against its limit by the share of requests beyond that.

    p99 < 800 ms says that less than 1 % take 800 ms or more. This decides where the percentile itself has no
    bound of its own (a wandering series far from its limit), and never against it.
    """
    upper = threshold.op in ("<", "<=")
    if threshold.metric == "itl" or _not_known(analysis, threshold.metric, rows):
        return Judgement.UNDECIDED
    series = _series(analysis, threshold.metric, rows)
    if not len(series):
        return Judgement.UNDECIDED
    # Values that break "<" are those at the limit or above; those that break "<=" are above it.
    low, high = tail_bounds(series, threshold.limit, inclusive=threshold.op in ("<", ">="))
    allowed = 1 - (threshold.percentile or 0.0) / 100
    few, many = high < allowed, low > allowed
    if upper:
        return Judgement.MET if few else Judgement.BROKEN if many else Judgement.UNDECIDED
    return Judgement.MET if many else Judgement.BROKEN if few else Judgement.UNDECIDED


def _series(analysis: Analysis, metric: str, rows: Mask) -> Floats:
    """A figure of all judged requests that have it, in the order in which they began; failures infinitely late."""
    ms = np.where(analysis.failed, np.inf, analysis.figures.ms[metric])
    wanted = rows & ((analysis.run.ok & analysis.run.measured) | analysis.failed)
    return in_time_order(ms, wanted, analysis.figures.order)


def compare(threshold: Threshold, below: float | None, above: float | None) -> Judgement:
    """What one-sided bounds of the true value say of a threshold."""
    best, worst = (below, above) if threshold.op in ("<", "<=") else (above, below)
    holds = HOLDS[threshold.op]
    if worst is not None and holds(worst, threshold.limit):
        return Judgement.MET
    broken = best is not None and not holds(best, threshold.limit)
    return Judgement.BROKEN if broken else Judgement.UNDECIDED


def _estimate(analysis: Analysis, threshold: Threshold, rows: Mask) -> Estimated:
    """(value, lower bound, upper bound, why not) of what a threshold is about."""
    metric = threshold.metric
    match metric:
        case "errors":
            return _share(analysis, threshold, rows, analysis.failed, analysis.failed)
        case "attained":
            return _share(analysis, threshold, rows, analysis.good, analysis.good | analysis.unknown)
        case _ if metric in RATES:
            interval = rate(analysis, metric, rows)
            if interval is None:
                seconds = analysis.run.duration_s
                return None, None, None, NO_ARRIVALS if seconds > 0 else "the measure phase has no length"
            if interval.below is None or interval.above is None:
                return interval.value, None, None, AS_MEASURED
            return interval.value, interval.below, interval.above, ""
        case _:
            if _not_known(analysis, metric, rows):
                return None, None, None, NO_ARRIVALS
            return _latency(analysis, threshold, rows)


def _not_known(analysis: Analysis, metric: str, rows: Mask) -> bool:
    """Whether requests have such a figure and it isn't known."""
    return bool((rows & analysis.run.measured & analysis.not_known(metric)).any())


def _share(analysis: Analysis, threshold: Threshold, rows: Mask, least: Mask, most: Mask) -> Estimated:
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
    share, limit = float(np.mean(sure)), f"{100 * threshold.limit:.4g} %"
    kind = "errors" if threshold.metric == "errors" else "good requests"
    if compare(threshold, share, share) == Judgement.MET:
        why = f"to rule out {limit} {kind}" if threshold.op in ("<", "<=") else f"to be sure of {limit} {kind}"
    else:
        why = f"to be sure that the limit of {limit} is broken"
    return share, low, high, f"{n:,} requests are too few {why}"


def _latency(analysis: Analysis, threshold: Threshold, rows: Mask) -> Estimated:
    q = threshold.percentile
    if threshold.metric == "itl":
        return _gap_lengths(analysis, threshold, rows)
    series = _series(analysis, threshold.metric, rows)
    if not len(series):
        return None, None, None, "no request has this figure"
    if q is not None:
        n_eff = of_series(series, (q,)).quantiles[0].n_eff
        return _of_percentile(quantile(np.sort(series), q, n_eff))
    if threshold.statistic == "mean":
        mean = float(series.mean())
        return (mean, mean, mean, "") if math.isinf(mean) else _of_mean(mean, mean_interval(series, 2 * LEVEL - 1))
    return float(series.max() if threshold.statistic == "max" else series.min()), None, None, AS_MEASURED


def _gap_lengths(analysis: Analysis, threshold: Threshold, rows: Mask) -> Estimated:
    q, order = threshold.percentile, analysis.figures.order
    whole = bool(rows.all())
    sample = analysis.scan.sample if whole else analysis.scan.sample.of(rows)
    gaps = of_gaps(analysis.scan.gaps if whole else sample.pooled(), sample, order, () if q is None else (q,))
    if not gaps.n or gaps.mean is None:
        return None, None, None, "no gaps between tokens"
    if q is not None:
        return _of_percentile(gaps.quantiles[0])
    if threshold.statistic == "mean":
        return _of_mean(gaps.mean, gap_mean_interval(sample, order, gaps.mean, 2 * LEVEL - 1))
    return gaps.most if threshold.statistic == "max" else gaps.least, None, None, AS_MEASURED


def _of_mean(mean: float, bounds: tuple[float, float] | None) -> Estimated:
    return (mean, *bounds, "") if bounds else (mean, None, None, "a mean needs 10 requests")


def _of_percentile(percentile: Quantile) -> Estimated:
    why = (
        f"this percentile needs {percentile.needs:,} requests, there are {percentile.n:,}"
        if percentile.value is None
        else ""
    )
    return percentile.value, percentile.below, percentile.above, why
