"""The figures of a comparison: ratios, latency against load, Pareto fronts."""

import math
from collections.abc import Sequence
from typing import Final

from tailgate.reports.compare.comparison import Comparison, Configuration, Front
from tailgate.reports.documents.model import Figure, Row, Table
from tailgate.reports.documents.plots import primitives as draw
from tailgate.reports.metrics.catalogue import Metric
from tailgate.reports.stats.between_runs import Ratio
from tailgate.workloads.common.formatting import plain

_COLOURS: Final = ("--c1", "--c2", "--c3", "--c5", "--c6", "--c4")
_RESULTS: Final = {True: ("better", "--pass"), False: ("worse", "--fail"), None: ("neither", "--faint")}
_RATIO_TICKS: Final = (
    (0.9, 0.95, 1.0, 1.05, 1.1), (0.8, 0.9, 1.0, 1.1, 1.25), (0.67, 0.8, 1.0, 1.25, 1.5), (0.5, 0.7, 1.0, 1.4, 2.0),
    (0.2, 0.5, 1.0, 2.0, 5.0), (0.01, 0.1, 1.0, 10.0, 100.0),
)  # fmt: skip
_SHOWN: Final = ("ttft.p50", "ttft.p99", "itl.p99", "tpot.mean", "e2e.p50", "e2e.p99", "output_tokens_per_s")


def _colours(comparison: Comparison) -> dict[str, str]:
    labels = list(dict.fromkeys(point.label for point in comparison.points))
    return {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(labels)}


def forest(comparison: Comparison) -> Figure | None:
    """Ratios to the first label at the same load, with intervals; None where nothing has a ratio.

    Better lies to one side of 1 where less is better, to the other where more is: two groups of rows.
    """
    shown = {*_SHOWN, *(metric.key for metric, _ in comparison.limits)}
    ratios: list[tuple[Metric, Configuration, Ratio]] = []
    places: list[int] = []
    words: list[draw.Json] = []
    for higher in (False, True):
        group = [
            (metric, point, ratio)
            for point in comparison.points
            for metric in comparison.metrics
            if metric.higher == higher and metric.key in shown and (ratio := point.ratios.get(metric.key))
        ]
        if group:
            top = len(ratios) + len(words) // 2
            words += _sides(higher, top)
            places += range(top + 1, top + 1 + len(group))
            ratios += group
    if not ratios:
        return None
    found = [ratio for _, _, ratio in ratios]
    values, lows, highs = [r.value for r in found], [r.low for r in found], [r.high for r in found]
    names = [f"{metric.label} · {point.name}" for metric, point, _ in ratios]
    trace = draw.points(
        values, places, [_RESULTS[ratio.better(metric.higher)][1] for metric, _, ratio in ratios],
        text=[draw.label(name, 80) for name in names], hover="%{text}: × %{x:.3f}", marker={"size": 9},
        error_x=draw.error_bars(values, lows, highs, "--ink"),
    )  # fmt: skip
    under = '<br><span style="font-size:10px;color:--faint">'
    ticks = [f"{draw.label(metric.label)}{under}{_short(point)}</span>" for metric, point, _ in ratios]
    y = {"tickvals": places, "ticktext": ticks, "range": [places[-1] + 0.7, -0.7], "zeroline": False, "showgrid": False}
    first = draw.label(comparison.points[0].label)
    x = draw.axis(f"ratio to {first} at the same load", **_ratio_axis(values, lows, highs))
    one = draw.reference(1, "--faint", dash="dash")
    drawn = draw.layout(90 + 32 * (places[-1] + 1), x, y, hovermode="closest", shapes=[one], annotations=words)
    rows = [
        [name, *map(plain, (ratio.value, ratio.low, ratio.high)), _RESULTS[ratio.better(metric.higher)][0]]
        for name, (metric, _, ratio) in zip(names, ratios, strict=True)
    ]
    caption = (
        "Green is shown to be better, red to be worse; grey is neither. Bars are 95 % intervals between runs; without "
        "a bar there is only one run on a side."
    )
    table = Table(["figure", "ratio", "low", "high", "shown to be"], rows, words=(0, 4), dash="only one run on a side")
    return Figure("forest", "Ratios to the first", caption, [trace], drawn, table)


def _sides(higher: bool, y: float) -> list[draw.Json]:
    """Which side of 1 is better, said above a group of rows."""
    sides = (("better", "--pass"), ("worse", "--fail"))
    (left, one), (right, other) = sides[::-1] if higher else sides
    style = {"yanchor": "middle"}
    return [
        draw.text(f"◀ {left}  ", 0, y, "x", "y", xanchor="right", font={"size": 11, "color": one}, **style),
        draw.text(f"  {right} ▶", 0, y, "x", "y", xanchor="left", font={"size": 11, "color": other}, **style),
    ]


def _ratio_axis(values: Sequence[float], lows: draw.Ends, highs: draw.Ends) -> draw.Json:
    """A logarithmic axis around 1, as far as the ratios go; a long bar may go on."""
    ends = [*values]
    ends += [max(low, v / 1.5) for v, low in zip(values, lows, strict=True) if low is not None]
    ends += [min(high, v * 1.5) for v, high in zip(values, highs, strict=True) if high is not None]
    far = max(abs(math.log10(end)) for end in ends if end > 0)
    ticks = next((ticks for ticks in _RATIO_TICKS if math.log10(ticks[-1]) >= far), _RATIO_TICKS[-1])
    far = 1.08 * max(far, math.log10(ticks[-1]))
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{t:g}" for t in ticks], "range": [-far, far],
            "tickangle": 0, "zeroline": False}  # fmt: skip


def against_load(comparison: Comparison, metric: Metric) -> Figure | None:
    """A latency over the offered load, one line a label; None unless some label ran at several loads."""
    by_label: dict[str, list[Configuration]] = {}
    for point in comparison.points:
        if point.offered_rps is not None and point.figures[metric.key].value is not None:
            by_label.setdefault(point.label, []).append(point)
    if not any(len(some) > 1 for some in by_label.values()):
        return None
    colours = _colours(comparison)
    traces: list[draw.Json] = []
    rows: list[Row] = []
    seen: list[float] = []
    for name, some in by_label.items():
        some.sort(key=lambda point: point.offered_rps or 0.0)
        estimates = [point.figures[metric.key] for point in some]
        values = [estimate.value for estimate in estimates if estimate.value is not None]
        seen += values
        colour = colours[name]
        bars = draw.error_bars(values, [e.low for e in estimates], [e.high for e in estimates], colour, 1.2)
        style = draw.joined(draw.label(name), colour, 1.8)
        traces.append(draw.points([p.offered_rps for p in some], values, colour, error_y=bars, **style))
        rows += [[p.name, plain(p.offered_rps), plain(value)] for p, value in zip(some, values, strict=True)]
    limits = [threshold for limited, threshold in comparison.limits if limited.key == metric.key]
    x = draw.axis("offered requests/s", rangemode="tozero")
    scale = draw.log_axis([*seen, *(threshold.limit for threshold in limits)])
    y = draw.axis(metric.with_unit, **scale)
    marks = [draw.reference(threshold.limit, "--c4", axis="y", dash="dash") for threshold in limits]
    named = [draw.objective(threshold.demand, threshold.limit, "y", scale, "left") for threshold in limits]
    drawn = draw.layout(320, x, y, shapes=marks, annotations=named, **draw.LEGEND)
    caption = "Where a line bends upwards the deployment saturates."
    caption += " Dashed: the objective." if limits else ""
    table = Table(["configuration", "offered requests/s", metric.with_unit], rows)
    return Figure(f"load-{_key(metric)}", f"{metric.label} against load", caption, traces, drawn, table)


def pareto(comparison: Comparison, front: Front) -> Figure:
    """Configurations by two metrics; another one is at least as good as a hollow one on both."""
    colours = _colours(comparison)
    placed = [
        (point, x, y, None if better is None else comparison.points[better].name)
        for point, better in zip(comparison.points, front.dominated_by, strict=True)
        if (x := point.figures[front.x.key].value) is not None and (y := point.figures[front.y.key].value) is not None
    ]
    widest = max((x for _, x, _, _ in placed), default=0.0)
    edge = sorted((x, y) for _, x, y, better in placed if better is None)
    front_line = draw.line([x for x, _ in edge], [y for _, y in edge], "", "--faint", width=1, dash="dot")
    traces = [front_line | {"hoverinfo": "skip", "showlegend": False}]
    highest = max((y for _, _, y, _ in placed), default=0.0)
    sides = _beside([(x / (widest or 1), y / (highest or 1)) for _, x, y, _ in placed])
    named: set[str] = set()
    for (point, x, y, better), side in zip(placed, sides, strict=True):
        colour, symbol = colours[point.label], "circle" if better is None else "circle-open"
        traces.append(
            draw.points(
                [x], [y], colour, name=draw.label(point.label), text=[draw.label(point.load)], mode="markers+text",
                hover=f"{draw.label(point.name, 80)}: %{{x:.4g}}, %{{y:.4g}}", cliponaxis=False,
                marker={"size": 12, "symbol": symbol, "line": {"width": 2, "color": colour}}, textposition=side,
                textfont={"size": 11}, legendgroup=draw.label(point.label), showlegend=point.label not in named,
            )
        )  # fmt: skip
        named.add(point.label)
    rows = [
        [point.name, plain(x), plain(y), f"worse on both than {better}" if better else "on the front"]
        for point, x, y, better in placed
    ]
    titles = (f"{m.with_unit}: {'more' if m.higher else 'less'} is better" for m in (front.x, front.y))
    drawn = draw.layout(
        360, *(draw.axis(title, rangemode="tozero") for title in titles), hovermode="closest", **draw.LEGEND
    )
    table = Table(["configuration", front.x.with_unit, front.y.with_unit, "result"], rows, words=(0, 3))
    caption = "Hollow: another one is at least as good on both counts."
    return Figure(f"pareto-{_key(front.y)}", front.title, caption, traces, drawn, table)


def _short(point: Configuration) -> str:
    """Its name, of which the load stays whole."""
    return f"{draw.label(point.label, 22)} @ {draw.label(point.load)}"


def _key(metric: Metric) -> str:
    return metric.key.replace(".", "-")


def _beside(places: Sequence[tuple[float, float]]) -> list[str]:
    """Where each point's name has room, of places in shares of the axes: inside the plot, and off its neighbours'."""
    sides: list[str] = []
    for n, (x, y) in enumerate(places):
        end = "right" if x < 0.25 else "left" if x > 0.75 else "center"
        near = sum(abs(x - other) < 0.1 and abs(y - height) < 0.05 for other, height in places[:n])
        sides.append(f"{('top', 'bottom')[near % 2]} {end}")
    return sides
