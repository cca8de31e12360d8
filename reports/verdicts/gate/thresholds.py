"""The thresholds of a policy: met, broken or can't tell, each with its bounds.

One run is judged by its own sampling error (`reports.summary.objectives`). Of several runs, bounds come from how much
whole runs differ (shares: from counts, thinned by how much more they vary than chance).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tailgate.reports.compare.runs import StoredRun
from tailgate.reports.metrics.analysis import Analysis, analyse
from tailgate.reports.metrics.slo import RATES, SHARES, Threshold
from tailgate.reports.stats.between_runs import over_runs
from tailgate.reports.stats.order_statistics import LEVEL
from tailgate.reports.stats.proportions import counts, shares
from tailgate.reports.summary.estimates import compare
from tailgate.reports.summary.objective_model import BeyondLimit, Judgement
from tailgate.reports.summary.objectives import Judged, judge
from tailgate.reports.verdicts.gate.policy import Policy
from tailgate.workloads.common.arrays import Mask


@dataclass(frozen=True)
class ThresholdVerdict:
    """One threshold at one point; figures in the threshold's own unit (ms, fraction, per second)."""

    point: str
    objective: str  # as it was written
    metric: str
    value: float | None  # of the run, or the mean over runs (geometric for latencies and rates, unless one is 0)
    # one-sided 95 % bounds of the true value
    below: float | None
    above: float | None
    limit: float  # what it was held against
    result: Judgement  # `met`, `broken` or `can't tell`
    why: str  # what is missing where it can't be told; how else it was told, where the figure itself has no bounds
    beyond: BeyondLimit | None = None  # of a percentile: how many of all runs' requests are over the limit

    @property
    def open(self) -> bool:
        """Its bounds lie on both sides of the limit: more runs would tell."""
        return self.below is not None and self.above is not None and self.below <= self.limit <= self.above


def judge_thresholds(runs: Sequence[StoredRun], policy: Policy) -> list[ThresholdVerdict]:
    """Judge the candidate's runs (or those of the only side) against every threshold.

    Rates are judged at saturated points where there are any, everything else at the others.
    """
    if not policy.limits.thresholds:
        return []
    verdicts = []
    for point in dict.fromkeys(run.point for run in runs):
        thresholds = [threshold for threshold in policy.limits.thresholds if applies(threshold, point, policy)]
        if not thresholds:
            continue
        there = [run for run in runs if run.point == point]
        slo = replace(policy.limits, thresholds=tuple(thresholds))
        analyses = [replace(analyse(run.path), slo=slo) for run in there]
        judged = [judge(analysis, run.overloaded) for analysis, run in zip(analyses, there, strict=True)]
        for place, threshold in enumerate(thresholds):
            verdicts.append(_together(point, threshold, [each[place] for each in judged], analyses))
    return verdicts


def applies(threshold: Threshold, point: str, policy: Policy) -> bool:
    full = {name for name, load in policy.points.items() if load.saturated}
    if not full or full == set(policy.points):
        return True
    return (point in full) == (threshold.metric in RATES)


def _together(point: str, threshold: Threshold, judged: Sequence[Judged], runs: Sequence[Analysis]) -> ThresholdVerdict:
    if len(judged) == 1:
        (run,) = judged
        value, below, above, result, why = run.value, run.below, run.above, run.result, run.why
    elif threshold.metric in SHARES:
        value, below, above = _share(threshold, runs)
        result, why = compare(threshold, below, above), ""
    else:
        value, below, above, why = _between(judged)
        result = compare(threshold, below, above)
        held_back = next((run.held_back for run in judged if run.held_back), "")
        if result is Judgement.MET and held_back:
            result, why = Judgement.UNDECIDED, held_back
    if result is Judgement.UNDECIDED and not why:
        why = "the bounds lie on both sides of the limit"
    return ThresholdVerdict(
        point, threshold.text, threshold.metric, value, below, above, threshold.limit, result, why,
        _pooled([run.beyond for run in judged]),
    )  # fmt: skip


def _pooled(each: Sequence[BeyondLimit | None]) -> BeyondLimit | None:
    """The counts of several runs together: without bounds, since requests of one run are alike."""
    counts = [run for run in each if run is not None]
    if len(counts) < 2:
        return counts[0] if counts else None
    over, of = sum(run.over for run in counts), sum(run.of for run in counts)
    return replace(counts[0], over=over, of=of, at_least=None, at_most=None)


def _share(threshold: Threshold, runs: Sequence[Analysis]) -> tuple[float, float, float]:
    """(share, lower, upper bound) over runs; good requests at the ends that the client's own error leaves, too."""
    if threshold.metric == "errors":
        return _pooled_share([a.failed for a in runs], runs)
    share, below, above = _pooled_share([a.good for a in runs], runs)
    _, least, _ = _pooled_share([a.good_of("high") for a in runs], runs)
    _, _, most = _pooled_share([a.good_of("low") for a in runs], runs)
    return share, min(below, least), max(above, most)


def _pooled_share(hits: Sequence[Mask], runs: Sequence[Analysis]) -> tuple[float, float, float]:
    pairs = zip(hits, runs, strict=True)
    counted = [(int(np.count_nonzero(hit)), int(np.count_nonzero(run.judged))) for hit, run in pairs]
    (share,) = shares([[counts(counted)]])
    return share.share, *share.bounds(1 - LEVEL)


def _between(judged: Sequence[Judged]) -> tuple[float | None, float | None, float | None, str]:
    """(mean, lower, upper bound, why not) over runs."""
    lacking = [run for run in judged if run.value is None]
    if lacking:
        return None, None, None, f"{len(lacking)} of {len(judged)} runs have no such figure: {lacking[0].why}"
    if guessed := [run for run in judged if run.estimated]:
        return None, None, None, guessed[0].why
    values = [run.value for run in judged if run.value is not None]
    endless = sum(map(math.isinf, values))
    if endless == len(values):
        return math.inf, math.inf, math.inf, ""
    if endless:
        return None, None, None, f"it is infinite (failures) in {endless} of {len(values)} runs"
    mean, below, above = over_runs(values, 1 - LEVEL)
    # Runs moved by the client's own error may agree better with each other than they did: no bound is nearer for that.
    ends = [run.error or (value, value) for run, value in zip(judged, values, strict=True)]
    _, least, _ = over_runs([low for low, _ in ends], 1 - LEVEL)
    _, _, most = over_runs([high for _, high in ends], 1 - LEVEL)
    return mean, max(min(below, least), 0.0), max(above, most), ""
