"""The sections of a report that explain: diagnosis, splits, server, GPUs, cost and energy.

Each takes the summary and returns HTML; empty where the run has nothing of the kind.
"""

from typing import Any

from reports.page import section, table, text
from reports.words import dollars, ms, optional, percent

_SPLITS = {
    "class": "By class",
    "tenant": "By tenant",
    "endpoint": "By endpoint",
    "tier": "By price tier",
    "prompt_tokens": "By prompt length, tokens",
    "turn": "By turn of a session",
}


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


def splits(summary: dict[str, Any]) -> str:
    """One table a split; and fairness between tenants."""
    body = ""
    for name, groups in summary["splits"].items():
        rows = [_group(one) for one in groups]
        heads = [
            "", "n", "failed", "good", "TTFT p50", "TTFT p99", "ITL p50", "ITL p99", "TPOT p50", "stall p99", "E2E p50",
            "E2E p99", "tokens/s",
        ]  # fmt: skip
        body += f"<h3>{text(_SPLITS[name])}</h3>{table(heads, rows)}"
    if fair := summary["fairness"]:
        body += _fairness(fair)
    return section("Who got what", body) if body else ""


def _group(one: dict[str, Any]) -> list[str]:
    return [
        one["name"] or "(none)",
        f"{one['n']:,}",
        percent(one["failed_share"]),
        percent(one["attained"]),
        *(ms(one["ttft"][q]) for q in ("p50", "p99")),
        *(ms(one["itl"][q]) for q in ("p50", "p99")),
        ms(one["tpot"]["p50"]),
        ms(one["stall"]["p99"]),
        *(ms(one["e2e"][q]) for q in ("p50", "p99")),
        "" if one["output_tokens_per_s"] is None else f"{one['output_tokens_per_s']:,.1f}",
    ]


def _fairness(fair: dict[str, Any]) -> str:
    rows = [[s["tenant"], percent(s["demand"]), percent(s["service"]), ms(s["ttft_ms"])] for s in fair["shares"]]
    q = f"p{fair['percentile']:g}"
    said = "One tenant has too few requests to compare."
    if fair["worst_over_best"] is not None:
        said = f"The worst tenant's TTFT {q} is {fair['worst_over_best']:.2f} times the best one's."
    heads = ["tenant", "share of demand", "share of service", f"TTFT {q}, ms"]
    return f"<h3>Fairness between tenants</h3><p>{said}</p>{table(heads, rows)}"


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
    body += table(["", ""], [[label, optional(value)] for label, value in facts if value is not None])
    phases = [
        [name, f"{one['n']:,.0f}", ms(one["mean_ms"]), *(_bucket(one[q]) for q in ("p50_ms", "p99_ms"))]
        for name, one in view["phases"].items()
    ]
    if phases:
        body += "<h3>Its own histograms, ms</h3><p>Means are exact; percentiles lie within their bucket.</p>"
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
            percent(one["slowdown_share"]), percent(one["power_cap_share"]), optional(one["energy_j"]),
        ]
        for one in summary["gpu"]["gpus"]
    ]  # fmt: skip
    heads = ["GPU", "W", "MHz", "busy", "memory, GiB", "peak, GiB", "°C", "slowed down", "at power cap", "energy, J"]
    words = "<p>Busy says that some kernel ran, not how full the GPU was.</p>"
    return section("GPUs", words + table(heads, rows))


def _gib(value: float | None) -> str:
    return "" if value is None else f"{value / 2**30:,.1f}"


def cost(summary: dict[str, Any]) -> str:
    """The bill, what it bought and what was wasted; energy beside it."""
    money, joules = summary["cost"], summary["energy"]
    if not money and not joules:
        return ""
    body = _bill(money) if money else ""
    if joules:
        rows = [
            ["energy of the steady window, J", optional(joules["joules"])],
            ["mean power, W", optional(joules["mean_power_w"])],
            ["J per output token", optional(joules["j_per_output_token"])],
            ["J per request", optional(joules["j_per_request"])],
            ["electricity, $", optional(joules["usd"])],
            ["gCO2", optional(joules["gco2"])],
            ["gCO2 per million output tokens", optional(joules["gco2_per_million_output_tokens"])],
        ]
        body += "<h3>Energy</h3>" + table(["", ""], [row for row in rows if row[1]])
        body += "".join(f'<p class="unsure">{text(warning)}</p>' for warning in joules["warnings"])
    return section("Cost and energy", body)


def _bill(money: dict[str, Any]) -> str:
    ratio = f"an output token counts as {money['price_ratio']:g} input tokens"
    rows = [
        ["$ per million output tokens (the whole bill)", dollars(money["per_million_output"])],
        ["the same at the SLO (good requests' tokens only)", dollars(money["per_million_output_at_slo"])],
        ["$ per million tokens, input and output", dollars(money["per_million_total"])],
        ["split: $ per million input tokens", dollars(money["split_input"])],
        ["split: $ per million cached input tokens", dollars(money["split_cached_input"])],
        ["split: $ per million output tokens", dollars(money["split_output"])],
        ["$ per request", dollars(money["per_request"])],
        ["$ per good request", dollars(money["per_good_request"])],
        ["$ per million output tokens at the stated demand", dollars(money["usd_per_million_output_at_demand"])],
        ["idle share at the stated demand", "" if money["idle_share"] is None else percent(money["idle_share"])],
        *([f"wasted on {kind} requests", dollars(usd)] for kind, usd in money["wasted"].items() if usd),
    ]
    body = (
        f"<p>{money['gpus']} × {text(money['gpu'] or 'GPU')} at ${money['usd_per_gpu_hour']:.4g} an hour each "
        f"({text(money['price_source'])}): ${money['usd']:.4f} for the steady window. The split adds up to the bill; "
        f"{ratio}.</p>"
    ) + table(["", ""], [row for row in rows if row[1]])
    for key, label in (("by_class", "class"), ("by_tenant", "tenant"), ("by_tier", "tier")):
        if money[key]:
            groups = [
                [one["name"], dollars(one["usd"]), percent(one["share"]), dollars(one["usd_per_request"]),
                 dollars(one["usd_per_million_output"])]
                for one in money[key]
            ]  # fmt: skip
            body += table([label, "$", "share", "$ per request", "$ per million output"], groups)
    return body
