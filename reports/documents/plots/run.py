"""A run's latency by percentile, and everything over one time axis."""

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from tailgate.reports.documents.model import Figure, Row, Table
from tailgate.reports.documents.plots import primitives as draw
from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.timeline import Timeline
from tailgate.reports.rundir.events import Event
from tailgate.reports.stats.order_statistics import quantile_at

_CURVE_POINTS: Final = 60
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
    ticks = [100 * s for s in (0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 0.9999) if s <= last]
    x = draw.axis("percentile", type="log", tickvals=[*map(_stretched, ticks)], ticktext=[f"p{q:g}" for q in ticks])
    caption = f"The curve stops at p{_floored(100 * last)}: {latency.n:,} requests are too few beyond that."
    rows = [
        [f"p{q.q:.4g}", *map(draw.number, (q.value, q.low)), draw.number(q.high) or "not bounded"] for q in quantiles
    ]
    table = Table(["percentile", "ms", "low", "high"], draw.thinned(rows, 24), words=())
    y = draw.axis("ms", **_around([q.value for q in quantiles if q.value is not None]))
    return Figure(f"curve-{name}", title, caption, traces, draw.layout(320, x, y), table)


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
    ends = [math.log10(max(low, 1e-6)), math.log10(max(high, 1e-5))] if scale.get("type") == "log" else [low, high]
    return scale | {"range": ends}


class _Panel(NamedTuple):
    """One plot of the time axis; its series are (name in the timeline, label, colour)."""

    title: str
    series: tuple[tuple[str, str, str], ...]
    metric: str = ""  # the latency whose objectives are drawn into it

    def named(self, name: str) -> str:
        return f"{self.title.split(',')[0]} {name}"


def _latency(metric: str, title: str, upper: str = "max") -> _Panel:
    largest = "largest" if upper == "max" else upper
    return _Panel(f"{title}, ms", ((f"{metric}_p50", "median", "--c1"), (f"{metric}_{upper}", largest, "--c2")), metric)


_PANELS: Final = (
    _latency("ttft", "TTFT"), _latency("itl", "ITL", "p99"), _latency("e2e", "E2E"), _latency("tpot", "TPOT"),
    _latency("stall", "stall"), _latency("ttfa", "TTFA"),
    _Panel("requests/s", (("offered", "due", "--c3"), ("ok", "ok", "--c1"), ("failed", "failed", "--c4"))),
    _Panel("arrivals/s", (("output_tokens", "content arrivals", "--c1"),)),
    _Panel("requests", (("in_flight", "in flight", "--c1"), ("running", "running on the server", "--c3"))),
    _Panel("queue", (("waiting", "waiting on the server", "--c2"),)),
    _Panel("KV cache", (("kv_usage", "used share", "--c1"),)),
    _Panel("GPU power, W", (("power_w", "all GPUs", "--c1"),)),
    _Panel("GPU clock, MHz", (("sm_clock_mhz", "mean SM clock", "--c1"),)),
    _Panel("GPU busy", (("utilization", "share of time with a kernel", "--c1"),)),
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
        values = {name: timeline.series[name].tolist() for name, _, _ in panel.series}
        scale = draw.log_axis(v for some in values.values() for v in some) if panel.metric else {}
        domain = [top - 0.78 * height, top - 0.08 * height]
        axes[f"yaxis{y[1:]}"] = {"domain": domain, "rangemode": "tozero", **scale}
        for name, text, colour in panel.series:
            traces.append(draw.line(seconds, values[name], panel.named(text), colour) | {"yaxis": y, "xaxis": "x"})
        legend = " · ".join(f'<span style="color:{colour}">{text}</span>' for _, text, colour in panel.series)
        texts.append(_text(f"<b>{panel.title}</b>  {legend}", 0, top, "paper", xanchor="left", yanchor="top"))
        limits = ((limit, dash) for metric, limit, dash in objectives if metric == panel.metric)
        marks += [draw.reference(limit, "--c4", axis=y, dash=dash) for limit, dash in limits]
    for event in events[:_MOST_EVENTS]:
        at, what = event.t_ns / 1e9, draw.label(f"{event.kind}: {event.text}"[:40], 40)
        style = {"textangle": -90, "xanchor": "right", "yanchor": "bottom", "font": {"size": 10, "color": "--c5"}}
        marks.append(draw.reference(at, "--c5", dash="dot"))
        texts.append(_text(what, at, 0, "x", **style))
    names = [(name, panel.named(text)) for panel in panels for name, text, _ in panel.series]
    rows: list[Row] = [
        [f"{at:g}", *(draw.number(timeline.series[name][place]) for name, _ in names)]
        for place, at in enumerate(seconds)
    ]
    caption = (
        f"Bins of {analysis.scan.bin_ns / 1e9:g} s; shaded: the steady window; dashed: objectives, dotted: a class's. "
        "TTFT and E2E stand where the request was due, ITL where the token came."
    )
    x = draw.axis(draw.SECONDS, anchor=f"y{len(panels)}")
    drawn = {"height": 60 + 130 * len(panels), "showlegend": False, "xaxis": x, "annotations": texts, "shapes": marks}
    table = Table(["s", *(text for _, text in names)], draw.thinned(rows), words=())
    return Figure("time", "Everything on one time axis", caption, traces, drawn | axes, table)


def _text(text: str, x: float, y: float, xref: str, **style: Any) -> draw.Json:
    return {"text": text, "x": x, "y": y, "xref": xref, "yref": "paper", "showarrow": False, **style}


def _shaded_window(analysis: Analysis) -> draw.Json:
    start, end = (t / 1e9 for t in analysis.run.window_ns)
    return {
        "type": "rect", "xref": "x", "yref": "paper", "x0": start, "x1": end, "y0": 0, "y1": 1,
        "fillcolor": "--shade", "line": {"width": 0}, "layer": "below",
    }  # fmt: skip


def _objectives(analysis: Analysis) -> list[tuple[str, float, str]]:
    """Latency objectives as (metric, limit, dash): dashed the run's, dotted those of one class alone."""
    dashes = {limit: "dot" for slo in analysis.class_slos.values() for limit in slo.limits()}
    dashes |= dict.fromkeys(analysis.slo.limits(), "dash")
    return [(metric, limit, dash) for (metric, limit), dash in dashes.items()]
