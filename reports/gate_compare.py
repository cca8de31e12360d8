"""One metric at one point: candidate against baseline, with everything the judgement rests on.

    PASS   the upper bound of how much worse it is lies below the margin
    FAIL   its lower bound lies above zero, and the estimate reaches the margin (Holm over all metrics)

Which metrics there are and what follows for the whole is `reports.verdict`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np

from reports.gate_design import Design
from reports.gate_errors import GoodShare, good_share
from reports.gate_metrics import GateMetric, require_load
from reports.gate_runs import GateRun
from reports.gate_stats import (
    Shift,
    detectable,
    drifting,
    hodges_lehmann,
    hodges_lehmann_shift,
    p_worse,
    paired,
    pairs_to_settle,
    rank_sum_p,
    signed_rank_p,
    t_point,
    unpaired,
)
from reports.rundata import Floats
from workloads.errors import UserError

Result = Literal["pass", "fail", "can't tell", "refused", "withheld"]
How = Literal["paired", "unpaired", "unpaired, with drift", "share of good requests", ""]
# Sides whose chunks hold several tokens this much more often than the other's have gaps that mean other things.
MULTI_TOKEN_SHARE: Final = 0.01


@dataclass(frozen=True)
class MetricVerdict:
    """One comparison. Ratios are candidate / baseline; "worse" is the direction in which the metric degrades.

    Attributes:
        key, label, unit, point: what was compared, at which load.
        margin: acceptable, as a fraction; `higher`: whether more is better.
        how: which comparison was made.
        result: what came out; `why` says what a reader must know besides.
        baseline, candidate: each run's figure, in the order of the pairs; None where a run has none.
        ratios: of each pair; empty where there are no pairs.
        ratio: the estimate.
        at_least, at_most: one-sided bounds of the ratio, of the levels `at_least_level` and `at_most_level`.
        limit: the ratio that the margin allows.
        p: one-sided p-value of "not worse".
        holm: the level that Holm's procedure held it against.
        hodges_lehmann, wilcoxon_p: the same without the normal distribution, for comparison.
        detectable: smallest slowdown (as a ratio) that would have been proved in four of five cases.
        settle_pairs: pairs that would settle it if things are as they look; None where too many, or settled.
        good: where the share of good requests was judged instead.
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
    _beyond: bool = field(default=False, repr=False)  # the estimate reaches the margin


def passes(shift: Shift, margin: float, point: float) -> Any:
    """Whether the upper bound lies below the margin; `point` is t's for the tail. Scalars or arrays."""
    return shift.mean + point * shift.error < margin


def compare(
    metric: GateMetric, point: str, base: Sequence[GateRun], other: Sequence[GateRun], design: Design, window: bool
) -> MetricVerdict:
    """Compare the runs of both sides at one point; a FAIL is not decided here (see `holm`).

    Args:
        metric: what is compared.
        point: the load's name.
        base, other: runs in the order of their pairs, or of their time where there are none.
        design: the error that this look may make.
        window: stored runs of a rolling window: take a trend over time into account.

    Raises:
        UserError: a side has no such figure, or the load decides it and not the target.
    """
    runs = [*base, *other]
    if not metric.latency and any(run.manifest.loop == "open" and not run.overloaded for run in runs):
        raise require_load(metric, f"metrics.{metric.key}")
    blank = _blank(metric, point)
    if metric.figure == "itl" and (why := _itl_refused(base, other)):
        return replace(blank, result="refused", why=why)
    a, b = ([metric.value(run.summary) for run in side] for side in (base, other))
    blank = replace(blank, baseline=tuple(a), candidate=tuple(b))
    if why := _lacking(metric, (a, base), (b, other)):
        return replace(blank, why=why)
    if any(value is not None and math.isinf(value) for value in (*a, *b)):
        return _by_good_requests(metric, blank, base, other, design)
    known_a, known_b = np.array(a, np.float64), np.array(b, np.float64)
    if (known_a <= 0).any() or (known_b <= 0).any():
        return replace(blank, result="refused", why=f"{metric.label} is 0 in a run, so that ratios mean nothing")
    return _by_logs(metric, blank, base, other, design, window)


def _blank(metric: GateMetric, point: str) -> MetricVerdict:
    return MetricVerdict(
        metric.key, metric.label, metric.unit, point, metric.margin, metric.higher, "", "can't tell",
        limit=metric.ratio(metric.log_margin),
    )  # fmt: skip


def _by_logs(
    metric: GateMetric, blank: MetricVerdict, base: Sequence[GateRun], other: Sequence[GateRun], design: Design,
    window: bool,
) -> MetricVerdict:  # fmt: skip
    x, y = (
        np.array([metric.worse_log(v) for v in side if v is not None]) for side in (blank.baseline, blank.candidate)
    )
    shift, how, deviation = _shift(x, y, base, other, window)
    tails = design.pass_tail(), design.fail_tail()
    upper = shift.mean + t_point(tails[0], shift.df) * shift.error
    lower = shift.mean - t_point(tails[1], shift.df) * shift.error
    # In ratios the two change places where more is better.
    ends = [(metric.ratio(lower), 1 - tails[1]), (metric.ratio(upper), 1 - tails[0])]
    (at_least, at_least_level), (at_most, at_most_level) = ends[::-1] if metric.higher else ends
    d = y - x if how == "paired" else None
    passed = bool(passes(shift, metric.log_margin, t_point(tails[0], shift.df)))
    why = "worse, but within the margin" if passed and lower > 0 else ""
    if passed and metric.latency and any(run.overloaded for run in (*base, *other)):
        passed = False
        why = "requests in flight grew all along: such latencies grow with the run's duration and can't pass"
    settle = None if passed else pairs_to_settle(deviation, float(shift.mean), metric.log_margin, tails)
    return replace(
        blank, how=how, result="pass" if passed else "can't tell", why=why,
        ratios=() if d is None else tuple(metric.ratio(float(one)) for one in d),
        ratio=metric.ratio(float(shift.mean)),
        at_least=at_least, at_most=at_most, at_least_level=at_least_level, at_most_level=at_most_level,
        p=p_worse(shift),
        hodges_lehmann=metric.ratio(hodges_lehmann_shift(x, y) if d is None else hodges_lehmann(d)),
        wilcoxon_p=rank_sum_p(x, y) if d is None else signed_rank_p(d),
        detectable=metric.ratio(max(metric.log_margin, detectable(shift, tails[1]))),
        settle_pairs=settle, _beyond=bool(shift.mean >= metric.log_margin),
    )  # fmt: skip


def _shift(
    x: Floats, y: Floats, base: Sequence[GateRun], other: Sequence[GateRun], window: bool
) -> tuple[Shift, How, float]:
    """The difference, how it was found, and the standard deviation of one pair's difference."""
    if base[0].pair is not None:
        d = y - x
        return paired(d), "paired", float(d.std(ddof=1))
    a_days, b_days = (np.array([run.manifest.t0_unix_ns / 8.64e13 for run in side]) for side in (base, other))
    if window and len(np.unique(a_days)) >= 3 and len(x) + len(y) >= 5:
        shift = drifting(x, a_days, y, b_days)
        return shift, "unpaired, with drift", float(shift.error) * math.sqrt(shift.n)
    shift = unpaired(x, y)
    return shift, "unpaired", float(shift.error) * math.sqrt(shift.n)


def _by_good_requests(
    metric: GateMetric, blank: MetricVerdict, base: Sequence[GateRun], other: Sequence[GateRun], design: Design
) -> MetricVerdict:
    """Failures make the latency infinite somewhere: then the share of good requests decides, by an exact test."""
    found = good_share(base, other)
    passed = found.most < metric.margin * found.baseline.share
    lost = found.baseline.share - found.candidate.share
    said = f"failures make it infinite in a run; {100 * found.candidate.share:.2f} % of the candidate's requests are"
    return replace(
        blank, how="share of good requests", result="pass" if passed else "can't tell",
        why=f"{said} good, {100 * found.baseline.share:.2f} % of the baseline's",
        ratio=found.candidate.share / found.baseline.share if found.baseline.share else None,
        p=found.p, good=found, _beyond=lost > 0 and lost >= metric.margin * found.baseline.share,
    )  # fmt: skip


def holm(found: Sequence[MetricVerdict], design: Design) -> list[MetricVerdict]:
    """Decide which of the comparisons FAIL: Holm's step-down procedure (1979) over all that have a p-value."""
    order = sorted((place for place, one in enumerate(found) if one.p is not None), key=lambda i: found[i].p or 0.0)
    decided, rejecting = list(found), True
    for step, place in enumerate(order):
        one = found[place]
        level = design.fail_tail(len(order) - step)
        rejecting = rejecting and (one.p or 0.0) < level
        result: Result = "fail" if rejecting and one._beyond else one.result
        decided[place] = replace(one, holm=level, result=result, settle_pairs=_settle(one, result))
    return decided


def _settle(one: MetricVerdict, result: Result) -> int | None:
    return one.settle_pairs if result == "can't tell" else None


def _lacking(metric: GateMetric, *sides: tuple[Sequence[float | None], Sequence[GateRun]]) -> str:
    """Why a figure is missing although there could be one: too few requests for a percentile.

    Raises:
        UserError: a side never has it.
    """
    for values, runs in sides:
        for value, run in zip(values, runs, strict=True):
            if value is not None:
                continue
            needs = _needs(metric, run)
            if needs is None:
                raise UserError(
                    f"{run.path.name} ({run.side}) has no {metric.key}", where=f"metrics.{metric.key}",
                    remedy=_remedy(metric),
                )  # fmt: skip
            had = run.summary["latency_ms"][metric.figure]["n"]
            return f"{metric.label} needs {needs:,} requests a run, {run.path.name} had {had:,}"
    return ""


def _needs(metric: GateMetric, run: GateRun) -> int | None:
    if metric.percentile is None:
        return None
    needs = (run.summary.get("percentile_needs") or {}).get(metric.figure) or {}
    found = needs.get(metric.key.partition(".")[2])
    return None if found is None else int(found)


def _remedy(metric: GateMetric) -> str:
    if metric.key.startswith("cost"):
        return "Give the price of its GPUs (gpus: {type: h100-sxm} or {price_per_hour: 2.49})."
    if metric.key.startswith("energy"):
        return "Energy needs GPU telemetry on both sides."
    if metric.key == "goodput":
        return "Goodput needs an SLO that says what a good request is (slo: {good: ...})."
    return "Gate a figure that both sides have."


def _itl_refused(base: Sequence[GateRun], other: Sequence[GateRun]) -> str:
    shares = [[r.multi_token_share for r in side if r.multi_token_share is not None] for side in (base, other)]
    if all(shares):
        a, b = (sum(side) / len(side) for side in shares)
        if abs(a - b) > MULTI_TOKEN_SHARE:
            return (
                f"{100 * a:.1f} % of the baseline's chunks hold several tokens, {100 * b:.1f} % of the candidate's"
                " (speculative decoding, stream_interval): their gaps mean different things. Gate tpot and stall"
            )
    for run in (*base, *other):
        if any(finding["kind"] == "gateway_coalesced" for finding in run.summary.get("findings", ())):
            return f"a gateway sends tokens bundled ({run.path.name}). Gate tpot and stall"
    return ""
