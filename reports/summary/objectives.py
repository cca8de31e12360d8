"""Each objective of an SLO against one run, with its confidence bound: met, broken, or can't tell.

The grammar is `reports.metrics.slo`; comparing runs is `reports.verdicts.gate.verdict`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.arrivals import Gaps, GapSample
from tailgate.reports.metrics.catalogue import METRICS
from tailgate.reports.metrics.own_error import Ends
from tailgate.reports.metrics.rate_intervals import rate
from tailgate.reports.metrics.requests import (
    Side,
    gap_mean_interval,
    in_time_order,
    of_gaps,
    of_series,
    tpot_at_most,
    tpot_is_bound,
)
from tailgate.reports.metrics.slo import HOLDS, LATENCIES, RATES, TOKEN_RATES, Threshold
from tailgate.reports.metrics.throughput import why_estimated
from tailgate.reports.stats.order_statistics import (
    LEVEL,
    Quantile,
    effective_size,
    mean_interval,
    quantile,
    tail_bounds,
    thinned_bounds,
)
from tailgate.reports.summary.objective_model import BY_SHARE, BeyondLimit, Judgement, counts_in_words
from tailgate.workloads.common.arrays import Floats, Mask

# (value, one-sided lower and upper bound, why there is none)
Estimated = tuple[float | None, float | None, float | None, str]
NO_ARRIVALS: Final = "of {:,} of {:,} requests it isn't known: arrivals.parquet or the server's usage is missing"
OWN_ERROR: Final = "the load generator's own error is too large to tell"
_ENDS: Final[tuple[Side, Side]] = ("low", "high")
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
    error: Ends | None = None  # the least and the most that the client's own error leaves possible
    spoiled: bool = False  # it would be decided, were it not for the client's own error
    beyond: BeyondLimit | None = None  # of a percentile, where there are values at all

    @property
    def counts(self) -> str:
        """How many are over the limit, in words, where the percentile has no finite value or was judged by that."""
        return counts_in_words(self.value, self.why, self.beyond)


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


def undecided_by_client(judged: Sequence[Judged]) -> list[tuple[str, float, Ends]] | None:
    """(label, value, ends in ms) of each objective that only the client's own error leaves open; None without any."""
    if not judged:
        return None
    found = []
    for one in judged:
        if one.spoiled and one.value is not None and one.error is not None:
            label = f"{METRICS[one.threshold.metric].label} {one.threshold.statistic}".strip()
            found.append((f"{one.scope}: {label}" if one.scope else label, one.value, one.error))
    return found


def _judged(analysis: Analysis, threshold: Threshold, rows: Mask, overloaded: bool) -> Judged:
    value, below, above, why = best = _estimate(analysis, threshold, rows)
    beyond = _beyond(analysis, threshold, rows)
    result, by_share = _decide(threshold, best, beyond)
    as_measured, error, spoiled = why == AS_MEASURED, None, False
    if (
        value is not None
        and analysis.scan.bounded
        and (threshold.metric in LATENCIES or threshold.metric == "attained")
    ):
        ends = {side: _estimate(analysis, threshold, rows, side) for side in _ENDS}
        error = _range([end[0] for end in ends.values()])
        below, above = _least([end[1] for end in ends.values()]), _most([end[2] for end in ends.values()])
        decided = [_decide(threshold, end, _beyond(analysis, threshold, rows, side))[0] for side, end in ends.items()]
        if any(at_end != result for at_end in decided):
            spoiled = result != Judgement.UNDECIDED
            result, by_share, why = Judgement.UNDECIDED, False, OWN_ERROR if spoiled else why
    if overloaded and result == Judgement.MET and threshold.metric not in ("errors", "attained", "goodput"):
        result, by_share = Judgement.UNDECIDED, False
        why = "requests in flight grew all along: this figure grows with the run's duration"
    if result == Judgement.MET and (not_sure := _why_not_met(analysis, threshold, rows)):
        result, by_share, why = Judgement.UNDECIDED, False, not_sure
    remark = BY_SHARE if by_share else why if result == Judgement.UNDECIDED or as_measured else ""
    return Judged(threshold, value, below, above, result, remark, "", as_measured, error, spoiled, beyond)


def _decide(threshold: Threshold, estimated: Estimated, beyond: BeyondLimit | None) -> tuple[Judgement, bool]:
    """What an estimate says of its threshold, and whether the share of requests beyond the limit said it."""
    value, below, above, why = estimated
    if why == AS_MEASURED:
        return compare(threshold, value, value), False
    result = compare(threshold, below, above)
    if result == Judgement.UNDECIDED and beyond is not None:
        result = _by_share(beyond)
        return result, result != Judgement.UNDECIDED
    return result, False


def _why_not_met(analysis: Analysis, threshold: Threshold, rows: Mask) -> str:
    """Why a limit on TPOT that looks met may be broken: at worst each chunk after the first holds one token."""
    bounds = int(np.count_nonzero(rows & tpot_is_bound(analysis.run) & analysis.run.measured))
    if threshold.metric != "tpot" or threshold.op not in ("<", "<=") or not bounds:
        return ""
    tpot = tpot_at_most(analysis.run, analysis.figures.high["tpot"])
    worst = replace(analysis, figures=replace(analysis.figures, ms={**analysis.figures.ms, "tpot": tpot}))
    if _decide(threshold, _estimate(worst, threshold, rows), _beyond(worst, threshold, rows))[0] == Judgement.MET:
        return ""
    return f"TPOT is a lower bound in {bounds:,} answers: nobody tells how many tokens their first chunks hold"


def _least(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return min(known) if len(known) == len(values) else None


def _most(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def _range(values: Sequence[float | None]) -> Ends | None:
    least, most = _least(values), _most(values)
    return None if least is None or most is None else (least, most)


def _beyond(analysis: Analysis, threshold: Threshold, rows: Mask, side: Side = "best") -> BeyondLimit | None:
    """How many lie over a percentile's limit; None where that isn't known, or asked."""
    metric, limit, op = threshold.metric, threshold.limit, threshold.op
    if threshold.percentile is None or _not_known(analysis, metric, rows):
        return None
    share = 1 - threshold.percentile / 100
    if metric == "itl":
        gaps = _gaps(analysis, rows, side)[0]
        return BeyondLimit(gaps.count_above(limit), gaps.size, "gaps", limit, op, share) if gaps.size else None
    series = _series(analysis, metric, rows, side)
    if not len(series):
        return None
    # Values that break "<" are those at the limit or above; those that break "<=" are above it.
    inclusive = op in ("<", ">=")
    over = int(np.count_nonzero(series >= limit if inclusive else series > limit))
    return BeyondLimit(over, len(series), "requests", limit, op, share, *tail_bounds(series, limit, inclusive))


def _by_share(beyond: BeyondLimit) -> Judgement:
    """A percentile held against its limit by the share of requests beyond that.

    p99 < 800 ms says that less than 1 % take 800 ms or more. This decides where the percentile itself has no
    bound of its own (a wandering series far from its limit), and never against it.
    """
    if beyond.at_least is None or beyond.at_most is None:
        return Judgement.UNDECIDED
    few, many = beyond.at_most < beyond.share, beyond.at_least > beyond.share
    if beyond.op in ("<", "<="):
        return Judgement.MET if few else Judgement.BROKEN if many else Judgement.UNDECIDED
    return Judgement.MET if many else Judgement.BROKEN if few else Judgement.UNDECIDED


def _series(analysis: Analysis, metric: str, rows: Mask, side: Side) -> Floats:
    """A figure of all judged requests that have it, in the order in which they began; failures infinitely late."""
    ms = np.where(analysis.failed, np.inf, analysis.figures.of(side)[metric])
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


def _estimate(analysis: Analysis, threshold: Threshold, rows: Mask, side: Side = "best") -> Estimated:
    """(value, lower bound, upper bound, why not) of what a threshold is about, at one end of the client's own error."""
    metric = threshold.metric
    match metric:
        case "errors":
            return _share(analysis, threshold, rows, analysis.failed, analysis.failed)
        case "attained":
            if side == "best":
                return _share(analysis, threshold, rows, analysis.good, analysis.good | analysis.unknown)
            good = analysis.judged & (analysis.possibly_met if side == "low" else analysis.surely_met)
            return _share(analysis, threshold, rows, good, good)
        case _ if metric in RATES:
            interval = rate(analysis, metric, rows)
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
            if _not_known(analysis, metric, rows):
                return None, None, None, _no_arrivals(analysis, analysis.not_known(metric), rows)
            return _latency(analysis, threshold, rows, side)


def _why_estimated(analysis: Analysis, metric: str, rows: Mask) -> str:
    output, prompt = metric != "input_tokens_per_s", metric != "output_tokens_per_s"
    return why_estimated(analysis.run, analysis.scan, rows, prompts=prompt, outputs=output)


def _not_known(analysis: Analysis, metric: str, rows: Mask) -> bool:
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
    series = _series(analysis, threshold.metric, rows, side)
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


def _gaps(analysis: Analysis, rows: Mask, side: Side) -> tuple[Gaps, GapSample]:
    """The pooled gaps of some rows, and the sample that knows which request each is of."""
    scan, whole = analysis.scan, bool(rows.all())
    sample = scan.sample if whole else scan.sample.of(rows)
    best, low, high = (scan.gaps, scan.gaps_low, scan.gaps_high) if whole else sample.pooled()
    return {"best": best, "low": low, "high": high}[side], sample


def _gap_lengths(analysis: Analysis, threshold: Threshold, rows: Mask, side: Side) -> Estimated:
    q, order = threshold.percentile, analysis.figures.order
    pooled, sample = _gaps(analysis, rows, side)
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
