"""The sections of a report that explain: diagnosis, the server, the GPUs.

Each takes the summary and returns HTML; empty where the run has nothing of the kind.
"""

from typing import Any

from tailgate.reports.documents.html_page import section, table, text
from tailgate.workloads.common.formatting import ms, optional, percent


def diagnosis(summary: dict[str, Any]) -> str:
    """Findings with their figures and what to try."""
    if not summary["findings"]:
        return section("Diagnosis", "<p>Nothing in the figures points to a bottleneck.</p>")
    items = "".join(
        f"<li><b>{text(one['says'])}</b> {text(one['remedy'])}"
        f'<br><span class="faint">{text(one["kind"])}: {text(_figures(one["figures"]))}</span></li>'
        for one in summary["findings"]
    )
    return section("Diagnosis", f'<ol class="findings">{items}</ol>')


def _figures(figures: dict[str, Any]) -> str:
    return ", ".join(f"{name} {optional(value)}" for name, value in figures.items())


def server(summary: dict[str, Any]) -> str:
    """What the server said of itself over the steady window."""
    view = summary["server"]
    if not view:
        return ""
    rows = []
    for key, label, scale in (
        ("running", "requests running", 1), ("waiting", "requests waiting", 1), ("kv_usage", "KV cache in use, %", 100),
    ):  # fmt: skip
        if gauge := view[key]:
            rows.append([label, f"{scale * gauge['mean']:,.2f}", f"{scale * gauge['max']:,.2f}"])
    body = table(["", "mean", "largest"], rows) if rows else ""
    facts = [
        ["KV cache size, tokens", view["kv_tokens"]],
        ["preemptions", view["preemptions"]],
        ["admission rejections", view["rejections"]],
        ["prompt tokens found in the prefix cache, share", view["prefix_hit_share"]],
        ["tokens per engine step", view["tokens_per_step"]],
        ["engine steps per second", view["steps_per_s"]],
        ["max_num_seqs", view["max_num_seqs"]],
        ["max_num_batched_tokens", view["max_num_batched_tokens"]],
        ["drafted tokens accepted, share", view["draft_acceptance"]],
    ]
    facts += [[f"waiting for: {reason}, mean", mean] for reason, mean in view["waiting_by_reason"].items() if reason]
    if known := [[label, optional(value)] for label, value in facts if value is not None]:
        body += table(["", ""], known)
    phases = [
        [name, f"{one['n']:,.0f}", ms(one["mean_ms"]), *(_bucket(one[q]) for q in ("p50_ms", "p99_ms"))]
        for name, one in view["phases"].items()
    ]
    if phases:
        said = "Percentiles lie within their bucket; at the window's edges counters are interpolated between scrapes."
        body += f"<h3>Its own histograms, ms</h3><p>{said}</p>"
        body += table(["phase", "n", "mean", "p50 (bucket)", "p99 (bucket)"], phases)
    if len(view["endpoints"]) > 1:
        rows = [
            [one["url"], *(optional(one[k]) for k in ("running", "waiting", "finished"))] for one in view["endpoints"]
        ]
        body += "<h3>Endpoints</h3>" + table(["", "running", "waiting", "finished"], rows)
    return section("The server", body)


def _bucket(percentile: list[float | None]) -> str:
    value, low, high = percentile
    return f"{ms(value)} ({ms(low)} to {'∞' if high is None else ms(high)})"


def gpus(summary: dict[str, Any]) -> str:
    """Each GPU over the steady window."""
    if not summary["gpu"]:
        return ""
    rows = [
        [
            one["gpu"], optional(one["power_w"]), optional(one["sm_clock_mhz"]), percent(one["utilization"]),
            _gib(one["mem_used_bytes"]), _gib(one["mem_peak_bytes"]), optional(one["temperature_max_c"]),
            *(percent(one[name]) for name in ("slowdown_share", "mild_slowdown_share", "power_cap_share")),
            optional(one["energy_j"]),
        ]
        for one in summary["gpu"]["gpus"]
    ]  # fmt: skip
    heads = [
        "GPU",
        "W",
        "MHz",
        "busy",
        "memory, GiB",
        "peak, GiB",
        "°C",
        "hardware slowdown",
        "mild slowdown",
        "at power cap",
        "energy, J",
    ]
    words = "<p>Busy says that some kernel ran, not how full the GPU was.</p>"
    return section("GPUs", words + table(heads, rows))


def _gib(value: float | None) -> str:
    return "" if value is None else f"{value / 2**30:,.1f}"
