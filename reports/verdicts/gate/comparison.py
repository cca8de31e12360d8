"""One metric at one point: candidate against baseline, with everything the judgement rests on.

    PASS   the upper bound of how much worse it is lies below the margin
    FAIL   its lower bound lies above zero, and the estimate reaches the margin (decided in `holm`)

Which metrics there are and what follows for the whole is `reports.verdicts.gate.verdict`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from tailgate.reports.stats.between_runs import (
    Shift,
    drifting,
    hodges_lehmann,
    hodges_lehmann_shift,
    p_worse,
    paired,
    rank_sum_p,
    signed_rank_p,
    t_point,
    unpaired,
)
from tailgate.reports.stats.sequential_design import Design
from tailgate.reports.verdicts.gate.error_rule import GoodShare, good_share
from tailgate.reports.verdicts.gate.metrics import GateMetric, require_load
from tailgate.reports.verdicts.gate.missing_data import itl_refused, lacking, load_limited
from tailgate.reports.verdicts.gate.runs import GateRun
from tailgate.workloads.common.arrays import Floats

Result = Literal["pass", "fail", "can't tell", "refused", "withheld"]
How = Literal["paired", "unpaired", "unpaired, with drift", "share of good requests", ""]
# A trend needs so many different times of the baseline, and so many runs in all.
_TREND_TIMES: Final = 3
_TREND_RUNS: Final = 5


@dataclass(frozen=True)
class MetricVerdict:
    """One comparison. Ratios are candidate / baseline; "worse" is the direction in which the metric degrades.

    Attributes:
        key, label, unit, point: what was compared, at which load.
        margin: acceptable, as a fraction; `higher`: whether more is better.
        how: which comparison was made.
        result: what came out; `why` says what a reader must know besides.
        remedy: what to do where more pairs can't settle it; empty where they can, or it is settled.
        baseline, candidate: each run's figure, in the order of the pairs; None where a run has none.
        ratios: of each pair; empty where there are no pairs.
        ratio: the estimate.
        at_least, at_most: one-sided bounds of the ratio, of the levels `at_least_level` and `at_most_level`.
        limit: the ratio that the margin allows.
        p: one-sided p-value of "not worse".
        holm: the level that Holm's procedure held it against.
        hodges_lehmann, wilcoxon_p: the same without the normal distribution, for comparison.
        detectable: smallest slowdown (as a ratio) that would have made a FAIL in four of five cases.
        settle_pairs: pairs (of stored runs: runs a side) that would settle it in four of five cases if things are as
            they look; None where they are too many or no help, or it is settled.
        good: where the share of good requests was judged instead; then there are no ratios.
    """

    key: str
    label: str
    unit: str
    point: str
    margin: float
    higher: bool
    how: How
    result: Result
    why: str = ""
    remedy: str = ""
    baseline: tuple[float | None, ...] = ()
    candidate: tuple[float | None, ...] = ()
    ratios: tuple[float, ...] = ()
    ratio: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    at_least_level: float | None = None
    at_most_level: float | None = None
    limit: float = 1.0
    p: float | None = None
    holm: float | None = None
    hodges_lehmann: float | None = None
    wilcoxon_p: float | None = None
    detectable: float | None = None
    settle_pairs: int | None = None
    good: GoodShare | None = None

    @property
    def worse_within(self) -> bool:
        """It passes, and is worse for all that."""
        if self.result != "pass" or self.at_least is None or self.at_most is None:
            return False
        return self.at_most < 1 if self.higher else self.at_least > 1


@dataclass(frozen=True)
class Compared:
    """A comparison before all of them are looked at together (`reports.verdicts.gate.holm`).

    Attributes:
        verdict: as far as it can be told alone: not whether it FAILs.
        shift: of the logarithms; None where nothing was estimated, or shares were judged.
        margin: the acceptable difference of logarithms.
        beyond: the estimate reaches the margin.
    """

    verdict: MetricVerdict
    shift: Shift | None = None
    margin: float = 0.0
    beyond: bool = False


def passes(shift: Shift, margin: float, point: float) -> Any:
    """Whether the upper bound lies below the margin; `point` is t's for the tail. Scalars or arrays."""
    return shift.mean + point * shift.error < margin


def compare(
    metric: GateMetric, point: str, base: Sequence[GateRun], other: Sequence[GateRun], design: Design, *,
    window: bool = False, fewer_good: float = 0.0,
) -> Compared:  # fmt: skip
    """Compare the runs of both sides at one point; a FAIL is not decided here.

    Args:
        metric: what is compared.
        point: the load's name.
        base, other: runs in the order of their pairs, or of their time where there are none.
        design: the error that this look may make.
        window: stored runs of a rolling window: take a trend over time into account.
        fewer_good: where shares of good requests are judged, how many fewer are acceptable, as a difference of shares.

    Raises:
        UserError: a side has no such figure, or the load decides it and not the target.
    """
    runs = [*base, *other]
    if not metric.latency and any(run.manifest.loop == "open" and not run.overloaded for run in runs):
        raise require_load(metric, f"metrics.{metric.key}")
    blank = blank_verdict(metric, point)
    if not metric.latency and (why := load_limited(runs)):
        return Compared(replace(blank, result="refused", why=why, remedy="Leave out think times at this point."))
    if metric.figure == "itl" and (why := itl_refused(base, other)):
        return Compared(replace(blank, result="refused", why=why, remedy="Replace the refused metric in the policy."))
    a, b = ([metric.value(run.summary) for run in side] for side in (base, other))
    blank = replace(blank, baseline=tuple(a), candidate=tuple(b))
    if why := lacking(metric, (a, base), (b, other)):
        remedy = "Make the runs longer, or gate a lower percentile."
        return Compared(replace(blank, why=why, remedy=remedy))
    if any(value is not None and math.isinf(value) for value in (*a, *b)):
        return _by_good_requests(metric, blank, base, other, design, fewer_good)
    known_a, known_b = np.array(a, np.float64), np.array(b, np.float64)
    if (known_a <= 0).any() or (known_b <= 0).any():
        why = f"{metric.label} is 0 in a run, so that ratios mean nothing"
        return Compared(replace(blank, result="refused", why=why, remedy="Replace the refused metric in the policy."))
    return _by_logs(metric, blank, base, other, design, window)


def blank_verdict(metric: GateMetric, point: str) -> MetricVerdict:
    """The comparison of a metric before it is made."""
    return MetricVerdict(
        metric.key, metric.label, metric.unit, point, metric.margin, metric.higher, "", "can't tell",
        limit=metric.ratio(metric.log_margin),
    )  # fmt: skip


def _by_logs(
    metric: GateMetric, blank: MetricVerdict, base: Sequence[GateRun], other: Sequence[GateRun], design: Design,
    window: bool,
) -> Compared:  # fmt: skip
    x, y = (
        np.array([metric.worse_log(v) for v in side if v is not None]) for side in (blank.baseline, blank.candidate)
    )
    shift, how = _shift(x, y, base, other, window)
    tails = design.pass_tail(), design.fail_tail()
    upper = shift.mean + t_point(tails[0], shift.df) * shift.error
    lower = shift.mean - t_point(tails[1], shift.df) * shift.error
    # In ratios the two change places where more is better.
    ends = [(metric.ratio(lower), 1 - tails[1]), (metric.ratio(upper), 1 - tails[0])]
    (at_least, at_least_level), (at_most, at_most_level) = ends[::-1] if metric.higher else ends
    d = y - x if how == "paired" else None
    beyond = bool(shift.mean >= metric.log_margin)
    passed = bool(passes(shift, metric.log_margin, t_point(tails[0], shift.df)))
    passed, why, remedy = _unless_overloaded(metric, passed, beyond, [*base, *other])
    found = replace(
        blank, how=how, result="pass" if passed else "can't tell", why=why, remedy=remedy,
        ratios=() if d is None else tuple(metric.ratio(float(one)) for one in d),
        ratio=metric.ratio(float(shift.mean)),
        at_least=at_least, at_most=at_most, at_least_level=at_least_level, at_most_level=at_most_level,
        p=p_worse(shift),
        hodges_lehmann=metric.ratio(hodges_lehmann_shift(x, y) if d is None else hodges_lehmann(d)),
        wilcoxon_p=rank_sum_p(x, y) if d is None else signed_rank_p(d),
    )  # fmt: skip
    said = "worse, but within the margin" if found.worse_within else why
    if metric.ok_only and (failed := sum(run.failed for run in (*base, *other))):
        said = f"{said}{'; ' if said else ''}over requests that ended ok: the error rule judges the {failed:,} failed"
    return Compared(replace(found, why=said), shift, metric.log_margin, beyond)


def _unless_overloaded(
    metric: GateMetric, passed: bool, beyond: bool, runs: Sequence[GateRun]
) -> tuple[bool, str, str]:
    """(whether it may pass, why not, what to do): latencies of overloaded runs may fail, not pass."""
    if not metric.latency or beyond or not any(run.overloaded for run in runs):
        return passed, "", ""
    why = "requests in flight grew all along: such latencies grow with the run's duration and can't pass"
    return False, why, "Lower the load, or judge what the target carries at a saturated point (closed 256)."


def _shift(x: Floats, y: Floats, base: Sequence[GateRun], other: Sequence[GateRun], window: bool) -> tuple[Shift, How]:
    """The difference, and how it was found."""
    if base[0].pair is not None:
        return paired(y - x), "paired"
    if window and has_trend(base, other):
        days = [np.array([run.manifest.t0_unix_ns / 8.64e13 for run in side]) for side in (base, other)]
        return drifting(x, days[0], y, days[1]), "unpaired, with drift"
    return unpaired(x, y), "unpaired"


def has_trend(base: Sequence[GateRun], other: Sequence[GateRun]) -> bool:
    """Whether a trend over time can be told from these runs of one point."""
    return len({run.manifest.t0_unix_ns for run in base}) >= _TREND_TIMES and len(base) + len(other) >= _TREND_RUNS


def _by_good_requests(
    metric: GateMetric, blank: MetricVerdict, base: Sequence[GateRun], other: Sequence[GateRun], design: Design,
    margin: float,
) -> Compared:  # fmt: skip
    """Failures make a percentile infinite somewhere: the shares of good requests decide, if an SLO says what is good.

    The share of requests that ended ok would not do: it says nothing of their latency.
    """
    endless = sum(value is not None and math.isinf(value) for value in (*blank.baseline, *blank.candidate))
    said = f"failures make {metric.label} infinite in {endless} of {len(base) + len(other)} runs"
    found = good_share(base, other, margin, design.pass_tail())
    if found is None:
        remedy = (
            "Say in the spec what a good request is (slo: {good: ...}), so that their shares can be compared;"
            " or gate a percentile below the share that fails."
        )
        return Compared(replace(blank, why=said, remedy=remedy))
    beyond = found.lost > 0 and found.lost >= margin
    passed, why, remedy = _unless_overloaded(metric, found.most < margin, beyond, [*base, *other])
    judged = replace(
        blank, label=f"good requests (for {metric.label})", how="share of good requests",
        result="pass" if passed else "can't tell", why=why or said, remedy=remedy, p=found.p, good=found,
    )  # fmt: skip
    return Compared(judged, beyond=beyond)
