"""The report's figures as plain plotly dicts, each with the table that says the same in words and numbers.

Colours are names of CSS variables (`--c1`), resolved in the page so that light and dark both work.
Nothing is computed here but what drawing needs; the numbers come from `analysis` and `timeline`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.timeline import Timeline
from tailgate.reports.rundir.events import Event
from tailgate.reports.stats.order_statistics import quantile_at
from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.common.formatting import plain

_CURVE_POINTS = 60
_MOST_EVENTS = 40


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        key: identifier in the page.
        title: what it shows.
        says: how to read it, one sentence.
        traces: plotly traces.
        layout: plotly layout, merged over the page's own.
        head: column heads of its table.
        rows: cells of its table.
    """

    key: str
    title: str
    says: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    head: list[str]
    rows: list[list[str]] = field(default_factory=list)


def percentile_curve(analysis: Analysis, name: str, title: str) -> Figure | None:
    """Latency by percentile, the axis stretched towards the tail, cut where the sample certifies nothing."""
    found = analysis.latencies[name]
    if not found.n:
        return None
    n_eff = min(x.n_eff for x in found.quantiles)
    # The largest percentile whose one-sided 95 % bound is finite.
    last = min(0.05 ** (1 / n_eff), 0.99999) if n_eff >= 5 else 0.5
    shares = 1 - np.geomspace(1.0, 1 - last, _CURVE_POINTS)
    shares[0] = 0.5 / n_eff
    shares = np.unique(np.concatenate([shares, [s for s in (0.5, 0.9, 0.95, 0.99, 0.999) if s <= last]]))
    if name == "itl":
        gaps = analysis.scan.gaps
        value_at, size = gaps.at_rank, gaps.size
    else:
        ms = analysis.figures.ms[name][analysis.run.ok & analysis.run.measured]
        ordered = np.sort(ms[~np.isnan(ms)])
        value_at, size = lambda rank: float(ordered[rank - 1]), len(ordered)
    points = [quantile_at(value_at, found.n, 100 * float(s), n_eff, size) for s in shares]
    kept = [p for p in points if p.value is not None]
    if not kept:  # too few requests for any percentile at all
        return None
    x = [1 / (1 - p.q / 100) for p in kept]
    bounded = [(at, p.low, p.high) for at, p in zip(x, kept, strict=True) if p.low is not None and p.high is not None]
    at, low, high = ([one[place] for one in bounded] for place in range(3))
    traces = [
        line(at, low, "", "--c1", width=0, hover=False),
        line(at, high, "95 % interval", "--c1", width=0, hover=False) | {"fill": "tonexty", "fillcolor": "--c1-soft"},
        line(x, [p.value for p in kept], title, "--c1"),
    ]
    ticks = [s for s in (0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 0.9999) if s <= last]
    layout = {
        "height": 320,
        "showlegend": False,
        "xaxis": {
            "type": "log",
            "title": {"text": "percentile"},
            "tickvals": [1 / (1 - s) for s in ticks],
            "ticktext": [f"p{100 * s:g}" for s in ticks],
        },
        "yaxis": {"title": {"text": "ms"}, **_around([p.value for p in kept])},
    }
    says = f"From {found.n:,} requests; cut at p{100 * last:.4g}, beyond which they certify nothing."
    rows = [
        [
            f"p{p.q:.4g}",
            number(p.value),
            number(p.low),
            "not bounded" if p.high is None else number(p.high),
        ]
        for p in kept[:: max(1, len(kept) // 24)]
    ]
    return Figure(f"curve-{name}", title, says, traces, layout, ["percentile", "ms", "low", "high"], rows)


# (panel, kind of axis, its series: name in the timeline, label, colour)
_PANELS: tuple[tuple[str, str, tuple[tuple[str, str, str], ...]], ...] = (
    ("TTFT, ms", "log", (("ttft_p50", "median", "--c1"), ("ttft_max", "largest", "--c2"))),
    ("ITL, ms", "log", (("itl_p50", "median", "--c1"), ("itl_p99", "p99", "--c2"))),
    ("E2E, ms", "log", (("e2e_p50", "median", "--c1"), ("e2e_max", "largest", "--c2"))),
    ("TPOT, ms", "log", (("tpot_p50", "median", "--c1"), ("tpot_max", "largest", "--c2"))),
    ("stall, ms", "log", (("stall_p50", "median", "--c1"), ("stall_max", "largest", "--c2"))),
    ("TTFA, ms", "log", (("ttfa_p50", "median", "--c1"), ("ttfa_max", "largest", "--c2"))),
    ("requests/s", "linear", (("offered", "due", "--c3"), ("ok", "ok", "--c1"), ("failed", "bad", "--c4"))),
    ("arrivals/s", "linear", (("output_tokens", "content arrivals", "--c1"),)),
    ("requests", "linear", (("in_flight", "in flight", "--c1"), ("running", "running there", "--c3"))),
    ("queue", "linear", (("waiting", "waiting there", "--c2"),)),
    ("KV cache", "linear", (("kv_usage", "used share", "--c1"),)),
    ("GPU power, W", "linear", (("power_w", "all GPUs", "--c1"),)),
    ("GPU clock, MHz", "linear", (("sm_clock_mhz", "mean SM clock", "--c1"),)),
    ("GPU busy", "linear", (("utilization", "share of time with a kernel", "--c1"),)),
)
# Which panel a latency objective is drawn into.
_OBJECTIVES = {
    "ttft": "TTFT, ms", "itl": "ITL, ms", "e2e": "E2E, ms",
    "tpot": "TPOT, ms", "stall": "stall, ms", "ttfa": "TTFA, ms",
}  # fmt: skip


def over_time(analysis: Analysis, seen: Timeline, events: Sequence[Event] = ()) -> Figure:
    """Everything over one time axis: latency, load, in flight, queue, KV cache, GPUs, with what happened."""
    panels = [
        (title, kind, kept)
        for title, kind, series in _PANELS
        if (kept := [s for s in series if s[0] in seen.series and np.isfinite(seen.series[s[0]]).any()])
    ]
    x = seen.middle_s
    traces: list[dict[str, Any]] = []
    layout: dict[str, Any] = {
        "height": 60 + 130 * len(panels),
        "showlegend": False,
        "annotations": [],
        "shapes": [],
    }
    room = 1 / len(panels)
    for place, (title, kind, series) in enumerate(panels):
        axis = "" if place == 0 else str(place + 1)
        top = 1 - place * room
        layout[f"yaxis{axis}"] = {
            "domain": [top - 0.78 * room, top - 0.08 * room],
            "rangemode": "tozero",
            **(log_axis([v for name, _, _ in series for v in seen.series[name].tolist()]) if kind == "log" else {}),
        }
        for name, label, colour in series:
            trace = line(x.tolist(), _listed(seen.series[name]), f"{title.split(',')[0]} {label}", colour)
            traces.append(trace | {"yaxis": f"y{axis}", "xaxis": "x"})
        words = " · ".join(f'<span style="color:{colour}">{label}</span>' for _, label, colour in series)
        layout["annotations"].append(
            {"text": f"<b>{title}</b>  {words}", "xref": "paper", "yref": "paper", "x": 0, "y": top,
             "xanchor": "left", "yanchor": "top", "showarrow": False}
        )  # fmt: skip
    layout["xaxis"] = {"title": {"text": "seconds from the run's start"}, "anchor": f"y{len(panels)}"}
    start, end = (t / 1e9 for t in analysis.run.window_ns)
    layout["shapes"] = [
        {"type": "rect", "xref": "x", "yref": "paper", "x0": start, "x1": end, "y0": 0, "y1": 1,
         "fillcolor": "--shade", "line": {"width": 0}, "layer": "below"},
        *_objective_lines(analysis, [title for title, _, _ in panels]),
    ]  # fmt: skip
    for event in events[:_MOST_EVENTS]:
        at = event.t_ns / 1e9
        layout["shapes"].append(
            {"type": "line", "xref": "x", "yref": "paper", "x0": at, "x1": at, "y0": 0, "y1": 1,
             "line": {"color": "--c5", "width": 1, "dash": "dot"}}
        )  # fmt: skip
        layout["annotations"].append(
            {"text": plain_text(f"{event.kind}: {event.text}"[:40]), "x": at, "y": 0, "xref": "x", "yref": "paper",
             "textangle": -90, "xanchor": "right", "yanchor": "bottom", "showarrow": False,
             "font": {"size": 10, "color": "--c5"}}
        )  # fmt: skip
    says = (
        f"Bins of {analysis.scan.bin_ns / 1e9:g} s; shaded: the steady window; dashed: objectives, dotted: a class's. "
        "TTFT and E2E stand where the request was due, ITL where the token came."
    )
    names = [(s, f"{title.split(',')[0]} {label}") for title, _, series in panels for s, label, _ in series]
    step = max(1, len(x) // 40)
    rows = [[f"{x[i]:g}", *(number(seen.series[s][i]) for s, _ in names)] for i in range(0, len(x), step)]
    return Figure(
        "time", "Everything on one time axis", says, traces, layout, ["s", *(label for _, label in names)], rows
    )


def _objective_lines(analysis: Analysis, titles: list[str]) -> list[dict[str, Any]]:
    """A dashed line at each latency objective's limit, in its panel; dotted where it is one class's own."""
    found = []
    limits = {(metric, limit): "dot" for slo in analysis.class_slos.values() for metric, limit in slo.limits()}
    limits |= dict.fromkeys(analysis.slo.limits(), "dash")
    for (metric, limit), dash in limits.items():
        title = _OBJECTIVES.get(metric)
        if title in titles:
            place = titles.index(title)
            found.append(
                {"type": "line", "xref": "paper", "yref": f"y{'' if place == 0 else place + 1}", "x0": 0, "x1": 1,
                 "y0": limit, "y1": limit, "line": {"color": "--c4", "width": 1, "dash": dash}}
            )  # fmt: skip
    return found


def log_axis(values: Iterable[float | None]) -> dict[str, Any]:
    """A logarithmic axis labelled at 1, 2 and 5 of each decade; a linear one where the values span little."""
    known = [v for v in values if v is not None and math.isfinite(v) and v > 0]
    if not known or max(known) < 3 * min(known):
        return {"rangemode": "normal"}
    decades = range(math.floor(math.log10(min(known))) - 1, math.ceil(math.log10(max(known))) + 2)
    few = len(decades) > 6
    ticks = [step * 10.0**decade for decade in decades for step in ((1,) if few else (1, 2, 5))]
    return {"type": "log", "tickvals": ticks, "ticktext": [plain(tick) for tick in ticks]}


def _around(values: Sequence[float | None]) -> dict[str, Any]:
    """An axis for a curve: its own range and some more, so that a wide interval doesn't flatten it."""
    axis, known = log_axis(values), [v for v in values if v is not None]
    low, high = 0.85 * min(known), 1.3 * max(known)
    scaled = [math.log10(max(low, 1e-6)), math.log10(max(high, 1e-5))] if axis.get("type") == "log" else [low, high]
    return axis | {"range": scaled}


def plain_text(value: str) -> str:
    """Foreign text for a plotly label, which understands a few tags: as text, nothing more."""
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def line(
    x: Sequence[float], y: Sequence[float | None], name: str, colour: str, *, width: float = 1.6, hover: bool = True
) -> dict[str, Any]:
    """A plain line."""
    trace = {
        "type": "scatter", "mode": "lines", "name": name, "line": {"color": colour, "width": width},
        "x": [short(v) for v in x], "y": [short(v) for v in y],
    }  # fmt: skip
    return trace if hover else trace | {"hoverinfo": "skip"}


def _listed(values: Floats) -> list[float | None]:
    return [None if math.isnan(v) else v for v in values.tolist()]


def short(value: float | None) -> float | None:
    """Five significant digits: no one sees more, and the page stays small."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def number(value: float | None) -> str:
    """A table's cell: four significant digits, empty for nothing."""
    return "" if value is None or math.isnan(value) else plain(value)
