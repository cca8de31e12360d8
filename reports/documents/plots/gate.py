"""The figures of a gate's page: every pair as a dot, and the trend over earlier verdicts. Plain plotly dicts."""

from collections.abc import Sequence
from typing import Any

from tailgate.reports.documents.gate.history import Entry
from tailgate.reports.documents.plots.run import Figure, plain_text, short
from tailgate.reports.verdicts.gate.result import Verdict
from tailgate.reports.verdicts.gate.wording import interval, limit, name_of, percent
from tailgate.workloads.common.formatting import plain

_COLOURS = {"pass": "--pass", "fail": "--fail"}
_TREND = ("--c1", "--c2", "--c3", "--c5")


def pairs(found: Verdict) -> Figure | None:
    """Each metric a row: a dot a pair, the estimate with its bounds, the margin as a mark. None without estimates."""
    shown = [one for one in found.metrics if one.ratio is not None and one.at_least is not None]
    if not shown:
        return None
    traces: list[dict[str, Any]] = []
    rows, shapes = [], []
    for place, one in enumerate(shown):
        y, colour = len(shown) - 1 - place, _COLOURS.get(one.result, "--c6")
        x = [short(100 * (ratio - 1)) for ratio in one.ratios]
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": "", "x": x, "y": [y + 0.16] * len(x), "showlegend": False,
                "text": [f"pair {n}: {percent(ratio)}" for n, ratio in enumerate(one.ratios, 1)],
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {"size": 10, "color": colour, "opacity": 0.55, "line": {"width": 1, "color": "--ink"}},
            }
        )  # fmt: skip
        ratio, low, high = (100 * ((v or 1.0) - 1) for v in (one.ratio, one.at_least, one.at_most))
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": "", "x": [short(ratio)], "y": [y - 0.16],
                "showlegend": False, "marker": {"size": 11, "symbol": "diamond", "color": colour},
                "error_x": {
                    "type": "data", "symmetric": False, "thickness": 2, "width": 6, "color": colour,
                    "array": [short(high - ratio)], "arrayminus": [short(ratio - low)],
                },
                "hovertemplate": f"{plain_text(interval(one))}<extra></extra>",
            }
        )  # fmt: skip
        edge = short(100 * (one.limit - 1))
        shapes.append(
            {"type": "line", "x0": edge, "x1": edge, "y0": y - 0.4, "y1": y + 0.4,
             "line": {"color": "--fail", "width": 2, "dash": "dot"}}
        )  # fmt: skip
        each = ", ".join(percent(r) for r in one.ratios) or "-"
        rows.append([name_of(one), interval(one), limit(one), each])
    shapes.append(
        {"type": "line", "xref": "x", "yref": "paper", "x0": 0, "x1": 0, "y0": 0, "y1": 1,
         "line": {"color": "--faint", "width": 1}}
    )  # fmt: skip
    layout = {
        "height": 90 + 74 * len(shown), "hovermode": "closest", "showlegend": False, "shapes": shapes,
        "xaxis": {"title": {"text": "candidate against baseline, %"}, "zeroline": False},
        "yaxis": {
            "tickvals": [len(shown) - 1 - place for place in range(len(shown))],
            "ticktext": [plain_text(name_of(one)) for one in shown],
            "range": [-0.6, len(shown) - 0.4],
        },
    }  # fmt: skip
    says = (
        "Each circle is a pair of runs; the diamond with its bar is the estimate with its bounds; dotted: the margin."
    )
    return Figure("pairs", "Pair by pair", says, traces, layout, ["", "change", "margin", "pairs"], rows)


def trend(entries: Sequence[Entry], found: Verdict) -> Figure | None:
    """The change of each metric over earlier verdicts of this gate; None with fewer than two."""
    entries = [entry for entry in entries if entry.name == found.name]
    keys = [(one.point, one.key, name_of(one)) for one in found.metrics]
    traces: list[dict[str, Any]] = []
    rows: list[list[str]] = []
    for (point, key, name), colour in zip(keys, _TREND * len(keys), strict=False):
        known = [(entry, m) for entry in entries if (m := entry.metric(point, key)) is not None]
        if len(known) < 2:
            continue
        changes = [100 * (m.ratio - 1) for _, m in known]
        ups = [100 * (m.at_most - m.ratio) for _, m in known]
        downs = [100 * (m.ratio - m.at_least) for _, m in known]
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": plain_text(name),
                "x": [entry.at for entry, _ in known], "y": [short(v) for v in changes],
                "line": {"color": colour, "width": 1.4},
                "error_y": {"type": "data", "symmetric": False, "array": [short(v) for v in ups],
                            "arrayminus": [short(v) for v in downs], "color": colour, "thickness": 1},
            }
        )  # fmt: skip
        rows += [[e.at, name, e.verdict, percent(m.ratio), plain(m.baseline), plain(m.candidate)] for e, m in known]
    if not traces:
        return None
    layout = {"height": 320, "xaxis": {}, "yaxis": {"title": {"text": "candidate against baseline, %"}}}
    head = ["when", "metric", "verdict", "change", "baseline", "candidate"]
    says = "Every verdict of the history with its bounds: a slow creep shows here, pair by pair it may not."
    return Figure("trend", "Over earlier verdicts", says, traces, layout, head, rows)
