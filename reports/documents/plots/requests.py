"""Single requests: TTFT over time and against prompt length, lengths as sent, the slowest ones taken apart.

Beyond a few thousand requests they are binned.
"""

from typing import Any, Final

import numpy as np

from tailgate.reports.documents.model import Figure, Row, Table
from tailgate.reports.documents.plots.primitives import (
    LEGEND,
    SECONDS,
    Json,
    axis,
    heat,
    layout,
    line,
    log_axis,
    number,
    points,
    short,
)
from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.slowest import Slow
from tailgate.reports.metrics.workload_as_sent import lengths
from tailgate.workloads.common.arrays import Floats

_MOST_POINTS: Final = 3000
_STEPS: Final = 40


def heatmap(analysis: Analysis) -> Figure | None:
    ms = analysis.figures.ms["ttft"]
    begun = analysis.run.column("scheduled_ns" if analysis.run.manifest.loop == "open" else "sent_ns")
    seen = analysis.run.ok & np.isfinite(ms) & np.isfinite(begun) & (ms > 0)
    if np.count_nonzero(seen) < 20:
        return None
    seconds, ms = begun[seen] / 1e9, ms[seen]
    times = np.linspace(seconds.min(), seconds.max() + 1e-6, min(100, max(10, len(ms) // 20)) + 1)
    levels = _log_edges(ms)
    trace = heat(seconds, ms, (times, levels), (_middles(times), _middles(levels, log=True)), "%{x:.1f} s, %{y:.0f} ms")
    drawn = layout(300, axis(SECONDS), axis("TTFT, ms", **log_axis(levels.tolist())), hovermode="closest")
    counts = np.histogram(ms, levels)[0].tolist()
    rows = [
        [f"{low:.4g} to {high:.4g}", f"{n:,}"]
        for low, high, n in zip(levels[:-1], levels[1:], counts, strict=True)
        if n
    ]
    caption = "The darker, the more requests: bands are modes, a climbing edge is a growing queue."
    table = Table(["TTFT, ms", "requests"], rows, words=())
    return Figure("heatmap", "TTFT over time", caption, [trace], drawn, table)


def ttft_by_prompt(analysis: Analysis) -> Figure | None:
    """TTFT against prompt length: the cost of prefill, and who waits behind long prompts."""
    ms, prompt = analysis.figures.ms["ttft_from_send"], analysis.run.column("prompt_tokens")
    seen = analysis.run.ok & analysis.run.measured & np.isfinite(ms) & np.isfinite(prompt) & (ms > 0) & (prompt > 0)
    ms, prompt = ms[seen], prompt[seen]
    if len(ms) < 20 or prompt.min() == prompt.max():
        return None
    edges = _log_edges(prompt, 24)
    slots = np.clip(np.searchsorted(edges, prompt, side="right") - 1, 0, len(edges) - 2)
    middles, medians = [], []
    rows: list[Row] = []
    for slot in np.unique(slots):
        low, high, mine = edges[slot], edges[slot + 1], np.sort(ms[slots == slot])
        middles.append(float(np.sqrt(low * high)))
        medians.append(float(mine[(len(mine) - 1) // 2]))
        rows.append([f"{low:.0f} to {high:.0f}", f"{len(mine):,}", number(medians[-1]), number(float(mine[-1]))])
    traces = [_cloud(prompt, ms), line(middles, medians, "median", "--c2")]
    x = axis("prompt tokens", **log_axis(edges.tolist()))
    y = axis("TTFT from send, ms", **log_axis([ms.min(), ms.max()]))
    table = Table(["prompt tokens", "requests", "median, ms", "largest, ms"], rows, words=())
    caption, drawn = "Each request, and the median by prompt length.", layout(300, x, y, hovermode="closest")
    return Figure("prompt", "TTFT against prompt length", caption, traces, drawn, table)


def _cloud(x: Floats, y: Floats) -> Json:
    """The points themselves, or their density where nobody could tell them apart."""
    if len(x) <= _MOST_POINTS:
        marker = {"size": 4, "opacity": 0.35}
        return points(x.tolist(), y.tolist(), "--c1", hover="%{x} tokens: %{y} ms", marker=marker)
    edges = _log_edges(x), _log_edges(y)
    middles = _middles(edges[0], log=True), _middles(edges[1], log=True)
    return heat(x, y, edges, middles, "%{x:.0f} tokens, %{y:.0f} ms")


def length_curves(analysis: Analysis) -> Figure | None:
    """Distribution functions of prompt and output lengths, planned and by usage."""
    traces, rows = [], []
    for name, said, colour in (
        ("prompt_tokens_planned", "prompt, planned", "--c3"), ("prompt_tokens", "prompt, by usage", "--c1"),
        ("output_tokens_planned", "output, planned", "--c6"), ("output_tokens", "output, by usage", "--c2"),
    ):  # fmt: skip
        values, counts = lengths(analysis, name)
        if not len(values):
            continue
        share = np.cumsum(counts) / counts.sum()
        at = np.unique(np.searchsorted(share, np.linspace(0, 1, 120)).clip(max=len(values) - 1))
        style = {"shape": "hv", "dash": "dot" if "planned" in said else "solid"}
        traces.append(line(np.maximum(values[at], 1).tolist(), (100 * share[at]).tolist(), said, colour, **style))
        ranks = np.searchsorted(share, [0.5, 0.9, 0.99]).clip(max=len(values) - 1)
        rows.append([said, *(f"{values[rank]:,.0f}" for rank in ranks), f"{values[-1]:,.0f}"])
    if not traces:
        return None
    x = axis("tokens", **log_axis(x for trace in traces for x in trace["x"]))
    drawn = layout(300, x, axis("% of requests at most"), **LEGEND)
    table = Table(["", "p50", "p90", "p99", "largest"], rows)
    return Figure("lengths", "Lengths as sent", "Dotted as planned, solid as the server counted.", traces, drawn, table)


_SEGMENTS: Final = (
    ("late", "client late", "--c4"),
    ("connect", "connecting", "--c6"),
    ("queue", "server queue", "--c2"),
    ("wait", "to the first token", "--c3"),
    ("tokens", "tokens", "--c1"),
    ("tail", "to the end", "--grid"),
)
_SLOW_HEADS: Final = (
    "row", "request id", "status", "due, s", "prompt", "output", "late", "connect", "queue", "TTFT", "E2E",
    "longest gap", "KV used", "running", "waiting", "GPU MHz", "class", "tenant",
)  # fmt: skip


def waterfall(slow: list[Slow]) -> Figure | None:
    """The slowest requests, each from its due time on, split by what it waited for."""
    if not slow:
        return None
    names = [f"{place}. row {request.index}" for place, request in enumerate(slow, 1)]
    traces = []
    for key, said, colour in _SEGMENTS:
        spans = [(name, *span) for name, one in zip(names, slow, strict=True) if (span := one.segments.get(key))]
        traces.append(_bars(spans, said, colour, f"{said} %{{x:.1f}} ms"))
    stalls = [(name, *stall) for name, one in zip(names, slow, strict=True) for stall in one.stalls]
    traces.append(_bars(stalls, "stall", "--c5", "stall of %{x:.1f} ms"))
    y = {"autorange": "reversed", "type": "category", "categoryorder": "array", "categoryarray": names}
    drawn = layout(
        90 + 24 * len(slow), axis("ms after it was due"), y, barmode="overlay", hovermode="closest", **LEGEND
    )
    table = Table(_SLOW_HEADS, [*map(_slow_row, slow)], words=())
    caption = "Search the server's log for the request id in the table; times in ms."
    title = f"The {len(slow)} slowest requests"
    return Figure("waterfall", title, caption, [trace for trace in traces if trace["x"]], drawn, table)


def _bars(spans: list[tuple[str, float, float]], name: str, colour: str, hover: str) -> dict[str, Any]:
    spans = [span for span in spans if span[2] > span[1]]
    return {
        "type": "bar", "orientation": "h", "name": name, "y": [span[0] for span in spans],
        "base": [short(span[1]) for span in spans], "x": [short(span[2] - span[1]) for span in spans],
        "marker": {"color": colour}, "hovertemplate": f"%{{y}}: {hover}<extra></extra>",
    }  # fmt: skip


def _slow_row(one: Slow) -> Row:
    spans = [one.segments.get(key) for key in ("late", "connect", "queue")]
    return [
        str(one.index), one.request_id, one.status, f"{one.due_s:.3f}", number(one.prompt_tokens),
        number(one.output_tokens), *(number(span[1] - span[0]) if span else "" for span in spans),
        number(one.ttft_ms), number(one.e2e_ms), number(one.longest_gap_ms), number(one.kv_usage), number(one.running),
        number(one.waiting), number(one.gpu_clock_mhz), one.klass, one.tenant,
    ]  # fmt: skip


def _log_edges(values: Floats, steps: int = _STEPS) -> Floats:
    low, high = float(values.min()), float(values.max())
    return np.geomspace(low * 0.999, max(high, low * 1.01) * 1.001, steps + 1)


def _middles(edges: Floats, log: bool = False) -> list[float]:
    middle = np.sqrt(edges[:-1] * edges[1:]) if log else (edges[:-1] + edges[1:]) / 2
    return [short(v) for v in middle.tolist()]
