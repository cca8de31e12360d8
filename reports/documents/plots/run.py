"""A run's latency by percentile, and everything over one time axis."""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from tailgate.reports.documents.model import Figure, Row, Table
from tailgate.reports.documents.plots import primitives as draw
from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.slo import LATENCIES
from tailgate.reports.metrics.timeline import Timeline
from tailgate.reports.rundir.events import Event
from tailgate.reports.stats.order_statistics import quantile_at

_CURVE_POINTS: Final = 60
_BEYOND: Final = 3  # times as far out on the stretched axis as the curve
_MOST_EVENTS: Final = 40


def percentile_curve(analysis: Analysis, name: str, title: str) -> Figure | None:
    """Latency by percentile, the axis stretched towards the tail; it stops where the sample certifies nothing."""
    latency = analysis.latencies[name]
    if not latency.n:
        return None
    n_eff = min(x.n_eff for x in latency.quantiles)
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
    quantiles = [quantile_at(value_at, latency.n, 100 * float(s), n_eff, size) for s in shares]
    quantiles = [q for q in quantiles if q.value is not None]
    if not quantiles:  # too few requests for any percentile at all
        return None
    bounded = [q for q in quantiles if q.low is not None and q.high is not None]
    traces = [
        *draw.band([_stretched(q.q) for q in bounded], [q.low for q in bounded], [q.high for q in bounded], "--c1"),
        draw.line([_stretched(q.q) for q in quantiles], [q.value for q in quantiles], title, "--c1"),
    ]
    limits = [t for t in analysis.slo.thresholds if t.metric == name and t.percentile]
    # One far beyond the curve would leave no room for it; its line has its name all the same.
    near = [t for t in limits if _stretched(t.percentile or 0.0) <= _BEYOND / (1 - last)]
    furthest = max([last, *((t.percentile or 0.0) / 100 for t in near)])
    ticks = [100 * s for s in (0.0, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999) if s <= furthest + 1e-9]
    x = draw.axis("percentile", type="log", tickvals=[*map(_stretched, ticks)], ticktext=[f"p{q:g}" for q in ticks])
    caption = f"The curve stops at p{_floored(100 * last)}: {latency.n:,} requests are too few beyond that."
    caption += " Shaded: its 95 % interval, where it has two ends." if bounded else ""
    caption += " Dashed: objectives." if limits else ""
    places, heights = [_stretched(t.percentile or 0.0) for t in near], [t.limit for t in near]
    cross = {"size": 9, "symbol": "x"}
    traces += [draw.points(places, heights, "--c4", hover="objective at %{y} ms", marker=cross)] if near else []
    rows = [
        [f"p{q.q:.4g}", *map(draw.number, (q.value, q.low)), draw.number(q.high) or "not bounded"] for q in quantiles
    ]
    table = Table(["percentile", "ms", "low, ms", "high, ms"], draw.thinned(rows, 24), words=())
    scale = _around([*(q.value for q in quantiles if q.value is not None), *(t.limit for t in limits)])
    marks = [draw.reference(t.limit, "--c4", axis="y", dash="dash") for t in limits]
    named = [draw.objective(t.demand, t.limit, "y", scale, "left") for t in limits]
    drawn = draw.layout(320, x, draw.axis(f"{title}, ms", **scale), shapes=marks, annotations=named)
    return Figure(f"curve-{name}", f"{title} by percentile", caption, traces, drawn, table)


def _stretched(percentile: float) -> float:
    return 1 / (1 - percentile / 100)


def _floored(percentile: float) -> str:
    """A percentile that is never text to be more than it is: 91, 99.6, 99.96."""
    digits = max(0, -math.floor(math.log10(100 - percentile)))
    return f"{math.floor(percentile * 10**digits) / 10**digits:g}"


def _around(values: Sequence[float]) -> draw.Json:
    """An axis for a curve: its own range and some more, so that a wide interval doesn't flatten it."""
    scale = draw.log_axis(values)
    low, high = 0.85 * min(values), 1.3 * max(values)
    ends = [math.log10(low), math.log10(high)] if scale.get("type") == "log" else [low, max(high, 1e-3)]
    return scale | {"range": ends}


class _Panel(NamedTuple):
    """One plot of the time axis; its series are (name in the timeline, label, colour)."""

    title: str  # with the unit of its axis
    series: tuple[tuple[str, str, str], ...]
    metric: str = ""  # the latency whose objectives are drawn into it
    factor: float = 1.0  # from the timeline's unit to that of the title

    def named(self, name: str) -> str:
        what, comma, unit = self.title.partition(",")
        return f"{what} {name}{comma}{unit}"


def _latency(metric: str, title: str, upper: str = "max") -> _Panel:
    largest = "largest" if upper == "max" else upper
    return _Panel(f"{title}, ms", ((f"{metric}_p50", "median", "--c1"), (f"{metric}_{upper}", largest, "--c2")), metric)


_PANELS: Final = (
    _latency("ttft", "TTFT"), _latency("itl", "ITL", "p99"), _latency("e2e", "E2E"), _latency("tpot", "TPOT"),
    _latency("stall", "stall"), _latency("ttfa", "TTFA"),
    _Panel("requests/s", (("offered", "due", "--c3"), ("ok", "ok", "--c1"), ("failed", "failed", "--c4"))),
    _Panel("content arrivals/s", (("output_tokens", "all answers", "--c1"),)),
    _Panel("requests", (("in_flight", "in flight", "--c1"), ("running", "running on the server", "--c3"))),
    _Panel("queue, requests", (("waiting", "waiting on the server", "--c2"),)),
    _Panel("KV cache, %", (("kv_usage", "in use", "--c1"),), factor=100),
    _Panel("GPU power, W", (("power_w", "all GPUs", "--c1"),)),
    _Panel("GPU clock, MHz", (("sm_clock_mhz", "mean SM clock", "--c1"),)),
    _Panel("GPU busy, %", (("utilization", "time with a kernel", "--c1"),), factor=100),
)  # fmt: skip


def over_time(analysis: Analysis, timeline: Timeline, events: Sequence[Event] = ()) -> Figure:
    filled = {name for name, values in timeline.series.items() if np.isfinite(values).any()}
    panels = [panel._replace(series=tuple(s for s in panel.series if s[0] in filled)) for panel in _PANELS]
    panels = [panel for panel in panels if panel.series]
    seconds, height, objectives = timeline.middle_s.tolist(), 1 / len(panels), _objectives(analysis)
    traces: list[draw.Json] = []
    axes: draw.Json = {}
    marks = [_shaded_window(analysis)]
    texts: list[draw.Json] = []
    for place, panel in enumerate(panels):
        y, top = "y" if place == 0 else f"y{place + 1}", 1 - place * height
        values = {name: (panel.factor * timeline.series[name]).tolist() for name, _, _ in panel.series}
        limits = [limit for limit in objectives if limit.metric == panel.metric]
        seen = [v for some in (*values.values(), [limit.at for limit in limits]) for v in some]
        scale = draw.log_axis(seen, most=4) if panel.metric else {}
        # The title stands above the plot: an objective near its upper end would go through it.
        domain = [top - 0.80 * height, top - 0.17 * height]
        axes[f"yaxis{y[1:]}"] = {"domain": domain, "rangemode": "tozero", **scale}
        for name, text, colour in panel.series:
            traces.append(draw.line(seconds, values[name], panel.named(text), colour) | {"yaxis": y, "xaxis": "x"})
        legend = " · ".join(f'<span style="color:{colour}">{text}</span>' for _, text, colour in panel.series)
        texts.append(draw.text(f"<b>{panel.title}</b>  {legend}", 0, top, xanchor="left", yanchor="top"))
        marks += [draw.reference(limit.at, "--c4", axis=y, dash=limit.dash) for limit in limits]
        texts += [draw.objective(limit.words, limit.at, y, scale) for limit in limits]
    for event in events[:_MOST_EVENTS]:
        at, what = event.t_ns / 1e9, draw.label(f"{event.kind}: {event.text}", 40)
        style: draw.Json = {
            "textangle": -90,
            "xanchor": "right",
            "yanchor": "bottom",
            "font": {"size": 10, "color": "--c5"},
        }
        marks.append(draw.reference(at, "--c5", dash="dot"))
        texts.append(draw.text(what, at, 0, "x", **style))
    columns = {
        panel.named(text): panel.factor * timeline.series[name] for panel in panels for name, text, _ in panel.series
    }
    rows: list[Row] = [
        [f"{at:g}", *(draw.number(values[place]) for values in columns.values())] for place, at in enumerate(seconds)
    ]
    caption = (
        f"Bins of {analysis.scan.bin_ns / 1e9:g} s; shaded: the steady window; dashed: objectives, dotted: a class's. "
        "TTFT and E2E stand where the request was due, ITL where the token came."
    )
    x = draw.axis(draw.SECONDS, anchor=f"y{len(panels)}")
    drawn = {"height": 60 + 140 * len(panels), "showlegend": False, "xaxis": x, "annotations": texts, "shapes": marks}
    table = Table(["s", *columns], draw.thinned(rows), words=())
    return Figure("time", "Everything on one time axis", caption, traces, drawn | axes, table)


def _shaded_window(analysis: Analysis) -> draw.Json:
    start, end = (t / 1e9 for t in analysis.run.window_ns)
    return {
        "type": "rect", "xref": "x", "yref": "paper", "x0": start, "x1": end, "y0": 0, "y1": 1,
        "fillcolor": "--shade", "line": {"width": 0}, "layer": "below",
    }  # fmt: skip


class _Limit(NamedTuple):
    """What the objectives on one latency demand at one value, in ms: dashed the run's, dotted a class's alone."""

    metric: str
    at: float
    dash: str
    words: str


def _objectives(analysis: Analysis) -> list[_Limit]:
    """A limit that several demand is one line that names them all."""
    limits: dict[tuple[str, float], _Limit] = {}
    for name, slo in (("", analysis.slo), *analysis.class_slos.items()):
        stated = [(t.metric, t.limit, t.demand) for t in slo.thresholds if t.metric in LATENCIES]
        # What makes one request good is often the limit of a threshold, which is named already.
        named = {(metric, limit) for metric, limit, _ in stated}
        stated += [(c.metric, c.limit, f"good {c.demand}") for c in slo.good if (c.metric, c.limit) not in named]
        for metric, at, demand in stated:
            words = f"{name}: {demand}" if name else demand
            before = limits.get((metric, at))
            words = f"{before.words}; {words}" if before else words
            limits[metric, at] = _Limit(metric, at, before.dash if before else "dot" if name else "dash", words)
    return [*limits.values()]
