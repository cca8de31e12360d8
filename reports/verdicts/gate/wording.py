"""A verdict in words: why, and what to do; the same in every document."""

import math
import statistics
from collections.abc import Iterator
from typing import Final

from tailgate.reports.stats.between_runs import MOST_PAIRS
from tailgate.reports.verdicts.gate.comparability import Declared
from tailgate.reports.verdicts.gate.comparison import MetricVerdict
from tailgate.reports.verdicts.gate.policy import WHOLE, Policy
from tailgate.reports.verdicts.gate.result import Verdict
from tailgate.reports.verdicts.gate.thresholds import ThresholdVerdict
from tailgate.workloads.common.formatting import plain

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
    """What each side had: the middle one of its runs with the unit, or its share."""
    if metric.good is not None:
        return f"{100 * metric.good.baseline.share:.2f} %", f"{100 * metric.good.candidate.share:.2f} %"
    return _median(metric.baseline, metric.unit), _median(metric.candidate, metric.unit)


def _median(values: tuple[float | None, ...], unit: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    middle = statistics.median(known)
    if math.isinf(middle):
        return "∞"
    return f"${plain(middle)}" if unit == "$" else f"{plain(middle)} {unit}".replace(" /", "/")


def threshold_figures(one: ThresholdVerdict) -> str:
    """Value and bounds in the threshold's own unit."""
    share = one.metric in ("errors", "attained")
    unit = " %" if share else "/s" if one.metric.endswith("_per_s") or one.metric == "goodput" else " ms"
    scale = 100 if share else 1
    parts = [("", one.value), ("at least ", one.below), ("at most ", one.above)]
    told = [f"{word}{plain(v * scale)}{unit}" for word, v in parts if v is not None]
    return ", ".join(told) or "-"


def _found(one: ThresholdVerdict) -> str:
    figures = threshold_figures(one)
    return one.why if figures == "-" else f"{one.why} ({figures})"


def why_of(found: Verdict, dead: tuple[str, str] | None, policy: Policy) -> str:
    """One sentence for the head of every document."""
    if dead:
        side, what = dead
        tail = "; there is nothing to compare with" if side == "baseline" else ""
        return f"The {side} does not work: {what}{tail}."
    if found.errors is not None and found.errors.outcome == "fail":
        return f"The candidate fails more often: {found.errors.says}."
    broken = [f"{name_of(t)} is broken ({threshold_figures(t)})" for t in found.thresholds if t.result == "broken"]
    slower = [f"{name_of(m)} {interval(m)}, margin {limit(m)}" for m in found.metrics if m.result == "fail"]
    if found.verdict == "FAIL":
        return f"{'Worse' if slower else 'Limits'}: {'; '.join([*slower, *broken])}."
    if found.verdict == "PASS":
        return _passed(found)
    if not found.metrics and not found.thresholds:
        return f"Only {found.pairs} of {policy.pairs} pairs were measured: nothing was judged."
    unsure = [_unsure(m) for m in found.metrics if m.result in ("can't tell", "refused")]
    unsure += [f"{name_of(t)}: {_found(t)}" for t in found.thresholds if t.result == "can't tell"]
    return f"The data can't tell: {'; '.join(unsure)}."


def _passed(found: Verdict) -> str:
    parts = []
    if found.metrics:
        within = [name_of(m) for m in found.metrics if m.worse_within]
        parts.append(
            f"Not worse than the margins allow: {'; '.join(f'{name_of(m)} {interval(m)}' for m in found.metrics)}"
        )
        if within:
            parts.append(f"{' and '.join(within)} {'is' if len(within) == 1 else 'are'} worse within the margin")
    if found.thresholds:
        parts.append("every threshold is met")
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def _unsure(metric: MetricVerdict) -> str:
    if metric.why and interval(metric) == "-":
        return f"{name_of(metric)}: {metric.why}"
    why = f"; {metric.why}" if metric.why else ""
    return f"{name_of(metric)} {interval(metric)}, margin {limit(metric)}{why}"


def advice_of(found: Verdict, dead: tuple[str, str] | None) -> Iterator[str]:
    """What to do, most useful first."""
    if dead:
        yield f"Look at server.log in the {dead[0]}'s run directories."
        return
    if found.verdict == "FAIL":
        for cause in found.causes[:2]:
            yield f"Look first at the {cause.place}: {cause.says} {cause.remedy}"
        if not found.causes and any(m.result == "fail" for m in found.metrics):
            yield "The servers' own metrics don't show a reason: compare the runs' reports (tailgate compare)."
        return
    if found.verdict == "INCONCLUSIVE":
        yield from dict.fromkeys(_settling(m, found) for m in found.metrics if m.result in ("can't tell", "refused"))
        if any(t.result == "can't tell" for t in found.thresholds):
            yield "Measure longer, or more runs, to tell the thresholds."


def _settling(metric: MetricVerdict, found: Verdict) -> str:
    if metric.remedy:
        return f"{name_of(metric)}: {metric.remedy}" if metric.result != "refused" else metric.remedy
    if metric.good is not None:
        return f"{name_of(metric)}: more requests would tell whether fewer are good."
    seen = "" if metric.detectable is None else f"it would have proved {percent(metric.detectable)} or worse; "
    runs = "pairs" if metric.how == "paired" else "runs a side"
    if metric.settle_pairs is None:
        near = "it is about as much worse as the margin allows"
        return f"{name_of(metric)}: {seen}more than {MOST_PAIRS} {runs} would be needed to settle it: {near}."
    return f"{name_of(metric)}: {seen}about {metric.settle_pairs} {runs} would settle it{_price(metric, found)}."


def _price(metric: MetricVerdict, found: Verdict) -> str:
    if found.spent is None or not found.spent.pairs or metric.settle_pairs is None:
        return ""
    more = max(metric.settle_pairs - found.pairs, 0)
    dollars = found.spent.dollars_per_pair
    money = "" if dollars is None else f" and ${more * dollars:.2f}"
    return f" ({more} more: {duration(more * found.spent.seconds_per_pair)}{money})"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
