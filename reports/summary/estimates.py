"""What a threshold is about, estimated from one run: a value with its one-sided bounds, or why there is none.

At one end of the client's own error, or as best estimated. What follows for the threshold is
`reports.summary.objectives`.
"""

import math
from typing import Final

import numpy as np

from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.arrivals import Gaps, GapSample
from tailgate.reports.metrics.rate_intervals import rate
from tailgate.reports.metrics.requests import Side, gap_mean_interval, in_time_order, of_gaps, of_series
from tailgate.reports.metrics.slo import HOLDS, RATES, TOKEN_RATES, Threshold
from tailgate.reports.metrics.throughput import why_estimated
from tailgate.reports.stats.order_statistics import (
    LEVEL,
    Quantile,
    effective_size,
    mean_interval,
    quantile,
    thinned_bounds,
)
from tailgate.reports.summary.objective_model import Judgement
from tailgate.workloads.common.arrays import Floats, Mask

# (value, one-sided lower and upper bound, why there is none)
Estimated = tuple[float | None, float | None, float | None, str]
NO_ARRIVALS: Final = "of {:,} of {:,} requests it isn't known: arrivals.parquet or the server's usage is missing"
AS_MEASURED: Final = "judged as measured: it has no confidence bound"


def compare(threshold: Threshold, below: float | None, above: float | None) -> Judgement:
    """What one-sided bounds of the true value say of a threshold."""
    best, worst = (below, above) if threshold.op in ("<", "<=") else (above, below)
    holds = HOLDS[threshold.op]
    if worst is not None and holds(worst, threshold.limit):
        return Judgement.MET
    broken = best is not None and not holds(best, threshold.limit)
    return Judgement.BROKEN if broken else Judgement.UNDECIDED


def estimate(analysis: Analysis, threshold: Threshold, rows: Mask, side: Side = "best") -> Estimated:
    """(value, lower bound, upper bound, why not) of what a threshold is about, at one end of the client's own error."""
    metric = threshold.metric
    match metric:
        case "errors":
            return _share(analysis, threshold, rows, analysis.failed, analysis.failed)
        case "attained":
            if side == "best":
                return _share(analysis, threshold, rows, analysis.good, analysis.good | analysis.unknown)
            good = analysis.good_of(side)
            return _share(analysis, threshold, rows, good, good)
        case _ if metric in RATES:
            interval = rate(analysis, metric, rows, side)
            if interval is None and analysis.run.duration_s <= 0:
                return None, None, None, "the measure phase has no length"
            if interval is None:
                unknown = analysis.unknown if metric == "goodput" else analysis.not_known(metric)
                return None, None, None, _no_arrivals(analysis, unknown, rows)
            if metric in TOKEN_RATES and (why := _why_estimated(analysis, metric, rows)):
                return interval.value, None, None, why
            if interval.below is None or interval.above is None:
                return interval.value, None, None, AS_MEASURED
            return interval.value, interval.below, interval.above, ""
        case _:
            if not_known(analysis, metric, rows):
                return None, None, None, _no_arrivals(analysis, analysis.not_known(metric), rows)
            return _latency(analysis, threshold, rows, side)


def _why_estimated(analysis: Analysis, metric: str, rows: Mask) -> str:
    output, prompt = metric != "input_tokens_per_s", metric != "output_tokens_per_s"
    return why_estimated(analysis.run, analysis.scan, rows, prompts=prompt, outputs=output)


def not_known(analysis: Analysis, metric: str, rows: Mask) -> bool:
    """Whether requests have such a figure and it isn't known."""
    return bool((rows & analysis.run.measured & analysis.not_known(metric)).any())


def _no_arrivals(analysis: Analysis, unknown: Mask, rows: Mask) -> str:
    measured = rows & analysis.run.measured
    return NO_ARRIVALS.format(int(np.count_nonzero(measured & unknown)), int(np.count_nonzero(measured)))


def _share(analysis: Analysis, threshold: Threshold, rows: Mask, least: Mask, most: Mask) -> Estimated:
    """Share of judged requests; `least` surely count, `most` at best. Bursts count for less than their size."""
    order = analysis.figures.order
    judged = (rows & analysis.judged)[order]
    n = int(np.count_nonzero(judged))
    if n == 0:
        return None, None, None, "no request was offered in the measure phase"
    sure, possible = least[order][judged], most[order][judged]
    low, _ = thinned_bounds(sure, effective_size(sure.astype(np.float64)))
    _, high = thinned_bounds(possible, effective_size(possible.astype(np.float64)))
    if not np.array_equal(sure, possible):
        return None, low, high, NO_ARRIVALS.format(int(np.count_nonzero(possible & ~sure)), n)
    share, limit = float(np.mean(sure)), f"{100 * threshold.limit:.4g} %"
    kind = "errors" if threshold.metric == "errors" else "good requests"
    if compare(threshold, share, share) == Judgement.MET:
        why = f"to rule out {limit} {kind}" if threshold.op in ("<", "<=") else f"to be sure of {limit} {kind}"
    else:
        why = f"to be sure that the limit of {limit} is broken"
    return share, low, high, f"{n:,} requests are too few {why}"


def _latency(analysis: Analysis, threshold: Threshold, rows: Mask, side: Side) -> Estimated:
    q = threshold.percentile
    if threshold.metric == "itl":
        return _gap_lengths(analysis, threshold, rows, side)
    series = series_of(analysis, threshold.metric, rows, side)
    if not len(series):
        return None, None, None, f"none of the {_counted(analysis, rows)} has this figure"
    if q is not None:
        n_eff = of_series(series, (q,)).quantiles[0].n_eff
        return _of_percentile(quantile(np.sort(series), q, n_eff))
    if threshold.statistic == "mean":
        mean = float(series.mean())
        return (
            (mean, mean, mean, "")
            if math.isinf(mean)
            else _of_mean(mean, mean_interval(series, 2 * LEVEL - 1), len(series))
        )
    return float(series.max() if threshold.statistic == "max" else series.min()), None, None, AS_MEASURED


def gaps_of(analysis: Analysis, rows: Mask, side: Side) -> tuple[Gaps, GapSample]:
    """The pooled gaps of some rows, and the sample that knows which request each is of."""
    scan, whole = analysis.scan, bool(rows.all())
    sample = scan.sample if whole else scan.sample.of(rows)
    best, low, high = (scan.gaps, scan.gaps_low, scan.gaps_high) if whole else sample.pooled()
    return {"best": best, "low": low, "high": high}[side], sample


def _gap_lengths(analysis: Analysis, threshold: Threshold, rows: Mask, side: Side) -> Estimated:
    q, order = threshold.percentile, analysis.figures.order
    pooled, sample = gaps_of(analysis, rows, side)
    gaps = of_gaps(pooled, sample, order, () if q is None else (q,))
    if not gaps.n or gaps.mean is None:
        return None, None, None, f"none of the {_counted(analysis, rows)} has gaps between its tokens"
    if q is not None:
        return _of_percentile(gaps.quantiles[0])
    if threshold.statistic == "mean":
        return _of_mean(gaps.mean, gap_mean_interval(sample, order, gaps.mean, 2 * LEVEL - 1), gaps.n)
    return gaps.most if threshold.statistic == "max" else gaps.least, None, None, AS_MEASURED


def _counted(analysis: Analysis, rows: Mask) -> str:
    return f"{int(np.count_nonzero(rows & analysis.run.measured)):,} requests"


def _of_mean(mean: float, bounds: tuple[float, float] | None, n: int) -> Estimated:
    return (mean, *bounds, "") if bounds else (mean, None, None, f"a mean's bounds need 10 requests, there are {n:,}")


def _of_percentile(percentile: Quantile) -> Estimated:
    why, n = "", f"{percentile.n:,}"
    if percentile.value is None:
        why = f"this percentile needs {percentile.needs:,} requests, there are {n}"
    elif percentile.below is None or percentile.above is None:
        why = f"{n} requests are too few for a confidence bound on that side"
    return percentile.value, percentile.below, percentile.above, why


def series_of(analysis: Analysis, metric: str, rows: Mask, side: Side) -> Floats:
    """A figure of all judged requests that have it, in the order in which they began; failures infinitely late."""
    ms = np.where(analysis.failed, np.inf, analysis.figures.of(side)[metric])
    wanted = rows & ((analysis.run.ok & analysis.run.measured) | analysis.failed)
    return in_time_order(ms, wanted, analysis.figures.order)
