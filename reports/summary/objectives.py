"""Each objective of an SLO against one run, with its confidence bound: met, broken, or can't tell.

The grammar is `reports.metrics.slo`; comparing runs is `reports.verdicts.gate.verdict`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.catalogue import METRICS
from tailgate.reports.metrics.own_error import Ends
from tailgate.reports.metrics.requests import Side, tpot_at_most, tpot_is_bound
from tailgate.reports.metrics.slo import LATENCIES, TOKEN_RATES, Threshold
from tailgate.reports.stats.order_statistics import tail_bounds
from tailgate.reports.summary.estimates import AS_MEASURED, Estimated, compare, estimate, gaps_of, not_known, series_of
from tailgate.reports.summary.objective_model import BY_SHARE, BeyondLimit, Judgement, counts_in_words
from tailgate.reports.validity.own_error import BoundedFigure
from tailgate.workloads.common.arrays import Mask

OWN_ERROR: Final = "the load generator's own error is too large to tell"
# Shares and rates that count requests by their latency.
_BY_LATENCY: Final = ("attained", "goodput")
_ENDS: Final[tuple[Side, Side]] = ("low", "high")


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
    held_back: str = ""  # why it can't be met, whatever its bounds say
    estimated: bool = False  # the tokens it counts are estimates: it decides nothing, and `why` says why

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


def undecided_by_client(judged: Sequence[Judged]) -> list[BoundedFigure] | None:
    """What only the client's own error leaves open of the objectives; None without objectives."""
    if not judged:
        return None
    found = []
    for one in judged:
        if one.spoiled:
            label = f"{METRICS[one.threshold.metric].label} {one.threshold.statistic}".strip()
            latency = one.threshold.metric in LATENCIES
            found.append(
                BoundedFigure(
                    f"{one.scope}: {label}" if one.scope else label,
                    one.value if latency else None,
                    one.error if latency else None,
                )
            )
    return found


def _judged(analysis: Analysis, threshold: Threshold, rows: Mask, overloaded: bool) -> Judged:
    value, below, above, why = best = estimate(analysis, threshold, rows)
    beyond = _beyond(analysis, threshold, rows)
    result, by_share = _decide(threshold, best, beyond)
    as_measured, error, spoiled = why == AS_MEASURED, None, False
    if analysis.scan.bounded and threshold.metric in (*LATENCIES, *_BY_LATENCY):
        ends = {side: estimate(analysis, threshold, rows, side) for side in _ENDS}
        error = _range([end[0] for end in ends.values()])
        # Moved values may agree better with each other than they did: no bound is nearer for that.
        each = [best, *ends.values()]
        below, above = _least([one[1] for one in each]), _most([one[2] for one in each])
        decided = [_decide(threshold, end, _beyond(analysis, threshold, rows, side))[0] for side, end in ends.items()]
        if any(at_end != result for at_end in decided):
            spoiled = result != Judgement.UNDECIDED
            result, by_share, why = Judgement.UNDECIDED, False, OWN_ERROR if spoiled else why
    held_back = _why_not_met(analysis, threshold, rows, overloaded)
    estimated = threshold.metric in TOKEN_RATES and value is not None and (below, above) == (None, None)
    if result == Judgement.MET and held_back:
        result, by_share, why = Judgement.UNDECIDED, False, held_back
    remark = BY_SHARE if by_share else why if result == Judgement.UNDECIDED or as_measured else ""
    return Judged(
        threshold, value, below, above, result, remark, "", as_measured, error, spoiled, beyond, held_back,
        estimated and not as_measured,
    )  # fmt: skip


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


def _why_not_met(analysis: Analysis, threshold: Threshold, rows: Mask, overloaded: bool) -> str:
    """Why an objective can't be met, whatever its bounds say; empty if it can.

    Latencies of an overloaded run grow with its duration; a TPOT that is a lower bound may be larger: at worst each
    chunk after the first holds one token.
    """
    if overloaded and threshold.metric not in ("errors", "attained", "goodput"):
        return "requests in flight grew all along: this figure grows with the run's duration"
    bounds = int(np.count_nonzero(rows & tpot_is_bound(analysis.run) & analysis.run.measured))
    if threshold.metric != "tpot" or threshold.op not in ("<", "<=") or not bounds:
        return ""
    tpot = tpot_at_most(analysis.run, analysis.figures.high["tpot"])
    worst = replace(analysis, figures=replace(analysis.figures, ms={**analysis.figures.ms, "tpot": tpot}))
    if _decide(threshold, estimate(worst, threshold, rows), _beyond(worst, threshold, rows))[0] == Judgement.MET:
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
    if threshold.percentile is None or not_known(analysis, metric, rows):
        return None
    share = 1 - threshold.percentile / 100
    if metric == "itl":
        gaps = gaps_of(analysis, rows, side)[0]
        return BeyondLimit(gaps.count_above(limit), gaps.size, "gaps", limit, op, share) if gaps.size else None
    series = series_of(analysis, metric, rows, side)
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
