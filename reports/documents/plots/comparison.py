"""The figures of a comparison: ratios, latency against load, Pareto fronts."""

from typing import Final

from tailgate.reports.compare.comparison import Comparison, Configuration, Front
from tailgate.reports.documents.model import Figure, Row, Table
from tailgate.reports.documents.plots import primitives as draw
from tailgate.reports.metrics.catalogue import Metric
from tailgate.workloads.common.formatting import plain

_COLOURS: Final = ("--c1", "--c2", "--c3", "--c5", "--c6", "--c4")
_SHOWN: Final = ("ttft.p50", "ttft.p99", "itl.p99", "tpot.mean", "e2e.p50", "e2e.p99", "output_tokens_per_s")


def _colours(comparison: Comparison) -> dict[str, str]:
    labels = list(dict.fromkeys(point.label for point in comparison.points))
    return {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(labels)}


def forest(comparison: Comparison) -> Figure | None:
    """Ratios to the first label at the same load, with intervals; None where nothing has a ratio."""
    colours = _colours(comparison)
    ratios = [
        (f"{metric.label} · {point.name}", ratio, colours[point.label])
        for point in comparison.points
        for metric in comparison.metrics
        if metric.key in _SHOWN and (ratio := point.ratios.get(metric.key))
    ]
    if not ratios:
        return None
    names, values = [draw.label(name, 44) for name, _, _ in ratios], [ratio.value for _, ratio, _ in ratios]
    places, lows, highs = range(len(ratios)), [ratio.low for _, ratio, _ in ratios], [r.high for _, r, _ in ratios]
    bars, colour, size = draw.error_bars(values, lows, highs, "--ink"), [c for _, _, c in ratios], {"size": 9}
    trace = draw.points(values, places, colour, text=names, hover="%{text}: %{x:.3f}", marker=size, error_x=bars)
    y = {"tickvals": [*places], "ticktext": names, "autorange": "reversed", "zeroline": False}
    x = draw.axis(f"ratio to {draw.label(comparison.points[0].label)} at the same load")
    one = draw.reference(1, "--faint", dash="dash")
    drawn = draw.layout(70 + 26 * len(ratios), x, y, hovermode="closest", shapes=[one])
    rows = [[name, plain(ratio.value), plain(ratio.low), plain(ratio.high)] for name, ratio, _ in ratios]
    caption = "Bars are 95 % intervals between runs; without a bar there is only one run on a side."
    return Figure("forest", "Ratios to the first", caption, [trace], drawn, Table(["", "ratio", "low", "high"], rows))


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
    x = draw.axis("offered requests/s", rangemode="tozero")
    y = draw.axis(f"{metric.label}, {metric.unit}", **draw.log_axis(seen))
    drawn = draw.layout(320, x, y, showlegend=True, legend={"orientation": "h", "y": -0.22, "yanchor": "top"})
    caption = "Where a line bends upwards the deployment saturates."
    table = Table(["", "offered/s", metric.unit], rows)
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
    traces = [front_line | {"hoverinfo": "skip"}]
    for point, x, y, better in placed:
        colour, name = colours[point.label], draw.label(point.name)
        symbol = "circle" if better is None else "circle-open"
        traces.append(
            draw.points(
                [x], [y], colour, name=name, text=[name], hover="%{text}: %{x:.4g}, %{y:.4g}", mode="markers+text",
                marker={"size": 12, "symbol": symbol, "line": {"width": 2, "color": colour}}, cliponaxis=False,
                textposition=_beside(x, widest), textfont={"size": 11},
            )
        )  # fmt: skip
    rows = [
        [point.name, plain(x), plain(y), f"worse on both than {better}" if better else "on the front"]
        for point, x, y, better in placed
    ]
    titles = (f"{m.label} ({'more' if m.higher else 'less'} is better)" for m in (front.x, front.y))
    drawn = draw.layout(360, *(draw.axis(title, rangemode="tozero") for title in titles), hovermode="closest")
    table = Table(["", front.x.label, front.y.label, ""], rows, words=(0, 3))
    caption = "Hollow: another one is at least as good on both counts."
    return Figure(f"pareto-{_key(front.y)}", front.title, caption, traces, drawn, table)


def _key(metric: Metric) -> str:
    return metric.key.replace(".", "-")


def _beside(x: float, widest: float) -> str:
    """Where a point's name has room: the axis goes from 0 to the rightmost point."""
    return "top right" if x < 0.25 * widest else "top left" if x > 0.75 * widest else "top center"
