"""The thresholds of a policy: met, broken or can't tell, each with its bounds.

One run is judged by its own sampling error (`reports.summary.objectives`). Of several runs the run is the sample:
bounds come from the spread between runs (shares: from counts, thinned by how much more they vary than chance).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tailgate.reports.metrics.analysis import Analysis, analyse
from tailgate.reports.metrics.slo import RATES, SHARES, Threshold
from tailgate.reports.stats.between_runs import over_runs
from tailgate.reports.stats.order_statistics import LEVEL
from tailgate.reports.stats.proportions import counts, shares
from tailgate.reports.summary.objectives import Judged, Judgement, compare, judge
from tailgate.reports.verdicts.gate.policy import Policy
from tailgate.reports.verdicts.gate.runs import GateRun


@dataclass(frozen=True)
class ThresholdVerdict:
    """One threshold at one point; figures in the threshold's own unit (ms, fraction, per second).

    Attributes:
        point: which load.
        objective: as it was written.
        metric: its figure.
        value: of the run, or the mean over runs (geometric for latencies and rates, unless one is 0).
        below, above: one-sided 95 % bounds of the true value.
        limit: what it was held against.
        result: `met`, `broken` or `can't tell`.
        why: what is missing where it can't be told; how else it was told, where the figure itself has no bounds.
    """

    point: str
    objective: str
    metric: str
    value: float | None
    below: float | None
    above: float | None
    limit: float
    result: Judgement
    why: str

    @property
    def open(self) -> bool:
        """Its bounds lie on both sides of the limit: more runs would tell."""
        return self.below is not None and self.above is not None and self.below <= self.limit <= self.above


def judge_thresholds(runs: Sequence[GateRun], policy: Policy) -> list[ThresholdVerdict]:
    """Judge the candidate's runs (or those of the only side) against every threshold.

    Rates are judged at saturated points where there are any, everything else at the others.
    """
    if not policy.limits.thresholds:
        return []
    found = []
    for point in dict.fromkeys(run.point for run in runs):
        mine = [run for run in runs if run.point == point]
        wanted = [t for t in policy.limits.thresholds if applies(t, point, policy)]
        if not wanted:
            continue
        slo = replace(policy.limits, thresholds=tuple(wanted))
        analyses = [replace(analyse(run.path), slo=slo) for run in mine]
        judged = [judge(a, run.overloaded) for a, run in zip(analyses, mine, strict=True)]
        for place, threshold in enumerate(wanted):
            found.append(_together(point, threshold, [one[place] for one in judged], analyses))
    return found


def applies(threshold: Threshold, point: str, policy: Policy) -> bool:
    """Whether a threshold is judged at a point."""
    full = {name for name, one in policy.points.items() if one.saturated}
    if not full or full == set(policy.points):
        return True
    return (point in full) == (threshold.metric in RATES)


def _together(point: str, threshold: Threshold, judged: Sequence[Judged], runs: Sequence[Analysis]) -> ThresholdVerdict:
    if len(judged) == 1:
        one = judged[0]
        value, below, above, result, why = one.value, one.below, one.above, one.result, one.why
        if value is None and result != "can't tell":
            why = "by the share of requests beyond the limit"
    elif threshold.metric in SHARES:
        value, below, above = _share(threshold, runs)
        result, why = compare(threshold, below, above), ""
    else:
        value, below, above, why = _between([one.value for one in judged], judged)
        result = compare(threshold, below, above)
        held_back = next((one.why for one in judged if one.result == "can't tell" and "duration" in one.why), "")
        if result == "met" and held_back:
            result, why = "can't tell", held_back
    if result == "can't tell" and not why:
        why = "the bounds lie on both sides of the limit"
    return ThresholdVerdict(
        point, threshold.text, threshold.metric, value, below, above, threshold.limit, result,
        why,
    )  # fmt: skip


def _share(threshold: Threshold, runs: Sequence[Analysis]) -> tuple[float, float, float]:
    masks = [(a.failed if threshold.metric == "errors" else a.good, a.judged) for a in runs]
    (found,) = shares([[counts([(int(np.count_nonzero(hit)), int(np.count_nonzero(of))) for hit, of in masks])]])
    return found.share, *found.bounds(1 - LEVEL)


def _between(
    values: Sequence[float | None], judged: Sequence[Judged]
) -> tuple[float | None, float | None, float | None, str]:
    """(mean, lower, upper bound, why not) over runs."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        why = next(one.why for one in judged if one.value is None)
        return None, None, None, f"{len(values) - len(known)} of {len(values)} runs have no such figure: {why}"
    if any(math.isinf(value) for value in known):
        endless = sum(math.isinf(value) for value in known)
        if endless == len(known):
            return math.inf, math.inf, math.inf, ""
        return None, None, None, f"it is infinite (failures) in {endless} of {len(known)} runs"
    mean, below, above = over_runs(known, 1 - LEVEL)
    return mean, max(below, 0.0), above, ""
