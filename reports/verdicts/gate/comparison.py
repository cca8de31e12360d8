"""One metric at one point: candidate against baseline, with everything the judgement rests on.

    PASS   the upper bound of how much worse it is lies below the margin
    FAIL   its lower bound lies above zero, and the estimate reaches the margin

Which of several FAIL is decided over all of them together (`holm`). Which metrics there are and what follows for the
whole is `reports.verdicts.gate.verdict`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from tailgate.reports.compare.runs import StoredRun
from tailgate.reports.stats import between_runs
from tailgate.reports.stats.sequential_design import Design
from tailgate.reports.verdicts.gate.error_rule import GoodShare, good_share
from tailgate.reports.verdicts.gate.metrics import (
    GateMetric,
    itl_refused,
    lacking,
    load_limited,
    require_load,
    tpot_refused,
    usage_refused,
)
from tailgate.workloads.common.arrays import Floats

Result = Literal["pass", "fail", "can't tell", "refused", "withheld"]
How = Literal["paired", "unpaired", "unpaired, with drift", "share of good requests", ""]
# A trend needs so many different times of the baseline, and so many runs in all.
_TREND_TIMES: Final = 3
_TREND_RUNS: Final = 5

OWN_ERROR: Final = "the load generator's own error of these runs is too large to tell"
OWN_ERROR_REMEDY: Final = "Free a core for the load generator, or run it on a machine of its own."


@dataclass(frozen=True)
class MetricVerdict:
    """One comparison. Ratios are candidate / baseline; "worse" is the direction in which the metric degrades."""

    key: str
    label: str
    unit: str
    point: str
    margin: float  # acceptable, as a fraction
    higher: bool
    how: How
    result: Result  # what came out; `why` says what a reader must know besides
    why: str = ""
    remedy: str = ""  # what to do where more pairs can't settle it; empty where they can, or it is settled
    # each run's figure, in the order of the pairs; None where a run has none
    baseline: tuple[float | None, ...] = ()
    candidate: tuple[float | None, ...] = ()
    ratios: tuple[float, ...] = ()  # of each pair; empty where there are no pairs
    ratio: float | None = None
    # one-sided bounds of the ratio, and their levels
    at_least: float | None = None
    at_most: float | None = None
    at_least_level: float | None = None
    at_most_level: float | None = None
    limit: float = 1.0  # the ratio that the margin allows
    p: float | None = None  # one-sided p-value of "not worse"
    holm: float | None = None  # the level that Holm's procedure held it against
    # the same without the normal distribution, for comparison
    hodges_lehmann: float | None = None
    wilcoxon_p: float | None = None
    detectable: float | None = None  # smallest slowdown (as a ratio) that would have made a FAIL in four of five cases
    # pairs (of stored runs: runs a side) that would settle it in four of five cases if things are as they look; None
    # where they are too many or no help, or it is settled
    settle_pairs: int | None = None
    good: GoodShare | None = None  # where the share of good requests was judged instead; then there are no ratios

    @property
    def worse_within(self) -> bool:
        """It passes, and is worse for all that."""
        if self.result != "pass" or self.at_least is None or self.at_most is None:
            return False
        return self.at_most < 1 if self.higher else self.at_least > 1


@dataclass(frozen=True)
class Compared:
    """A comparison before all of them are looked at together (`holm`)."""

    verdict: MetricVerdict  # as far as it can be told alone: not whether it FAILs
    shift: between_runs.Shift | None = None  # of the logarithms; None where shares were judged, or nothing estimated
    margin: float = 0.0  # the acceptable difference of logarithms
    beyond: bool = False  # the estimate reaches the margin


def passes(shift: between_runs.Shift, margin: float, point: float) -> Any:
    """Whether the upper bound lies below the margin; `point` is t's for the tail. Scalars or arrays."""
    return shift.mean + point * shift.error < margin


def compare(
    metric: GateMetric, point: str, baseline: Sequence[StoredRun], candidate: Sequence[StoredRun], design: Design, *,
    window: bool = False, fewer_good: float = 0.0,
) -> Compared:  # fmt: skip
    """Compare the runs of both sides at one point; a FAIL is not decided here.

    Args:
        baseline, candidate: runs in the order of their pairs, or of their time where there are none.
        window: stored runs of a rolling window: take a trend over time into account.
        fewer_good: where shares of good requests are judged, how many fewer are acceptable, as a difference of shares.

    Raises:
        UserError: a side has no such figure, or the load decides it and not the target.
    """
    runs = [*baseline, *candidate]
    if not metric.latency and any(run.manifest.loop == "open" and not run.overloaded for run in runs):
        raise require_load(metric, f"metrics.{metric.key}")
    blank = blank_verdict(metric, point)
    if not metric.latency and (why := load_limited(runs)):
        return Compared(replace(blank, result="refused", why=why, remedy="Leave out think times at this point."))
    if why := usage_refused(metric, runs):
        remedy = "Have the server or its gateway count all tokens in usage, or gate ttft, e2e, itl and requests_per_s."
        return Compared(replace(blank, result="refused", why=why, remedy=remedy))
    refused = {"itl": itl_refused, "tpot": tpot_refused}.get(metric.figure)
    if refused is not None and (why := refused(baseline, candidate)):
        return Compared(replace(blank, result="refused", why=why, remedy="Replace the refused metric in the policy."))
    a, b = ([run.value(metric) for run in side] for side in (baseline, candidate))
    blank = replace(blank, baseline=tuple(a), candidate=tuple(b))
    if why := lacking(metric, (a, baseline), (b, candidate)):
        remedy = "Make the runs longer, or gate a lower percentile."
        return Compared(replace(blank, why=why, remedy=remedy))
    if any(value is not None and math.isinf(value) for value in (*a, *b)):
        return _by_good_requests(metric, blank, baseline, candidate, design, fewer_good)
    if any(value is not None and value <= 0 for value in (*a, *b)):
        why = f"{metric.label} is 0 in a run, so that ratios mean nothing"
        return Compared(replace(blank, result="refused", why=why, remedy="Replace the refused metric in the policy."))
    return _by_logs(metric, blank, baseline, candidate, design, window)


def blank_verdict(metric: GateMetric, point: str) -> MetricVerdict:
    return MetricVerdict(
        metric.key, metric.label, metric.unit, point, metric.margin, metric.higher, "", "can't tell",
        limit=metric.ratio(metric.log_margin),
    )  # fmt: skip


def _by_logs(
    metric: GateMetric, blank: MetricVerdict, baseline: Sequence[StoredRun], candidate: Sequence[StoredRun],
    design: Design, window: bool,
) -> Compared:  # fmt: skip
    x, y = (
        np.array([metric.worse_log(v) for v in side if v is not None]) for side in (blank.baseline, blank.candidate)
    )
    shift, how = _shift(x, y, baseline, candidate, window)
    # The load generator's own error counts against what is claimed: a PASS must hold at the most that it leaves
    # possible, a FAIL at the least. Moved values may agree better with each other: neither may be surer for that.
    n, both = len(x), [*baseline, *candidate]
    least, most = between_runs.at_ends(
        lambda z: _shift(z[:n], z[n:], baseline, candidate, window)[0], np.concatenate([x, y]), *_ends(metric, both)
    )
    tails = design.pass_tail(), design.fail_tail()
    upper = max(s.mean + between_runs.t_point(tails[0], s.df) * s.error for s in (shift, most))
    lower = min(s.mean - between_runs.t_point(tails[1], s.df) * s.error for s in (shift, least))
    # In ratios the two change places where more is better.
    ends = [(metric.ratio(lower), 1 - tails[1]), (metric.ratio(upper), 1 - tails[0])]
    (at_least, at_least_level), (at_most, at_most_level) = ends[::-1] if metric.higher else ends
    if how == "paired":
        differences = y - x
        middle, wilcoxon_p = between_runs.hodges_lehmann(differences), between_runs.signed_rank_p(differences)
    else:
        differences = np.zeros(0)
        middle, wilcoxon_p = between_runs.hodges_lehmann_shift(x, y), between_runs.rank_sum_p(x, y)
    alone, at_most_too = (
        bool(passes(each, metric.log_margin, between_runs.t_point(tails[0], each.df))) for each in (shift, most)
    )
    looks_beyond = bool(shift.mean >= metric.log_margin)
    passed, why, remedy = _unless_overloaded(metric, alone and at_most_too, looks_beyond, both)
    if not why and alone and not at_most_too:
        why, remedy = OWN_ERROR, OWN_ERROR_REMEDY
    verdict = replace(
        blank, how=how, result="pass" if passed else "can't tell", why=why, remedy=remedy,
        ratios=tuple(metric.ratio(float(difference)) for difference in differences),
        ratio=metric.ratio(float(shift.mean)),
        at_least=at_least, at_most=at_most, at_least_level=at_least_level, at_most_level=at_most_level,
        p=max(between_runs.p_worse(shift), between_runs.p_worse(least)),
        hodges_lehmann=metric.ratio(middle), wilcoxon_p=wilcoxon_p,
    )  # fmt: skip
    why = "worse, but within the margin" if verdict.worse_within else why
    if metric.ok_only and (failed := sum(run.failed for run in both)):
        rest = f"only requests that ended ok count here, and the error rule judges the {failed:,} that failed"
        why = f"{why}; {rest}" if why else rest
    return Compared(replace(verdict, why=why), shift, metric.log_margin, bool(least.mean >= metric.log_margin))


def _ends(metric: GateMetric, runs: Sequence[StoredRun]) -> tuple[Floats, Floats]:
    """Logarithms of each run's figure, as good and as bad as the load generator's own error leaves possible."""
    ends = [run.ends(metric) for run in runs]
    logs = [sorted(metric.worse_log(max(end, 1e-9)) for end in pair) for pair in ends if pair is not None]
    return np.array([pair[0] for pair in logs]), np.array([pair[1] for pair in logs])


def _unless_overloaded(
    metric: GateMetric, passed: bool, beyond: bool, runs: Sequence[StoredRun]
) -> tuple[bool, str, str]:
    """(whether it may pass, why not, what to do): latencies of overloaded runs may fail, not pass."""
    if not metric.latency or beyond or not any(run.overloaded for run in runs):
        return passed, "", ""
    why = "requests in flight grew all along, so latencies grow with the run's duration and can't pass"
    return False, why, "Lower the load, or judge what the target carries at a saturated point (closed 256)."


def _shift(
    x: Floats, y: Floats, baseline: Sequence[StoredRun], candidate: Sequence[StoredRun], window: bool
) -> tuple[between_runs.Shift, How]:
    if baseline[0].pair is not None:
        return between_runs.paired(y - x), "paired"
    if window and has_trend(baseline, candidate):
        days = [np.array([run.manifest.t0_unix_ns / 8.64e13 for run in side]) for side in (baseline, candidate)]
        return between_runs.drifting(x, days[0], y, days[1]), "unpaired, with drift"
    return between_runs.unpaired(x, y), "unpaired"


def has_trend(baseline: Sequence[StoredRun], candidate: Sequence[StoredRun]) -> bool:
    """Whether a trend over time can be told from these runs of one point."""
    return (
        len({run.manifest.t0_unix_ns for run in baseline}) >= _TREND_TIMES
        and len(baseline) + len(candidate) >= _TREND_RUNS
    )


def _by_good_requests(
    metric: GateMetric, blank: MetricVerdict, baseline: Sequence[StoredRun], candidate: Sequence[StoredRun],
    design: Design, margin: float,
) -> Compared:  # fmt: skip
    """Failures make a percentile infinite somewhere: the shares of good requests decide, if an SLO says what is good.

    The share of requests that ended ok would not do: it says nothing of their latency.
    """
    endless = sum(value is not None and math.isinf(value) for value in (*blank.baseline, *blank.candidate))
    why = f"failures make {metric.label} infinite in {endless} of {len(baseline) + len(candidate)} runs"
    shares = good_share(baseline, candidate, margin, design.pass_tail())
    if shares is None:
        remedy = (
            "Say in the spec what a good request is (slo: {good: ...}), so that their shares can be compared;"
            " or gate a percentile below the share that fails."
        )
        return Compared(replace(blank, why=why, remedy=remedy))
    beyond = shares.lost > 0 and shares.lost >= margin
    passed, refusal, remedy = _unless_overloaded(metric, shares.most < margin, beyond, [*baseline, *candidate])
    judged = replace(
        blank, label=f"good requests (for {metric.label})", how="share of good requests",
        result="pass" if passed else "can't tell", why=refusal or why, remedy=remedy, p=shares.p, good=shares,
    )  # fmt: skip
    return Compared(judged, beyond=beyond)


def holm(comparisons: Sequence[Compared], design: Design) -> list[MetricVerdict]:
    """Decide which of the comparisons FAIL, and what would settle those that can't be told (Holm 1979).

    The step-down procedure takes the p-values in rising order, each against the budget divided by how many are left,
    and stops at the first that is too large. What comes after it would have had to beat the same level, so that is
    the level it has: it FAILs exactly if `p < holm` and its estimate reaches the margin.
    """
    verdicts = [comparison.verdict for comparison in comparisons]
    rising = sorted((p, place) for place, verdict in enumerate(verdicts) if (p := verdict.p) is not None)
    level, stopped = 0.0, False
    for step, (p, place) in enumerate(rising):
        if not stopped:
            level = design.fail_tail(len(rising) - step)
            stopped = p >= level
        verdicts[place] = _decided(comparisons[place], p, level, design, len(rising))
    return verdicts


def _decided(comparison: Compared, p: float, level: float, design: Design, among: int) -> MetricVerdict:
    verdict = replace(comparison.verdict, holm=level)
    if comparison.beyond and p < level:
        verdict = replace(verdict, result="fail", remedy="")
    elif comparison.beyond and p < design.fail_tail():
        why = f"alone it would be a FAIL (p = {p:.2g}); as one of {among} metrics it needs p < {level:.2g}"
        verdict = replace(verdict, why=f"{verdict.why}; {why}" if verdict.why else why)
    shift = comparison.shift
    if shift is None:
        return verdict
    if verdict.result == "can't tell" and not verdict.why and _fails(shift, comparison.margin, level):
        verdict = replace(verdict, why=OWN_ERROR, remedy=OWN_ERROR_REMEDY)
    worse = between_runs.detectable(shift, comparison.margin, level)
    settle = _settle(shift, comparison.margin, (design.pass_tail(), level))
    return replace(
        verdict, detectable=math.exp(-worse if verdict.higher else worse),
        settle_pairs=settle if verdict.result == "can't tell" and not verdict.remedy else None,
    )  # fmt: skip


def _fails(shift: between_runs.Shift, margin: float, level: float) -> bool:
    """Whether it would be a FAIL if the figures were exact."""
    return bool(shift.mean >= margin) and between_runs.p_worse(shift) < level


def _settle(shift: between_runs.Shift, margin: float, tails: tuple[float, float]) -> int | None:
    deviation = float(shift.error) * math.sqrt(shift.n)
    return between_runs.pairs_to_settle(deviation, float(shift.mean), margin, tails, shift.df / (shift.n - 1))
