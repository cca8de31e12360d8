"""Figures of single requests: latency over time as a heatmap, TTFT against prompt length, lengths, the slowest.

As in `reports.documents.plots.run`: plain plotly dicts with a table each; beyond a few thousand requests they are
binned.
"""

from typing import Any

import numpy as np

from tailgate.reports.documents.plots.run import Figure, line, log_axis, number, plain_text, short
from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.slowest import Slow
from tailgate.reports.metrics.workload_as_sent import lengths
from tailgate.workloads.common.arrays import Floats

_MOST_POINTS = 3000
_STEPS = 40


def heatmap(analysis: Analysis) -> Figure | None:
    """How many requests had which TTFT, over time."""
    ms = analysis.figures.ms["ttft"]
    begun = analysis.run.column("scheduled_ns" if analysis.run.manifest.loop == "open" else "sent_ns")
    seen = analysis.run.ok & np.isfinite(ms) & np.isfinite(begun) & (ms > 0)
    if np.count_nonzero(seen) < 20:
        return None
    seconds, ms = begun[seen] / 1e9, ms[seen]
    times = np.linspace(seconds.min(), seconds.max() + 1e-6, min(100, max(10, len(ms) // 20)) + 1)
    levels = _log_edges(ms)
    counts, _, _ = np.histogram2d(ms, seconds, bins=[levels, times])
    trace = {
        "type": "heatmap", "x": _middles(times), "y": _middles(levels, log=True), "z": _blank_zeros(counts),
        "colorscale": [[0, "--c1-soft"], [1, "--c1"]], "showscale": False, "hoverongaps": False,
        "hovertemplate": "%{x:.1f} s, %{y:.0f} ms: %{z} requests<extra></extra>",
    }  # fmt: skip
    layout = {
        "height": 300,
        "hovermode": "closest",
        "xaxis": {"title": {"text": "seconds from the run's start"}},
        "yaxis": {"title": {"text": "TTFT, ms"}, **log_axis(levels.tolist())},
    }
    rows = [
        [f"{low:.4g} to {high:.4g}", f"{int(n):,}"]
        for low, high, n in zip(levels[:-1], levels[1:], counts.sum(axis=1), strict=True)
        if n
    ]
    says = "The darker, the more requests: bands are modes, a climbing edge is a growing queue."
    return Figure("heatmap", "TTFT over time", says, [trace], layout, ["TTFT, ms", "requests"], rows)


def ttft_by_prompt(analysis: Analysis) -> Figure | None:
    """TTFT against prompt length: the cost of prefill, and who waits behind long prompts."""
    ms, prompt = analysis.figures.ms["ttft_from_send"], analysis.run.column("prompt_tokens")
    seen = analysis.run.ok & analysis.run.measured & np.isfinite(ms) & np.isfinite(prompt) & (ms > 0) & (prompt > 0)
    ms, prompt = ms[seen], prompt[seen]
    if len(ms) < 20 or prompt.min() == prompt.max():
        return None
    edges = _log_edges(prompt, 24)
    slot = np.clip(np.searchsorted(edges, prompt, side="right") - 1, 0, len(edges) - 2)
    middle, median, largest, rows = [], [], [], []
    for place in np.unique(slot):
        mine = np.sort(ms[slot == place])
        middle.append(float(np.sqrt(edges[place] * edges[place + 1])))
        median.append(float(mine[(len(mine) - 1) // 2]))
        largest.append(float(mine[-1]))
        band = f"{edges[place]:.0f} to {edges[place + 1]:.0f}"
        rows.append([band, f"{len(mine):,}", number(median[-1]), number(largest[-1])])
    traces = [_cloud(prompt, ms), line(middle, [*median], "median", "--c2")]
    layout = {
        "height": 300,
        "hovermode": "closest",
        "showlegend": False,
        "xaxis": {"title": {"text": "prompt tokens"}, **log_axis(edges.tolist())},
        "yaxis": {"title": {"text": "TTFT from send, ms"}, **log_axis([ms.min(), ms.max()])},
    }
    heads = ["prompt tokens", "requests", "median, ms", "largest, ms"]
    says = "Each request, and the median by prompt length."
    return Figure("prompt", "TTFT against prompt length", says, traces, layout, heads, rows)


def _cloud(x: Floats, y: Floats) -> dict[str, Any]:
    """The points themselves, or their density where nobody could tell them apart."""
    if len(x) <= _MOST_POINTS:
        return {
            "type": "scatter", "mode": "markers",
            "x": [short(v) for v in x.tolist()], "y": [short(v) for v in y.tolist()],
            "marker": {"size": 4, "color": "--c1", "opacity": 0.35},
            "hovertemplate": "%{x} tokens: %{y} ms<extra></extra>",
        }  # fmt: skip
    levels, edges = _log_edges(y), _log_edges(x)
    counts, _, _ = np.histogram2d(y, x, bins=[levels, edges])
    return {
        "type": "heatmap", "x": _middles(edges, log=True), "y": _middles(levels, log=True), "z": _blank_zeros(counts),
        "colorscale": [[0, "--c1-soft"], [1, "--c1"]], "showscale": False, "hoverongaps": False,
        "hovertemplate": "%{x:.0f} tokens, %{y:.0f} ms: %{z} requests<extra></extra>",
    }  # fmt: skip


def length_curves(analysis: Analysis) -> Figure | None:
    """Distribution functions of prompt and output lengths, planned and by usage."""
    traces, rows = [], []
    for name, label, colour in (
        ("prompt_tokens_planned", "prompt, planned", "--c3"), ("prompt_tokens", "prompt, by usage", "--c1"),
        ("output_tokens_planned", "output, planned", "--c6"), ("output_tokens", "output, by usage", "--c2"),
    ):  # fmt: skip
        values, counts = lengths(analysis, name)
        if not len(values):
            continue
        share = np.cumsum(counts) / counts.sum()
        at = np.unique(np.searchsorted(share, np.linspace(0, 1, 120)).clip(max=len(values) - 1))
        trace = line(np.maximum(values[at], 1).tolist(), (100 * share[at]).tolist(), label, colour)
        trace["line"] |= {"shape": "hv", "dash": "dot" if "planned" in label else "solid"}
        traces.append(trace)
        ranks = np.searchsorted(share, [0.5, 0.9, 0.99]).clip(max=len(values) - 1)
        rows.append([label, *(f"{values[rank]:,.0f}" for rank in ranks), f"{values[-1]:,.0f}"])
    if not traces:
        return None
    layout = {
        "height": 300,
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.01, "yanchor": "bottom"},
        "xaxis": {"title": {"text": "tokens"}, **log_axis(x for trace in traces for x in trace["x"])},
        "yaxis": {"title": {"text": "% of requests at most"}},
    }
    says = "Dotted as planned, solid as the server counted."
    return Figure("lengths", "Lengths as sent", says, traces, layout, ["", "p50", "p90", "p99", "largest"], rows)


_SEGMENTS = (
    ("late", "client late", "--c4"),
    ("connect", "connecting", "--c6"),
    ("queue", "server queue", "--c2"),
    ("wait", "to the first token", "--c3"),
    ("tokens", "tokens", "--c1"),
    ("tail", "to the end", "--grid"),
)


def waterfall(slow: list[Slow]) -> Figure | None:
    """The slowest requests, each from its due time on, apart by what it waited for."""
    if not slow:
        return None
    names = [f"{place}. row {one.index}" for place, one in enumerate(slow, 1)]
    traces: list[dict[str, Any]] = []
    for key, label, colour in _SEGMENTS:
        spans = [one.segments.get(key) for one in slow]
        if any(span and span[1] > span[0] for span in spans):
            traces.append(
                {
                    "type": "bar", "orientation": "h", "name": label, "y": names, "marker": {"color": colour},
                    "base": [short(span[0]) if span else None for span in spans],
                    "x": [short(span[1] - span[0]) if span else None for span in spans],
                    "hovertemplate": "%{y}: " + label + " %{x:.1f} ms<extra></extra>",
                }
            )  # fmt: skip
    stalls = [(name, start, end) for name, one in zip(names, slow, strict=True) for start, end in one.stalls]
    if stalls:
        traces.append(
            {
                "type": "bar", "orientation": "h", "name": "stall", "y": [s[0] for s in stalls],
                "base": [short(s[1]) for s in stalls], "x": [short(s[2] - s[1]) for s in stalls],
                "marker": {"color": "--c5"}, "hovertemplate": "%{y}: stall of %{x:.1f} ms<extra></extra>",
            }
        )  # fmt: skip
    layout = {
        "height": 90 + 24 * len(slow),
        "barmode": "overlay",
        "hovermode": "closest",
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.01, "yanchor": "bottom"},
        "xaxis": {"title": {"text": "ms after it was due"}},
        "yaxis": {"autorange": "reversed", "type": "category"},
    }
    heads = ["row", "request id", "status", "due, s", "prompt", "output", "late", "connect", "queue", "TTFT", "E2E"]
    heads += ["longest gap", "KV used", "running", "waiting", "GPU MHz", "class", "tenant"]
    rows = [
        [
            str(one.index), one.request_id, one.status, f"{one.due_s:.3f}", number(one.prompt_tokens),
            number(one.output_tokens), *(_length(one, key) for key in ("late", "connect", "queue")),
            number(one.ttft_ms),
            number(one.e2e_ms), number(one.longest_gap_ms), number(one.kv_usage), number(one.running),
            number(one.waiting), number(one.gpu_clock_mhz), one.klass, one.tenant,
        ]
        for one in slow
    ]  # fmt: skip
    says = "Search the server's log for the request id in the table; times in ms."
    for trace in traces:
        trace["y"] = [plain_text(name) for name in trace["y"]]
    return Figure("waterfall", f"The {len(slow)} slowest requests", says, traces, layout, heads, rows)


def _length(one: Slow, key: str) -> str:
    span = one.segments.get(key)
    return "" if span is None else number(span[1] - span[0])


def _log_edges(values: Floats, steps: int = _STEPS) -> Floats:
    low, high = float(values.min()), float(values.max())
    return np.geomspace(low * 0.999, max(high, low * 1.01) * 1.001, steps + 1)


def _middles(edges: Floats, log: bool = False) -> list[float | None]:
    middle = np.sqrt(edges[:-1] * edges[1:]) if log else (edges[:-1] + edges[1:]) / 2
    return [short(v) for v in middle.tolist()]


def _blank_zeros(counts: Floats) -> list[list[int | None]]:
    return [[int(v) or None for v in row] for row in counts.tolist()]
