"""A comparison in one sentence: on what each configuration is better or worse than the first, and what can't be told.

It says no more than the ratios' own intervals do: each is a 95 % interval by itself. What lies within ALIKE of the
first, interval and all, is neither better nor worse.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from tailgate.reports.compare.comparison import Comparison, Configuration
from tailgate.reports.metrics.catalogue import Metric

ALIKE: Final = 0.01
# What a sentence is about, and the figures that tell. Failures count as late: who drops slow requests is not faster.
_SUBJECTS: Final = {
    "speed": ("ttft.p50", "ttft_failed_as_inf.p99", "tpot.mean", "e2e.p50", "e2e.p99"),
    "throughput": ("output_tokens_per_s",),
    "cost": ("cost.per_million_output",),
    "energy": ("energy.j_per_output_token",),
}
# Percentage points by which failing is no longer alike.
_FAILED_APART: Final = 0.1


def verdict_of(comparison: Comparison) -> str:
    """The sentence; it begins with what forbids one, where the runs are compared in spite of that."""
    if comparison.obstacles:
        return f"No verdict, since these runs should not be compared: {'; '.join(comparison.obstacles)}."
    first = comparison.points[0].label
    others = [point for point in comparison.points if point.label != first]
    if not others:
        return f"No verdict: all runs are of {first}. Name runs of another configuration too."
    loads = {point.load for point in comparison.points}
    return f"Against {first}: {' '.join(_of_point(comparison, point, len(loads) > 1) for point in others)}"


def _of_point(comparison: Comparison, point: Configuration, several_loads: bool) -> str:
    name = point.name if several_loads else point.label
    if not point.ratios:
        return f"{name} has nothing to be compared with."
    if all(ratio.low is None for ratio in point.ratios.values()):
        return f"{name} is not told apart, since one run a side has no interval: make at least two of each."
    said: dict[str, list[str]] = {mark: [] for mark in ("better", "worse", "alike", "unsure")}
    for subject, metrics in _shown(comparison, point):
        for mark, names in _on_subject(subject, metrics, point).items():
            said[mark] += names
    within = f" (within {100 * ALIKE:g} %)"
    clauses = [
        f"{mark} on {_listed(said[mark])}{within if mark == 'alike' else ''}"
        for mark in ("better", "worse", "alike")
        if said[mark]
    ]
    ends = [_failing_more(comparison, point), f"{_listed(said['unsure'])} not told apart" if said["unsure"] else ""]
    parts = [*([f"is {_listed(clauses)}"] if clauses else []), *filter(None, ends)]
    if not parts:
        return f"{name} has no figure that both have."
    return f"{name}{' ' if clauses else ': '}{'; '.join(parts)}."


def _on_subject(subject: str, metrics: Sequence[Metric], point: Configuration) -> dict[str, list[str]]:
    """By mark what to name: the subject where its figures agree, the figures by themselves where they don't."""
    by_mark: dict[str, list[str]] = {"better": [], "worse": [], "alike": [], "unsure": []}
    for metric in metrics:
        by_mark[_mark(point, metric)].append(metric.label.removesuffix(", failures late"))
    better, worse, alike, unsure = by_mark.values()
    if better and worse:
        return {"better": better, "worse": worse, "unsure": unsure}
    if better or worse:
        return {"better" if better else "worse": [subject], "unsure": unsure}
    return {"unsure": unsure if alike else [subject]} if unsure else {"alike": [subject]}


def _shown(comparison: Comparison, point: Configuration) -> Iterator[tuple[str, list[Metric]]]:
    """Each subject with the figures that both sides have; what is carried below saturation is the load's doing."""
    by_key = {metric.key: metric for metric in comparison.metrics}
    for subject, keys in _SUBJECTS.items():
        if subject == "throughput" and comparison.load_limited:
            continue
        if metrics := [by_key[key] for key in keys if key in by_key and key in point.ratios]:
            yield subject, metrics


def _mark(point: Configuration, metric: Metric) -> str:
    """`better`, `worse`, `alike`, or `unsure` where it can't be told."""
    ratio = point.ratios[metric.key]
    if ratio.low is None or ratio.high is None:
        return "unsure"
    if 1 - ALIKE < ratio.low <= ratio.high < 1 + ALIKE:
        return "alike"
    better = ratio.better(metric.higher)
    return "unsure" if better is None else "better" if better else "worse"


def _failing_more(comparison: Comparison, point: Configuration) -> str:
    first = comparison.points[0].label
    base = next((p for p in comparison.points if (p.label, p.load) == (first, point.load)), None)
    a, b = (None if p is None else p.figures["errors"].value for p in (base, point))
    if a is None or b is None or abs(a - b) <= _FAILED_APART:
        return ""
    return f"{b:.2g} % of its requests failed, against {a:.2g} %"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
