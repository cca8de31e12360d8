"""Single requests: TTFT over time and against prompt length, lengths as sent, the slowest ones taken apart.

Beyond a few thousand requests they are binned.
"""

from typing import Any, Final

import numpy as np

from tailgate.reports.documents.model import Figure, Row, Table
from tailgate.reports.documents.plots import primitives as draw
from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.slowest import Slow
from tailgate.reports.metrics.workload_as_sent import lengths
from tailgate.workloads.common.arrays import Floats

_MOST_POINTS: Final = 3000
_STEPS: Final = 40
_FEWEST: Final = 5  # requests that a median is drawn of


def heatmap(analysis: Analysis) -> Figure | None:
    ms = analysis.figures.ms["ttft"]
    begun = analysis.run.column("scheduled_ns" if analysis.run.manifest.loop == "open" else "sent_ns")
    seen = analysis.run.ok & np.isfinite(ms) & np.isfinite(begun) & (ms > 0)
    if np.count_nonzero(seen) < 20:
        return None
    seconds, ms = begun[seen] / 1e9, ms[seen]
    times = np.linspace(seconds.min(), seconds.max() + 1e-6, min(100, max(10, len(ms) // 20)) + 1)
    levels = _log_edges(ms)
    middles = _middles(times), _middles(levels, log=True)
    trace = draw.heat(seconds, ms, (times, levels), middles, "%{x:.1f} s, %{y:.0f} ms")
    y = draw.axis("TTFT, ms", **draw.log_axis(levels.tolist()))
    drawn = draw.layout(300, draw.axis(draw.SECONDS), y, hovermode="closest")
    most = max(n or 0 for row in trace["z"] for n in row)
    counts = zip(levels[:-1], levels[1:], np.histogram(ms, levels)[0].tolist(), strict=True)
    rows = [[f"{low:.4g} to {high:.4g}", f"{n:,}"] for low, high, n in counts if n]
    caption = (
        f"The stronger the colour, the more requests, up to {most:,}: bands are modes, a climbing edge is a growing "
        "queue."
    )
    table = Table(["TTFT, ms", "requests"], rows, words=())
    return Figure("heatmap", "TTFT over time", caption, [trace], drawn, table)


def ttft_by_prompt(analysis: Analysis) -> Figure | None:
    """TTFT against prompt length: the cost of prefill, and who waits behind long prompts."""
    ms, prompt = analysis.figures.ms["ttft_from_send"], analysis.run.column("prompt_tokens")
    seen = analysis.run.ok & analysis.run.measured & np.isfinite(ms) & np.isfinite(prompt) & (ms > 0) & (prompt > 0)
    ms, prompt = ms[seen], prompt[seen]
    if len(ms) < 20 or prompt.min() == prompt.max():
        return None
    edges = _log_edges(prompt, max(6, min(24, len(ms) // 25)))
    slots = np.clip(np.searchsorted(edges, prompt, side="right") - 1, 0, len(edges) - 2)
    middles: list[float] = []
    medians: list[float | None] = []
    rows: list[Row] = []
    for slot in np.unique(slots):
        low, high, mine = edges[slot], edges[slot + 1], np.sort(ms[slots == slot])
        median = float(mine[(len(mine) - 1) // 2])
        middles.append(float(np.sqrt(low * high)))
        medians.append(median if len(mine) >= _FEWEST else None)
        numbers = map(draw.number, (median, float(mine[-1])))
        rows.append([f"{low:.0f} to {high:.0f}", f"{len(mine):,}", *numbers])
    traces = [_cloud(prompt, ms), draw.line(middles, medians, "median", "--c2") | {"connectgaps": True}]
    x = draw.axis("prompt tokens", **draw.log_axis(edges.tolist()))
    y = draw.axis("TTFT from send, ms", **draw.log_axis([ms.min(), ms.max()]))
    table = Table(["prompt tokens", "requests", "median, ms", "largest, ms"], rows, words=())
    caption = f"Each request, and the median of at least {_FEWEST} requests of about one length."
    drawn = draw.layout(300, x, y, hovermode="closest")
    return Figure("prompt", "TTFT against prompt length", caption, traces, drawn, table)


def _cloud(x: Floats, y: Floats) -> draw.Json:
    """The points themselves, or their density where nobody could tell them apart."""
    if len(x) <= _MOST_POINTS:
        marker = {"size": 4, "opacity": 0.35}
        return draw.points(x.tolist(), y.tolist(), "--c1", hover="%{x} tokens: %{y} ms", marker=marker)
    edges = _log_edges(x), _log_edges(y)
    middles = _middles(edges[0], log=True), _middles(edges[1], log=True)
    return draw.heat(x, y, edges, middles, "%{x:.0f} tokens, %{y:.0f} ms")


def length_curves(analysis: Analysis) -> Figure | None:
    traces, rows = [], []
    for name, text, colour in (
        ("prompt_tokens_planned", "prompt, planned", "--c1"), ("prompt_tokens", "prompt, by usage", "--c1"),
        ("output_tokens_planned", "output, planned", "--c2"), ("output_tokens", "output, by usage", "--c2"),
    ):  # fmt: skip
        values, counts = lengths(analysis, name)
        if not len(values):
            continue
        share = np.cumsum(counts) / counts.sum()
        at = np.unique(np.searchsorted(share, np.linspace(0, 1, 120)).clip(max=len(values) - 1))
        curve = draw.line(values[at].tolist(), (100 * share[at]).tolist(), text, colour, shape="hv")
        # Where all goes to plan one curve covers the other: the planned one is broad.
        traces.append(curve | ({"opacity": 0.3, "line": {**curve["line"], "width": 7}} if "planned" in text else {}))
        ranks = np.searchsorted(share, [0.5, 0.9, 0.99]).clip(max=len(values) - 1)
        rows.append([text, *(f"{values[rank]:,.0f}" for rank in ranks), f"{values[-1]:,.0f}"])
    if not traces:
        return None
    x = draw.axis("tokens", **draw.log_axis(x for trace in traces for x in trace["x"]))
    drawn = draw.layout(300, x, draw.axis("% of requests, at most so long"), **draw.LEGEND)
    table = Table(["tokens", "p50", "p90", "p99", "largest"], rows)
    caption = "Broad and pale as planned, thin as the server counted."
    return Figure("lengths", "Lengths as sent", caption, traces, drawn, table)


_SEGMENTS: Final = (
    ("late", "client late", "--c4"),
    ("connect", "connecting", "--c6"),
    ("queue", "server queue", "--c2"),
    ("wait", "to the first token", "--c3"),
    ("tokens", "tokens", "--c1"),
    ("tail", "to the end", "--faint"),
)
_SLOW_HEADS: Final = (
    "row", "request id", "status", "due, s", "prompt, tokens", "output, tokens", "late, ms", "connect, ms", "queue, ms",
    "TTFT, ms", "E2E, ms", "longest gap, ms", "KV cache, %", "running", "waiting", "GPU, MHz", "class", "tenant",
)  # fmt: skip


def waterfall(slow: list[Slow]) -> Figure | None:
    if not slow:
        return None
    names = [f"{place}. row {request.index}" for place, request in enumerate(slow, 1)]
    by_name = dict(zip(names, slow, strict=True))
    traces = []
    for key, text, colour in _SEGMENTS:
        spans = [(name, *span) for name, request in by_name.items() if (span := request.segments.get(key))]
        traces.append(_bars(spans, text, colour, f"{text} %{{x:.1f}} ms"))
    stalls = [(name, *stall) for name, request in by_name.items() for stall in request.stalls]
    traces.append(_bars(stalls, "stall", "--c5", "stall of %{x:.1f} ms"))
    x = draw.axis("ms after it was due")
    y = {"autorange": "reversed", "type": "category", "categoryorder": "array", "categoryarray": names}
    drawn = draw.layout(90 + 24 * len(slow), x, y, barmode="overlay", hovermode="closest", **draw.LEGEND)
    table = Table(_SLOW_HEADS, [*map(_slow_row, slow)], words=())
    caption = "Search the server's log for the request id, which stands in the table."
    title = f"The {len(slow)} slowest requests"
    return Figure("waterfall", title, caption, [trace for trace in traces if trace["x"]], drawn, table)


def _bars(spans: list[tuple[str, float, float]], name: str, colour: str, hover: str) -> dict[str, Any]:
    spans = [span for span in spans if span[2] > span[1]]
    return {
        "type": "bar", "orientation": "h", "name": name, "y": [span[0] for span in spans],
        "base": [draw.short(span[1]) for span in spans], "x": [draw.short(span[2] - span[1]) for span in spans],
        "marker": {"color": colour}, "hovertemplate": f"%{{y}}: {hover}<extra></extra>",
    }  # fmt: skip


def _slow_row(slow: Slow) -> Row:
    spans = [slow.segments.get(key) for key in ("late", "connect", "queue")]
    return [
        str(slow.index), slow.request_id, slow.status, f"{slow.due_s:.3f}", draw.number(slow.prompt_tokens),
        draw.number(slow.output_tokens), *(draw.number(span[1] - span[0]) if span else "" for span in spans),
        *map(draw.number, (slow.ttft_ms, slow.e2e_ms, slow.longest_gap_ms)),
        draw.number(None if slow.kv_usage is None else 100 * slow.kv_usage),
        *map(draw.number, (slow.running, slow.waiting)),
        draw.number(slow.gpu_clock_mhz), slow.klass, slow.tenant,
    ]  # fmt: skip


def _log_edges(values: Floats, steps: int = _STEPS) -> Floats:
    low, high = float(values.min()), float(values.max())
    return np.geomspace(low * 0.999, max(high, low * 1.01) * 1.001, steps + 1)


def _middles(edges: Floats, log: bool = False) -> list[float]:
    middle = np.sqrt(edges[:-1] * edges[1:]) if log else (edges[:-1] + edges[1:]) / 2
    return [draw.short(v) for v in middle.tolist()]
