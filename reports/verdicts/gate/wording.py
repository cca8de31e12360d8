"""A verdict in words: why, and what to do. Every document says the same."""

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Final

from tailgate.reports.metrics.catalogue import METRICS
from tailgate.reports.stats.between_runs import MOST_PAIRS
from tailgate.reports.summary.objective_model import counts_in_words
from tailgate.reports.verdicts.gate.comparability import Declared
from tailgate.reports.verdicts.gate.comparison import MetricVerdict
from tailgate.reports.verdicts.gate.policy import WHOLE, Policy
from tailgate.reports.verdicts.gate.result import Verdict
from tailgate.reports.verdicts.gate.thresholds import ThresholdVerdict
from tailgate.workloads.common.formatting import with_unit

# Of a difference between the deployments: is it declared as the thing under test?
DECLARED: Final[dict[Declared, str]] = {"declared": "yes", "follows": "follows from it", "": "no"}


def percent(ratio: float, digits: int = 1) -> str:
    """A ratio as a change: 1.052 is `+5.2 %`, 140 is `140×`."""
    if not math.isfinite(ratio):
        return "∞"
    if ratio >= 10:
        return f"{ratio:,.0f}×"
    change = round(100 * (ratio - 1), 0 if abs(ratio - 1) >= 1 else digits)
    return f"{change:+.{0 if abs(change) >= 100 else digits}f} %".replace("-", "−") if change else "0 %"


def name_of(metric: MetricVerdict | ThresholdVerdict) -> str:
    """The metric, with its point where the policy has several."""
    label = metric.label if isinstance(metric, MetricVerdict) else metric.objective
    return label if metric.point == WHOLE else f"{label} @ {metric.point}"


def interval(metric: MetricVerdict) -> str:
    """`+1.2 % (−0.5 % to +2.9 %)`, of shares `−2.1 points (at most −2.9)`; a dash where nothing was estimated."""
    if metric.good is not None:
        return f"{points(-metric.good.lost)} points (at most {points(-metric.good.most)})"
    if metric.ratio is None:
        return "-"
    if metric.at_least is None or metric.at_most is None:
        return percent(metric.ratio)
    ends = metric.at_least, metric.at_most
    # A bound that just misses the margin must not read as if it met it.
    digits = 2 if limit(metric) in [percent(end) for end in ends] else 1
    return f"{percent(metric.ratio, digits)} ({' to '.join(percent(end, digits) for end in ends)})"


def limit(metric: MetricVerdict) -> str:
    """The margin as it counts: `+5.0 %`, `−3.0 %` where less is worse, `−1.00 points` of shares."""
    if metric.good is not None:
        return f"{points(-metric.good.margin)} points"
    return percent(1 - metric.margin if metric.higher else 1 + metric.margin)


def points(difference: float) -> str:
    """A difference of shares in points: 0.012 is `+1.20`."""
    return f"{100 * difference:+.2f}".replace("-", "−")


def both_sides(metric: MetricVerdict) -> tuple[str, str]:
    """What each side had, as it was tested: the geometric mean of its runs with the unit, or its share.

    The tested change is the ratio of the two geometric means (with a drift, the same beside the trend).
    """
    if metric.good is not None:
        return f"{100 * metric.good.baseline.share:.2f} %", f"{100 * metric.good.candidate.share:.2f} %"
    baseline, candidate = (with_unit(middle(side), metric.unit) for side in (metric.baseline, metric.candidate))
    return baseline, candidate


def middle(values: Sequence[float | None]) -> float | None:
    """The geometric mean of the runs that have a value, 0 or infinite if one is; None without any."""
    present = [value for value in values if value is not None]
    if not present:
        return None
    if math.inf in present or min(present) <= 0:
        return math.inf if math.inf in present else 0.0
    return statistics.geometric_mean(present)


def threshold_figures(threshold: ThresholdVerdict) -> str:
    """Value and bounds in the threshold's own unit; how many are over it where a percentile has no value."""
    metric = METRICS[threshold.metric]
    figures = [("", threshold.value), ("at least ", threshold.below), ("at most ", threshold.above)]
    parts = [f"{word}{with_unit(value * metric.scale, metric.unit)}" for word, value in figures if value is not None]
    counts = counts_in_words(threshold.value, threshold.why, threshold.beyond)
    return ", ".join([*parts, counts] if counts else parts) or "-"


def why_of(verdict: Verdict, dead: tuple[str, str] | None, policy: Policy) -> str:
    """One sentence for the head of every document."""
    if dead:
        side, what = dead
        tail = "; there is nothing to compare with" if side == "baseline" else ""
        return f"The {side} does not work: {what}{tail}."
    if verdict.errors is not None and verdict.errors.outcome == "fail":
        return f"The candidate fails more often: {verdict.errors.says}."
    if verdict.verdict == "FAIL":
        return _failed(verdict)
    if verdict.verdict == "PASS":
        return _passed(verdict)
    if not verdict.metrics and not verdict.thresholds:
        were = "was" if verdict.pairs == 1 else "were"
        return f"Only {verdict.pairs} of {policy.pairs} pairs {were} measured, so nothing was judged."
    unsure = [_unsure(metric) for metric in verdict.metrics if metric.result in ("can't tell", "refused")]
    unsure += [_unsure_threshold(t) for t in verdict.thresholds if t.result == "can't tell"]
    return f"These runs can't decide it: {'; '.join(unsure)}."


def _failed(verdict: Verdict) -> str:
    slower = [f"{name_of(m)} {interval(m)}, margin {limit(m)}" for m in verdict.metrics if m.result == "fail"]
    broken = [f"{name_of(t)} is broken ({threshold_figures(t)})" for t in verdict.thresholds if t.result == "broken"]
    head = "The candidate is worse: " if slower else "A limit is not kept: "
    return f"{head}{'; '.join([*slower, *broken])}."


def _passed(verdict: Verdict) -> str:
    parts = []
    if verdict.metrics:
        figures = "; ".join(f"{name_of(metric)} {interval(metric)}" for metric in verdict.metrics)
        parts.append(f"The candidate is not worse than the margins allow: {figures}")
        if within := [name_of(metric) for metric in verdict.metrics if metric.worse_within]:
            parts.append(f"{' and '.join(within)} {'is' if len(within) == 1 else 'are'} worse within the margin")
    if verdict.thresholds:
        parts.append("Every threshold is met")
    return ". ".join(parts) + "."


def _unsure(metric: MetricVerdict) -> str:
    if metric.why and interval(metric) == "-":
        return f"{name_of(metric)}: {metric.why}"
    why = f"; {metric.why}" if metric.why else ""
    return f"{name_of(metric)} {interval(metric)}, margin {limit(metric)}{why}"


def _unsure_threshold(threshold: ThresholdVerdict) -> str:
    figures = threshold_figures(threshold)
    return f"{name_of(threshold)}: {threshold.why}{'' if figures == '-' else f' ({figures})'}"


def advice_of(verdict: Verdict, dead: tuple[str, str] | None) -> Iterator[str]:
    """What to do, most useful first."""
    if dead:
        yield f"Look at server.log in the {dead[0]}'s run directories."
    elif verdict.verdict == "FAIL":
        for cause in verdict.causes[:2]:
            yield f"Look first at the {cause.place}: {cause.says} {cause.remedy}"
        if not verdict.causes and any(metric.result == "fail" for metric in verdict.metrics):
            yield "The servers' own metrics don't show a reason: compare the runs' reports (tailgate compare)."
    elif verdict.verdict == "INCONCLUSIVE":
        undecided = [metric for metric in verdict.metrics if metric.result in ("can't tell", "refused")]
        yield from dict.fromkeys(_settling(metric, verdict) for metric in undecided)
        if any(threshold.result == "can't tell" for threshold in verdict.thresholds):
            yield "Measure longer, or make more runs, to decide the thresholds."


def _settling(metric: MetricVerdict, verdict: Verdict) -> str:
    if metric.remedy:
        return f"{name_of(metric)}: {metric.remedy}" if metric.result != "refused" else metric.remedy
    if metric.good is not None:
        return f"{name_of(metric)}: more requests would show whether fewer of them are good."
    runs = "pairs" if metric.how == "paired" else "runs a side"
    if metric.settle_pairs is None:
        settling = (
            f"more than {MOST_PAIRS} {runs} would be needed to decide, since it is about as much worse as the margin"
            " allows"
        )
    else:
        settling = f"about {metric.settle_pairs} {runs} would decide{_price(metric, verdict)}"
    return f"{name_of(metric)}: {_detectable(metric)}{settling}."


def _detectable(metric: MetricVerdict) -> str:
    if metric.detectable is None:
        return ""
    change = 100 * abs(metric.detectable - 1)
    word = "drop" if metric.higher else "slowdown" if metric.unit == "ms" else "rise"
    return f"this test could have detected a {word} of {change:,.{0 if change >= 10 else 1}f} % or more; "


def _price(metric: MetricVerdict, verdict: Verdict) -> str:
    spent = verdict.spent
    if spent is None or not spent.pairs or metric.settle_pairs is None:
        return ""
    more, dollars = max(metric.settle_pairs - verdict.pairs, 0), spent.dollars_per_pair
    money = "" if dollars is None else f" and ${more * dollars:.2f}"
    return f" ({more} more: {duration(more * spent.seconds_per_pair)}{money})"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
