"""The figures of a gate's page: every pair as a dot, and the trend over earlier verdicts."""

import math
from collections.abc import Sequence
from typing import Final

from tailgate.reports.documents.gate.history import Entry
from tailgate.reports.documents.model import Figure, Row, Table
from tailgate.reports.documents.plots import primitives as draw
from tailgate.reports.verdicts.gate.comparison import MetricVerdict
from tailgate.reports.verdicts.gate.result import Verdict
from tailgate.reports.verdicts.gate.wording import interval, limit, name_of, percent
from tailgate.workloads.common.formatting import plain

_COLOURS: Final = {"pass": "--pass", "fail": "--fail"}
_TREND: Final = ("--c1", "--c2", "--c3", "--c5")
_AXIS: Final = "candidate against baseline, %"
_STRIP_WIDTH: Final = 41


def pairs(verdict: Verdict) -> Figure | None:
    """Each metric a row: a dot a pair, the estimate with its bounds, the margin as a mark. None without estimates."""
    strips = [(name_of(metric), strip) for metric in verdict.metrics if (strip := dots(metric))]
    metrics = [m for m in verdict.metrics if m.ratio is not None and m.at_least is not None]
    if not metrics:
        return None
    traces: list[draw.Json] = []
    marks = [draw.reference(0, "--faint")]
    words: list[draw.Json] = []
    for y, metric in enumerate(reversed(metrics)):
        colour = _COLOURS.get(metric.result, "--c6")
        changes, heights = [_change(ratio) for ratio in metric.ratios], [y + 0.16] * len(metric.ratios)
        texts = [f"pair {n}: {percent(ratio)}" for n, ratio in enumerate(metric.ratios, 1)]
        circle = {"size": 10, "opacity": 0.55, "line": {"width": 1, "color": "--ink"}}
        traces.append(draw.points(changes, heights, colour, hover="%{text}", text=texts, marker=circle))
        ratio, low, high = (_change(v or 1.0) for v in (metric.ratio, metric.at_least, metric.at_most))
        bars, hover = draw.error_bars([ratio], [low], [high], colour, 2), draw.label(interval(metric), 80)
        diamond = {"size": 11, "symbol": "diamond"}
        traces.append(draw.points([ratio], [y - 0.16], colour, hover=hover, marker=diamond, error_x=bars))
        margin = _change(metric.limit)
        marks.append(draw.reference(margin, "--fail", other="y", ends=(y - 0.34, y + 0.34), width=2, dash="dot"))
        style = {"font": {"size": 11, "color": "--fail"}, "yanchor": "bottom"}
        words.append(draw.text(f"margin {limit(metric)}", margin, y + 0.34, "x", "y", **style))
    names = [draw.label(name_of(metric), 80) for metric in reversed(metrics)]
    x = draw.axis(_AXIS, zeroline=False)
    y_axis = {"tickvals": [*range(len(metrics))], "ticktext": names, "range": [-0.6, len(metrics) - 0.3]}
    drawn = draw.layout(90 + 74 * len(metrics), x, y_axis, hovermode="closest", shapes=marks, annotations=words)
    rows = [[name_of(m), interval(m), limit(m), ", ".join(map(percent, m.ratios)) or "-"] for m in metrics]
    caption = (
        "Each circle is a pair of runs; the diamond with its bar is the estimate with its bounds. Beyond the dotted "
        "margin the candidate is worse than allowed."
    )
    table = Table(["metric", "change", "margin", "pairs"], rows, dash="the runs were not made in pairs")
    return Figure("pairs", "Pair by pair", caption, traces, drawn, table, strips)


def _change(ratio: float) -> float:
    return 100 * (ratio - 1)


def dots(metric: MetricVerdict) -> str:
    """The pairs in plain text, between the ends that are written: `│` is no change, `┊` the margin.

    One dot a pair; a digit stands for several pairs. Empty without pairs.
    """
    if not metric.ratios:
        return ""
    shifts = [math.log(ratio) for ratio in metric.ratios]
    margin = math.log(metric.limit)
    low, high = min(*shifts, -1.5 * abs(margin)), max(*shifts, 1.5 * abs(margin))
    places = [round((shift - low) / (high - low) * (_STRIP_WIDTH - 1)) for shift in (0.0, margin, *shifts)]
    marks = ["·"] * _STRIP_WIDTH
    marks[places[0]], marks[places[1]] = "│", "┊"
    for place in places[2:]:
        count = places[2:].count(place)
        marks[place] = "●" if count == 1 else str(min(count, 9))
    return f"{percent(math.exp(low)):>9} {''.join(marks)} {percent(math.exp(high))}"


def trend(entries: Sequence[Entry], verdict: Verdict) -> Figure | None:
    """The change of each metric over earlier verdicts of this gate; None with fewer than two."""
    entries = [entry for entry in entries if entry.name == verdict.name]
    traces: list[draw.Json] = []
    rows: list[Row] = []
    for place, metric in enumerate(verdict.metrics):
        past = [(entry, m) for entry in entries if (m := entry.metric(metric.point, metric.key)) is not None]
        if len(past) < 2:
            continue
        colour, name = _TREND[place % len(_TREND)], name_of(metric)
        changes, lows, highs = ([_change(getattr(m, end)) for _, m in past] for end in ("ratio", "at_least", "at_most"))
        bars = draw.error_bars(changes, lows, highs, colour, 1)
        style = draw.joined(draw.label(name, 80), colour, 1.4)
        traces.append(draw.points([entry.at for entry, _ in past], changes, colour, error_y=bars, **style))
        rows += [[e.at, name, e.verdict, percent(m.ratio), plain(m.baseline), plain(m.candidate)] for e, m in past]
    if not traces:
        return None
    table = Table(["when", "metric", "verdict", "change", "baseline", "candidate"], rows, words=(0, 1, 2))
    caption = "Every verdict of the history with its bounds: a slow creep shows here, pair by pair it may not."
    drawn = draw.layout(320, {}, draw.axis(_AXIS), shapes=[draw.reference(0, "--faint", axis="y")], **draw.LEGEND)
    return Figure("trend", "Over earlier verdicts", caption, traces, drawn, table)
