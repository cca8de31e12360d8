"""A workload's figures in words and lines, for the terminal and for scripts."""

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailgate.workloads.plan.plan import Plan


def print_json(content: Any) -> None:
    """For scripts: nothing else goes to stdout."""
    sys.stdout.write(json.dumps(content, indent=1) + "\n")


def print_figures(figures: dict[str, Any], facts: dict[str, Any]) -> None:
    """A plan's figures as a table, beside those of its source where a profile states them."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("figure", "plan", *(["source"] if facts else []), box=None, pad_edge=False)

    def row(label: str, value: str, fact: Any = None) -> None:
        table.add_row(label, value, *([_fact(fact)] if facts else []))

    row("requests", f"{figures['requests']:,} ({figures['loop']} loop, {figures['sessions']:,} sessions)")
    if "starts_per_s" in figures:
        row(
            "arrivals per second", f"{figures['starts_per_s']:g} over {figures['seconds']:g} s", facts.get("rate_per_s")
        )
        row("variation of gaps", number(figures["gap_cv"]))
        for one in figures["dispersion"]:
            key = f"{one['window_s']:g}s"
            row(f"dispersion at {key}", _interval(one), facts.get("dispersion", {}).get(key))
        for window, value in figures["peak_to_mean"].items():
            row(f"peak over mean, {window}", number(value), facts.get("peak_to_mean", {}).get(window))
    for key in ("prompt_tokens", "output_tokens", "turns"):
        if key in figures:
            shown = ", ".join(f"{name} {figures[key][name]:,.0f}" for name in ("p50", "p90", "p99", "max"))
            row(key.replace("_", " "), shown, facts.get(key))
    row("rank correlation", number(figures["rank_correlation"]))
    share = f"{100 * figures['prompt_tokens_seen_before']:.1f} %"
    hit = facts.get("prefix_hit_tokens")
    row("prompt tokens seen before", share, None if hit is None else f"{100 * hit:.1f} %")
    for by in ("by_class", "by_tenant"):
        for name, one in figures.get(by, {}).items():
            lengths = f"prompt p50 {one['prompt_tokens']['p50']:,.0f}, output p50 {one['output_tokens']['p50']:,.0f}"
            row(f"{by[3:]} {name}", f"{one['requests']:,} requests, {lengths}")
    console.print(table)
    for notice in figures["notices"]:
        console.print(f"note: {notice}", highlight=False, soft_wrap=True)


def print_pictures(plan: "Plan") -> None:
    """Arrivals and lengths as lines of blocks, for a terminal."""
    import numpy as np

    from tailgate.workloads.plan.summary import timed_s
    from tailgate.workloads.statistics.arrivals import counts_in

    times = timed_s(plan)
    if len(times) > 1:
        span = plan.span_s
        rates = counts_in(times, span / 72, 72) / (span / 72)
        print(f"\narrivals/s over {span:,.0f} s, up to {rates.max():.3g}\n{_bars(rates.tolist())}")
    for name in ("prompt_tokens", "output_tokens"):
        values = plan.table[name].to_numpy()
        edges = np.geomspace(max(1, values.min()), values.max() + 1, 73)
        counts = np.histogram(values, edges)[0]
        label = name.replace("_", " ")
        print(f"{label}, {values.min():,} to {values.max():,} (logarithmic)\n{_bars(counts.tolist())}")


def _bars(values: list[float]) -> str:
    top = max(values) or 1.0
    return "".join(" ▁▂▃▄▅▆▇█"[min(8, round(8 * value / top + (0.49 if value else 0)))] for value in values)


def _interval(one: dict[str, Any]) -> str:
    if one["value"] is None:
        return "-"
    return f"{one['value']:.4g} ({one['low']:.4g} to {one['high']:.4g})"


def number(value: float | None) -> str:
    """Four significant digits."""
    return "-" if value is None else f"{value:,.4g}"


def _fact(fact: Any) -> str:
    if fact is None:
        return ""
    if isinstance(fact, dict):
        return ", ".join(
            f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}" for key, value in fact.items()
        )
    return str(fact)
