"""The figures of a comparison: ratios, latency against load, Pareto fronts. Plain plotly dicts with tables."""

from typing import Any

from tailgate.reports.compare.comparison import Comparison, Configuration, Front
from tailgate.reports.documents.plots.run import Figure, log_axis, plain_text, short
from tailgate.reports.metrics.catalogue import Metric
from tailgate.workloads.common.formatting import plain

_COLOURS = ("--c1", "--c2", "--c3", "--c5", "--c6", "--c4")
_SHOWN = ("ttft.p50", "ttft.p99", "itl.p99", "tpot.mean", "e2e.p50", "e2e.p99", "output_tokens_per_s")


def colours(found: Comparison) -> dict[str, str]:
    """A colour for each label, in their order."""
    labels = list(dict.fromkeys(point.label for point in found.points))
    return {label: _COLOURS[place % len(_COLOURS)] for place, label in enumerate(labels)}


def forest(found: Comparison) -> Figure | None:
    """Ratios to the first label at the same load, with intervals."""
    metrics = [m for m in found.metrics if m.key in _SHOWN]
    rows: list[tuple[str, float, float | None, float | None, str]] = []
    palette = colours(found)
    for point in found.points:
        for metric in metrics:
            if one := point.ratios.get(metric.key):
                name = f"{metric.label} · {point.name}"
                rows.append((name, one.value, one.low, one.high, palette[point.label]))
    if not rows:
        return None
    names = [_brief(row[0], 44) for row in rows]
    values = [row[1] for row in rows]
    trace = {
        "type": "scatter", "mode": "markers", "x": [short(v) for v in values],
        "y": list(range(len(rows))), "text": names,
        "marker": {"size": 9, "color": [row[4] for row in rows]},
        "error_x": {
            "type": "data", "symmetric": False, "thickness": 1.4, "width": 4, "color": "--ink",
            "array": [short((row[3] or row[1]) - row[1]) for row in rows],
            "arrayminus": [short(row[1] - (row[2] or row[1])) for row in rows],
        },
        "hovertemplate": "%{text}: %{x:.3f}<extra></extra>",
    }  # fmt: skip
    layout = {
        "height": 70 + 26 * len(rows),
        "hovermode": "closest",
        "showlegend": False,
        "xaxis": {"title": {"text": f"ratio to {_brief(found.points[0].label)} at the same load"}},
        "yaxis": {"tickvals": list(range(len(rows))), "ticktext": names, "autorange": "reversed", "zeroline": False},
        "shapes": [
            {"type": "line", "xref": "x", "yref": "paper", "x0": 1, "x1": 1, "y0": 0, "y1": 1,
             "line": {"color": "--faint", "width": 1, "dash": "dash"}}
        ],
    }  # fmt: skip
    table = [[name, plain(v), plain(low), plain(high)] for name, v, low, high, _ in rows]
    says = "Bars are 95 % intervals between runs; without a bar there is only one run on a side."
    return Figure("forest", "Ratios to the first", says, [trace], layout, ["", "ratio", "low", "high"], table)


def against_load(found: Comparison, metric: Metric) -> Figure | None:
    """A latency over the offered load, one line a label; None unless some label ran at several loads."""
    by_label: dict[str, list[Configuration]] = {}
    for point in found.points:
        if point.offered_rps is not None and point.figures[metric.key].value is not None:
            by_label.setdefault(point.label, []).append(point)
    if not any(len(points) > 1 for points in by_label.values()):
        return None
    palette = colours(found)
    traces, rows = [], []
    seen: list[float] = []
    for label, points in by_label.items():
        points.sort(key=lambda point: point.offered_rps or 0.0)
        estimates = [point.figures[metric.key] for point in points]
        values = [one.value for one in estimates if one.value is not None]
        seen += values
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": _brief(label),
                "x": [short(point.offered_rps) for point in points], "y": [short(v) for v in values],
                "line": {"color": palette[label], "width": 1.8}, "marker": {"color": palette[label], "size": 7},
                "error_y": {
                    "type": "data", "symmetric": False, "color": palette[label], "thickness": 1.2,
                    "array": [short((e.high or v) - v) for e, v in zip(estimates, values, strict=True)],
                    "arrayminus": [short(v - (e.low or v)) for e, v in zip(estimates, values, strict=True)],
                },
            }
        )  # fmt: skip
        rows += [[p.name, plain(p.offered_rps), plain(v)] for p, v in zip(points, values, strict=True)]
    layout = {
        "height": 320,
        "showlegend": True,
        "legend": {"orientation": "h", "y": -0.22, "yanchor": "top"},
        "xaxis": {"title": {"text": "offered requests/s"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": f"{metric.label}, {metric.unit}"}, **log_axis(seen)},
    }
    key, title = f"load-{metric.key.replace('.', '-')}", f"{metric.label} against load"
    says = "Where a line bends upwards the deployment saturates."
    return Figure(key, title, says, traces, layout, ["", "offered/s", metric.unit], rows)


def pareto(found: Comparison, front: Front) -> Figure:
    """Configurations on two counts; hollow ones are beaten on both by another."""
    palette = colours(found)
    traces: list[dict[str, Any]] = []
    rows, on_front = [], []
    widest = max(
        (value for point in found.points if (value := point.figures[front.x.key].value) is not None), default=0.0
    )
    for point, beaten in zip(found.points, front.dominated_by, strict=True):
        x, y = point.figures[front.x.key].value, point.figures[front.y.key].value
        if x is None or y is None:
            continue
        if beaten is None:
            on_front.append((x, y))
        traces.append(
            {
                "type": "scatter", "mode": "markers+text", "cliponaxis": False, "name": _brief(point.name),
                "x": [short(x)], "y": [short(y)],
                "text": [_brief(point.name)], "textposition": _beside(x, widest), "textfont": {"size": 11},
                "marker": {
                    "size": 12, "color": palette[point.label], "symbol": "circle" if beaten is None else "circle-open",
                    "line": {"width": 2, "color": palette[point.label]},
                },
                "hovertemplate": "%{text}: %{x:.4g}, %{y:.4g}<extra></extra>",
            }
        )  # fmt: skip
        said = "on the front" if beaten is None else f"beaten by {found.points[beaten].name}"
        rows.append([point.name, plain(x), plain(y), said])
    on_front.sort()
    edge = {
        "type": "scatter", "mode": "lines", "hoverinfo": "skip", "x": [short(x) for x, _ in on_front],
        "y": [short(y) for _, y in on_front], "line": {"color": "--faint", "width": 1, "dash": "dot"},
    }  # fmt: skip
    layout = {
        "height": 360,
        "hovermode": "closest",
        "showlegend": False,
        "xaxis": {"title": {"text": f"{front.x.label} ({_better(front.x)})"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": f"{front.y.label} ({_better(front.y)})"}, "rangemode": "tozero"},
    }
    key = f"pareto-{front.y.key.replace('.', '-')}"
    says = "Hollow: another one is at least as good on both counts."
    return Figure(key, front.title, says, [edge, *traces], layout, ["", front.x.label, front.y.label, ""], rows)


def _beside(x: float, widest: float) -> str:
    """Where a point's name has room: the axis goes from 0 to the rightmost point."""
    return "top right" if x < 0.25 * widest else "top left" if x > 0.75 * widest else "top center"


def _brief(name: str, most: int = 32) -> str:
    """A label that leaves room for the figure; the table has it whole."""
    return plain_text(name if len(name) <= most else name[: most - 1] + "…")


def _better(metric: Metric) -> str:
    return "more is better" if metric.higher else "less is better"
