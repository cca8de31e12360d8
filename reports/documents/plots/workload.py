"""The figures of a workload's preview: arrivals, dispersion, lengths, token load, shared prefixes, cache size."""

from typing import Final

import numpy as np

from tailgate.reports.documents.model import Figure, Row, Table
from tailgate.reports.documents.plots.primitives import (
    LEGEND,
    axis,
    band,
    layout,
    line,
    log_axis,
    number,
    thinned,
)
from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.plan.plan import Plan
from tailgate.workloads.plan.summary import timed_s
from tailgate.workloads.statistics.arrivals import counts_in, dispersion
from tailgate.workloads.statistics.prefix_reuse import implied_reuse, lru_curve

_MOST_BINS: Final = 1200
_STRIP_BINS: Final = 72
_COLOURS: Final = ("--c1", "--c2", "--c3", "--c4", "--c5")


def plan_plots(plan: Plan) -> list[Figure]:
    times, span = timed_s(plan), plan.span_s
    lengths = (_lengths(plan, kind) for kind in ("prompt_tokens", "output_tokens"))
    figures = (_rate(times, span), _dispersion(times, span), *lengths, _load(plan), _reuse(plan), _cache(plan))
    return [figure for figure in figures if figure is not None]


def _rate(times_s: Floats, span: float) -> Figure | None:
    if len(times_s) < 2:
        return None
    colours = {1.0: "--c5", 10.0: "--c2", 60.0: "--c1"}
    windows = {w: colour for w, colour in colours.items() if 2 * w <= span <= _MOST_BINS * w}
    traces = []
    # Longer than 20 hours: as many bins as can be seen.
    for window, colour in (windows or {span / _MOST_BINS: "--c1"}).items():
        middles, rates = _rates(times_s, window, int(round(span / window, 9)))
        curve = line(middles, rates, f"in {window:.3g} s", colour, width=0.8 + min(window, 60) / 50)
        traces.append(curve | {"opacity": 0.5 if window == 1 else 1})
    rows = [[number(at), number(rate)] for at, rate in zip(middles, rates, strict=True)]
    _, coarse = _rates(times_s, span / _STRIP_BINS, _STRIP_BINS)
    strip = f"arrivals/s over {span:,.0f} s, up to {max(coarse):.3g}", _bars(coarse)
    drawn = layout(300, axis("seconds"), axis("arrivals/s", rangemode="tozero"), **LEGEND)
    caption = "The same arrivals in windows of several lengths: what stays at 60 s is no accident of single seconds."
    table = Table(["second", "arrivals/s"], thinned(rows), words=())
    return Figure("rate", "Arrivals per second", caption, traces, drawn, table, [strip])


def _rates(times_s: Floats, window_s: float, bins: int) -> tuple[list[float], list[float]]:
    """The middles of windows, and the arrivals per second in each."""
    middles, rates = (np.arange(float(bins)) + 0.5) * window_s, counts_in(times_s, window_s, bins) / window_s
    return middles.tolist(), rates.tolist()


def _bars(values: list[float]) -> str:
    top = max(values) or 1.0
    return "".join(" ▁▂▃▄▅▆▇█"[min(8, round(8 * value / top + (0.49 if value else 0)))] for value in values)


def _dispersion(times_s: Floats, span: float) -> Figure | None:
    if span < 10:
        return None
    windows = np.geomspace(0.1, span / 10, 25).tolist()
    dispersions = [d for window in windows if (d := dispersion(times_s, window, span)).value is not None]
    if len(dispersions) < 3:
        return None
    x = [d.window_s for d in dispersions]
    traces = [
        *band(x, [d.low for d in dispersions], [d.high for d in dispersions], "--c1"),
        line(x, [d.value for d in dispersions], "this plan", "--c1"),
        line(x, [1.0] * len(x), "Poisson", "--c3", width=1, dash="dash"),
    ]
    heights = [value for d in dispersions for value in (d.value, d.low, d.high)]
    y = axis("variance / mean of counts", **log_axis([*heights, 1.0]))
    drawn = layout(300, axis("window, s", **log_axis(x)), y)
    rows = [[*map(number, (d.window_s, d.value, d.low, d.high))] for d in dispersions]
    caption = "Index of dispersion by window; dashed: Poisson. A line that rises is a rate that wanders."
    table = Table(["window, s", "dispersion", "low", "high"], rows, words=())
    return Figure("dispersion", "Burstiness at every scale", caption, traces, drawn, table)


def _lengths(plan: Plan, column: str) -> Figure:
    label = column.replace("_", " ")
    values, names = plan.table[column].to_numpy(), plan.table["class"].to_numpy(zero_copy_only=False).astype(str)
    groups = {name: values[names == name] for name in dict.fromkeys(names.tolist())}
    if len(groups) > len(_COLOURS):
        groups = {"all": values}
    shares = np.concatenate([np.linspace(0.001, 0.99, 150), [0.995, 0.999, 1.0]])
    quantiles = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
    traces, rows = [], []
    for (name, some), colour in zip(groups.items(), _COLOURS, strict=False):
        traces.append(line(np.quantile(some, shares).tolist(), (100 * shares).tolist(), name, colour))
        values_at = zip(quantiles, np.quantile(some, quantiles), strict=True)
        rows += [[name, f"p{100 * q:g}", f"{value:,.0f}"] for q, value in values_at]
    x = axis(label, **log_axis([values.min(), values.max()]))
    drawn = layout(280, x, axis("% of requests, at most so long"), **LEGEND) | {"showlegend": len(groups) > 1}
    edges = np.geomspace(max(1, values.min()), values.max() + 1, _STRIP_BINS + 1)
    counts = np.histogram(values, edges)[0].tolist()
    strip = f"{label}, {values.min():,} to {values.max():,} (logarithmic)", _bars(counts)
    caption = f"Share of requests with at most so many {label}."
    table = Table(["class", "percentile", label], rows, words=(0, 1))
    return Figure(column, label.capitalize(), caption, traces, drawn, table, [strip])


def _load(plan: Plan) -> Figure | None:
    timed, span = plan.table.filter(plan.table["at_ns"].is_valid()), plan.span_s
    if span < 5:
        return None
    bins = int(min(span, 600))
    width = span / bins
    slots = np.minimum((timed["at_ns"].to_numpy() / 1e9 / width).astype(np.int64), bins - 1)
    middles = ((np.arange(bins) + 0.5) * width).tolist()
    prompt, output = (
        (np.bincount(slots, weights=timed[f"{name}_tokens"].to_numpy(), minlength=bins) / width).tolist()
        for name in ("prompt", "output")
    )
    traces = [line(middles, prompt, "prompt", "--c1"), line(middles, output, "output", "--c2")]
    drawn = layout(280, axis("seconds"), axis("tokens/s asked for", rangemode="tozero"), **LEGEND)
    rows: list[Row] = [[*map(number, row)] for row in zip(middles, prompt, output, strict=True)]
    caption = f"Tokens of the requests that arrive, in bins of {width:.3g} s; later turns without a time are not in it."
    table = Table(["second", "prompt tokens/s", "output tokens/s"], thinned(rows), words=())
    return Figure("load", "Token load", caption, traces, drawn, table)


def _reuse(plan: Plan) -> Figure | None:
    reuse = implied_reuse(plan.table, plan.block_tokens)
    if not reuse.token_share:
        return None
    prompt = plan.table["prompt_tokens"].to_numpy().astype(np.float64)
    share = 100 * np.cumsum(reuse.hit_tokens) / np.cumsum(prompt)
    step = max(1, len(share) // 400)
    x, y = (np.arange(len(share)) + 1)[::step].tolist(), share[::step].tolist()
    drawn = layout(260, axis("requests so far"), axis("% of prompt tokens seen before", rangemode="tozero"))
    rows = [[f"{at:,}", number(value)] for at, value in zip(x, y, strict=True)]
    caption = "What a prefix cache without limit would have found, from the first request on."
    table = Table(["request", "%"], thinned(rows), words=())
    return Figure("reuse", "Shared prefixes", caption, [line(x, y, "seen before", "--c1")], drawn, table)


def _cache(plan: Plan) -> Figure | None:
    sizes, hits = lru_curve(plan.table["prefix_blocks"].combine_chunks().flatten().to_numpy())
    if not len(sizes):
        return None
    tokens, shares = (sizes * plan.block_tokens).tolist(), (100 * hits).tolist()
    drawn = layout(
        260,
        axis("cache, tokens", **log_axis(tokens)),
        axis("% of named blocks found", rangemode="tozero"),
    )
    rows = [[f"{size:,.0f}", number(share)] for size, share in zip(tokens, shares, strict=True)]
    caption = "What a least-recently-used cache of a given size would find of the blocks that the plan names."
    table = Table(["tokens", "%"], rows, words=())
    return Figure("cache", "How much cache it takes", caption, [line(tokens, shares, "found", "--c1")], drawn, table)
