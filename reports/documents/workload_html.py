"""The preview of a workload as one HTML page: arrivals, dispersion, lengths, sharing, load; each with its table.

Only drawing: the figures are of `workloads.plan.summary` and its neighbours, the page itself of
`reports.documents.html_page`.
"""

from typing import Any, Final

import numpy as np

from tailgate.reports.documents.html_page import figure, page, section, table, text
from tailgate.reports.documents.plots.run import Figure, line, number
from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.plan.plan import Plan
from tailgate.workloads.plan.summary import plan_figures, timed_s
from tailgate.workloads.statistics.arrivals import counts_in, dispersion
from tailgate.workloads.statistics.lru_curve import lru_curve
from tailgate.workloads.statistics.prefix_reuse import implied_reuse

_MOST_BINS: Final = 1200
_COLOURS: Final = ("--c1", "--c2", "--c3", "--c4", "--c5")
_TABLE_ROWS: Final = 40


def preview_page(plan: Plan, name: str, about: str = "") -> str:
    """The whole document of a plan."""
    figures = plan_figures(plan)
    times = timed_s(plan)
    shown = (
        _rate(times, plan.span_s),
        _dispersion(times, plan.span_s),
        _lengths(plan, "prompt_tokens"),
        _lengths(plan, "output_tokens"),
        _load(plan),
        _reuse(plan),
        _cache(plan),
    )
    drawn = [one for one in shown if one is not None]
    head = (
        f"<header><h1>{text(name)}</h1><p class='faint'>{text(about)}</p>"
        f"{table(['figure', 'value'], _summary(figures), (0,))}</header>"
    )
    notices = "".join(f"<li>{text(notice)}</li>" for notice in figures["notices"])
    body = head + (section("To know", f"<ul>{notices}</ul>") if notices else "")
    body += section("Figures", "".join(figure(one) for one in drawn))
    return page(f"{name}: workload", "", body, drawn)


def _summary(figures: dict[str, Any]) -> list[list[str]]:
    rows = [
        ["loop", figures["loop"]],
        ["requests", f"{figures['requests']:,}"],
        ["sessions", f"{figures['sessions']:,}"],
    ]
    if "starts_per_s" in figures:
        rows += [
            ["seconds", number(figures["seconds"])],
            ["arrivals per second", number(figures["starts_per_s"])],
            ["variation of gaps (Poisson: 1)", number(figures["gap_cv"])],
            *(
                [f"dispersion at {one['window_s']:g} s (Poisson: 1)", number(one["value"])]
                for one in figures["dispersion"]
                if one["value"] is not None
            ),
            ["prompt tokens per second", number(figures["prompt_tokens_per_s"])],
            ["output tokens per second", number(figures["output_tokens_per_s"])],
        ]
    for key, label in (("prompt_tokens", "prompt tokens"), ("output_tokens", "output tokens"), ("turns", "turns")):
        if key in figures:
            found = figures[key]
            rows.append([f"{label}: p50, p90, p99", ", ".join(f"{found[q]:,.0f}" for q in ("p50", "p90", "p99"))])
    rows.append(["rank correlation of prompt and output", number(figures["rank_correlation"])])
    rows.append(["prompt tokens seen before (unlimited cache)", f"{100 * figures['prompt_tokens_seen_before']:.1f} %"])
    rows.append(["plan", figures["plan_hash"]])
    return rows


def _rate(times_s: Floats, span: float) -> Figure | None:
    if len(times_s) < 2:
        return None
    traces: list[dict[str, Any]] = []
    table_of: tuple[Floats, Floats] | None = None
    for window, colour in ((1.0, "--c5"), (10.0, "--c2"), (60.0, "--c1")):
        bins = int(span / window)
        if not 2 <= bins <= _MOST_BINS:
            continue
        rates = counts_in(times_s, window, bins) / window
        middles = (np.arange(float(bins)) + 0.5) * window
        traces.append(line(middles.tolist(), rates.tolist(), f"per {window:g} s", colour, width=0.8 + window / 50))
        table_of = middles, rates
    if table_of is None:
        # Longer than 20 hours: as many bins as can be seen.
        bins = _MOST_BINS
        rates = counts_in(times_s, span / bins, bins) / (span / bins)
        middles = (np.arange(float(bins)) + 0.5) * span / bins
        traces.append(line(middles.tolist(), rates.tolist(), f"per {span / bins:.3g} s", "--c1"))
        table_of = middles, rates
    step = max(1, len(table_of[0]) // _TABLE_ROWS)
    rows = [[number(float(at)), number(float(rate))] for at, rate in zip(*table_of, strict=True)][::step]
    layout = {
        "height": 300, "xaxis": {"title": {"text": "seconds"}},
        "yaxis": {"title": {"text": "arrivals/s"}, "rangemode": "tozero"},
        "legend": {"orientation": "h", "y": 1.1},
    }  # fmt: skip
    says = "The same arrivals in windows of several lengths: what stays at 60 s is no accident of single seconds."
    return Figure("rate", "Arrivals per second", says, traces, layout, ["second", "arrivals/s"], rows)


def _dispersion(times_s: Floats, span: float) -> Figure | None:
    if span < 10:
        return None
    windows = np.geomspace(0.1, span / 10, 25)
    found = [one for w in windows.tolist() if (one := dispersion(times_s, w, span)).value is not None]
    if len(found) < 3:
        return None
    x = [one.window_s for one in found]
    traces = [
        line(x, [one.low for one in found], "", "--c1", width=0, hover=False),
        line(x, [one.high for one in found], "95 % interval", "--c1", width=0, hover=False)
        | {"fill": "tonexty", "fillcolor": "--c1-soft"},
        line(x, [one.value for one in found], "this plan", "--c1"),
        line(x, [1.0] * len(x), "Poisson", "--c3") | {"line": {"color": "--c3", "width": 1, "dash": "dash"}},
    ]
    layout = {
        "height": 300, "showlegend": False, "xaxis": {"type": "log", "title": {"text": "window, s"}},
        "yaxis": {"type": "log", "title": {"text": "variance / mean of counts"}},
    }  # fmt: skip
    rows = [[number(one.window_s), number(one.value), number(one.low), number(one.high)] for one in found]
    says = "Index of dispersion by window; dashed: Poisson. A line that rises is a rate that wanders."
    return Figure(
        "dispersion",
        "Burstiness at every scale",
        says,
        traces,
        layout,
        ["window, s", "dispersion", "low", "high"],
        rows,
    )


def _lengths(plan: Plan, column: str) -> Figure:
    label = column.replace("_", " ")
    values, names = plan.table[column].to_numpy(), plan.table["class"].to_numpy(zero_copy_only=False).astype(str)
    groups = {name: values[names == name] for name in dict.fromkeys(names.tolist())}
    if len(groups) > len(_COLOURS):
        groups = {"all": values}
    shares = np.concatenate([np.linspace(0.001, 0.99, 150), [0.995, 0.999, 1.0]])
    traces, rows = [], []
    for (name, some), colour in zip(groups.items(), _COLOURS, strict=False):
        quantiles = np.quantile(some, shares)
        traces.append(line(quantiles.tolist(), (100 * shares).tolist(), name, colour))
        rows += [
            [name, f"p{100 * share:g}", f"{float(np.quantile(some, share)):,.0f}"]
            for share in (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
        ]
    layout = {
        "height": 280, "showlegend": len(groups) > 1, "legend": {"orientation": "h", "y": 1.15},
        "xaxis": {"type": "log", "title": {"text": label}}, "yaxis": {"title": {"text": "% of requests"}},
    }  # fmt: skip
    says = f"Share of requests with at most so many {label}."
    return Figure(column, label.capitalize(), says, traces, layout, ["class", "percentile", label], rows)


def _load(plan: Plan) -> Figure | None:
    timed = plan.table.filter(plan.table["at_ns"].is_valid())
    times, span = timed["at_ns"].to_numpy() / 1e9, plan.span_s
    if span < 5:
        return None
    bins = int(min(span, 600))
    width = span / bins
    slots = np.minimum((times / width).astype(np.int64), bins - 1)
    middles = ((np.arange(bins) + 0.5) * width).tolist()
    loads = {
        name: np.bincount(slots, weights=timed[f"{name}_tokens"].to_numpy(), minlength=bins) / width
        for name in ("prompt", "output")
    }
    traces = [
        line(middles, loads["prompt"].tolist(), "prompt", "--c1"),
        line(middles, loads["output"].tolist(), "output", "--c2"),
    ]
    layout = {
        "height": 280, "xaxis": {"title": {"text": "seconds"}}, "legend": {"orientation": "h", "y": 1.15},
        "yaxis": {"title": {"text": "tokens/s asked for"}, "rangemode": "tozero"},
    }  # fmt: skip
    step = max(1, bins // _TABLE_ROWS)
    rows = [
        [number(middles[k]), number(float(loads["prompt"][k])), number(float(loads["output"][k]))]
        for k in range(0, bins, step)
    ]
    says = f"Tokens of the requests that arrive, in bins of {width:.3g} s; later turns without a time are not in it."
    return Figure("load", "Token load", says, traces, layout, ["second", "prompt tokens/s", "output tokens/s"], rows)


def _reuse(plan: Plan) -> Figure | None:
    found = implied_reuse(plan.table, plan.block_tokens)
    if not found.token_share:
        return None
    prompt = plan.table["prompt_tokens"].to_numpy().astype(np.float64)
    share = 100 * np.cumsum(found.hit_tokens) / np.cumsum(prompt)
    step = max(1, len(share) // 400)
    x, y = (np.arange(len(share)) + 1)[::step].tolist(), share[::step].tolist()
    layout = {
        "height": 260, "showlegend": False, "xaxis": {"title": {"text": "requests so far"}},
        "yaxis": {"title": {"text": "% of prompt tokens seen before"}, "rangemode": "tozero"},
    }  # fmt: skip
    every = max(1, len(x) // _TABLE_ROWS)
    rows = [[f"{at:,}", number(value)] for at, value in zip(x, y, strict=True)][::every]
    says = "What a prefix cache without limit would have found, from the first request on."
    return Figure("reuse", "Shared prefixes", says, [line(x, y, "seen before", "--c1")], layout, ["request", "%"], rows)


def _cache(plan: Plan) -> Figure | None:
    blocks = plan.table["prefix_blocks"].combine_chunks().flatten().to_numpy()
    sizes, hits = lru_curve(blocks)
    if not len(sizes):
        return None
    tokens = (sizes * plan.block_tokens).tolist()
    layout = {
        "height": 260, "showlegend": False, "xaxis": {"type": "log", "title": {"text": "cache, tokens"}},
        "yaxis": {"title": {"text": "% of named blocks found"}, "rangemode": "tozero"},
    }  # fmt: skip
    shares = (100 * hits).tolist()
    rows = [[f"{size:,.0f}", number(share)] for size, share in zip(tokens, shares, strict=True)]
    says = "What a least-recently-used cache of a given size would find of the blocks that the plan names."
    drawn = [line(tokens, shares, "found", "--c1")]
    return Figure("cache", "How much cache it takes", says, drawn, layout, ["tokens", "%"], rows)
