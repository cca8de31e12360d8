"""The summary on a terminal: verdict first, then the figures, validity, and errors by kind.

It shows what `reports.summary.summary` worked out and works out nothing itself.
"""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tailgate.workloads.common.formatting import dollars, ms, percent, whole

_COLOURS = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow", "INVALID": "magenta"}
_ROWS = (
    ("ttft", "TTFT"),
    ("ttft_from_send", "TTFT from send"),
    ("itl", "ITL"),
    ("tpot", "TPOT"),
    ("stall", "stall"),
    ("e2e", "E2E"),
)
_LAGS = {
    "dispatch_lag_ms": "dispatch lag p99",
    "turnaround_lag_ms": "turnaround lag p99",
    "receive_lag_ms": "receive lag p99",
}
_MOST_FINDINGS = 4
_COLUMNS = ("mean", "p50", "p90", "p95", "p99", "p99.9", "max")


def print_summary(summary: dict[str, Any], console: Console) -> None:
    """Print a summary (`tailgate.summary/1`) to `console`."""
    if not console.is_terminal:  # a file or a pipe has no width to heed
        console.width = max(console.width, 132)
    verdict = summary["verdict"]
    colour = _COLOURS.get(verdict, "white")
    if summary["simulated"]:
        console.print("[bold black on yellow] SIMULATED [/] the target is the embedded engine, not a real server")
    console.print(f"[bold {colour}]{verdict}[/]  {escape(summary['why'])}", highlight=False)
    for reason in summary["invalid_reasons"][1:]:
        console.print(f"[{colour}]{verdict}[/]  {escape(reason)}", highlight=False)
    console.print(_load_line(summary), highlight=False)
    if line := _workload_line(summary["workload"]):
        console.print(line, highlight=False)
    console.print(_latency_table(summary))
    if line := wire_words(summary):
        console.print(line, highlight=False)
    _print_objectives(summary, console)
    _print_errors(summary, console)
    for one in summary["findings"][:_MOST_FINDINGS]:
        console.print(f"[cyan]finding[/]  {escape(one['says'])} {escape(one['remedy'])}", highlight=False)
    if (money := summary["cost"]) and money["per_million_output"] is not None:
        at_slo = money["per_million_output_at_slo"]
        good = "" if at_slo is None else f", {dollars(at_slo)} at the SLO"
        console.print(f"cost: {dollars(money['per_million_output'])} per million output tokens{good}", highlight=False)
    _print_validity(summary, console)
    for notice in summary["notices"]:
        console.print(f"note: {escape(notice)}", highlight=False)


def _load_line(summary: dict[str, Any]) -> str:
    load, rates = summary["load"], summary["throughput"]
    requests = load["requests"]
    parts = [
        f"{load['loop']} loop, {load['duration_s']:.1f} s{_concurrency(load)}",
        f"{requests['ok']:,} of {requests['planned']:,} ok",
    ]
    if load["offered_rps"] is not None:
        parts.append(f"offered {load['offered_rps']:.2f}/s, sent {load['sent_rps']:.2f}/s")
    if rates:
        output, prompt = rates["output_tokens_per_s"], rates["input_tokens_per_s"]
        share = rates["estimated_share"]
        told = f" ({percent(share)} of the output estimated)" if share else ""
        parts.append(f"{whole(output)} output and {whole(prompt)} input tokens/s{told}")
    if load.get("overloaded"):
        parts.append("[yellow]overloaded: latencies grow with duration[/]")
    return "; ".join(parts)


def _workload_line(sent: dict[str, Any]) -> str:
    """How it came, beside how it was planned: gaps, burstiness, lengths, reuse; what isn't known is left out."""

    def beside(value: float, planned: float | None) -> str:
        return f"{value:.2f}" + ("" if planned is None else f" (planned {planned:.2f})")

    parts = []
    if sent["gap_cv_sent"] is not None:
        parts.append(f"variation of gaps {beside(sent['gap_cv_sent'], sent['gap_cv_planned'])}")
    found = [f"at {one['window_s']} s {beside(one['sent'], one['planned'])}" for one in sent["dispersion"]]
    if found:
        parts.append(f"dispersion {', '.join(found)}")
    off = [sent[f"{kind}_ks"] for kind in ("prompt", "output")]
    if None not in off:
        parts.append(f"lengths off their law by {off[0]:.3f} and {off[1]:.3f}")
    if sent["cached_share"] is not None and (sent["cached_share"] or sent["planned_reuse"]):
        implied = "" if sent["planned_reuse"] is None else f" (planned {100 * sent['planned_reuse']:.1f} %)"
        parts.append(f"{100 * sent['cached_share']:.1f} % of prompt tokens cached{implied}")
    return f"as sent: {'; '.join(parts)}" if parts else ""


def _concurrency(load: dict[str, Any]) -> str:
    """Users, as they were on average over time, and what they had in flight."""
    if not load.get("users"):
        return ""
    users, flight = load["users"], load.get("in_flight")
    waiting = f", {flight['mean']:.1f} requests in flight" if flight else ""
    return f", {users['mean']:.1f} users (at most {users['max']:.0f}){waiting}"


def _latency_table(summary: dict[str, Any]) -> Table:
    table = Table(title="Latency, ms", title_justify="left", header_style="bold")
    table.add_column("")
    for name in ("n", *_COLUMNS):
        table.add_column(name, justify="right")
    table.add_column("p99, 95 % interval", justify="right")
    for key, label in _ROWS:
        one = summary["latency_ms"][key]
        ends = one["p99_ci"]
        interval = "-" if ends is None else f"{ms(ends[0])} .. {ms(ends[1]) if ends[1] is not None else '?'}"
        needs = summary["percentile_needs"].get(key, {})
        cells = [_cell(one[name], needs.get(name)) for name in _COLUMNS]
        table.add_row(label, f"{one['n']:,}", *cells, interval)
    return table


def _cell(value: float | str | None, needs: int | None) -> str:
    return f"[dim]n≥{needs:,}[/]" if value is None and needs else ms(value)


def _print_objectives(summary: dict[str, Any], console: Console) -> None:
    slo = summary["slo"]
    if not slo:
        return
    colours = {"met": "green", "broken": "red", "can't tell": "yellow"}
    for one in slo["thresholds"]:
        why = f" ({escape(one['why'])})" if one["why"] else ""
        console.print(
            f"[{colours[one['result']]}]{one['result']:>10}[/]  {escape(one['objective'])}{why}",
            highlight=False,
        )
    if slo["attained"] is not None and (said := good_words(slo)):
        good = escape(said)
        console.print(
            f"{100 * slo['attained']:.2f} % good ({good}): {slo['goodput_rps']:.2f} good requests/s",
            highlight=False,
        )


def wire_words(summary: dict[str, Any]) -> str:
    """What a reader of ITL and TTFT should know: tokens that shared chunks or reads, and set-up of connections."""
    sent, opened = summary["streaming"], summary["connections"]
    parts = []
    if sent["multi_token_share"]:
        parts.append(f"{percent(sent['multi_token_share'])} of chunks hold several tokens")
    if sent["server_coalesced_share"]:
        parts.append(f"{percent(sent['server_coalesced_share'])} came bundled")
    if opened["new"]:
        times = opened["set_up_ms"]
        told = ", ".join(f"{q} {ms(times[q])}" for q in ("p50", "p99", "max") if times[q] is not None)
        parts.append(f"{opened['new']:,} new connections: {told} ms")
    return "; ".join(parts)


def good_words(slo: dict[str, Any]) -> str:
    """What makes a request good, in words; empty if nothing was said."""
    own = [f"class {name}: {' and '.join(means)}" for name, means in slo["good_means_by_class"].items()]
    return "; ".join(part for part in (" and ".join(slo["good_means"]), *own) if part)


def _print_errors(summary: dict[str, Any], console: Console) -> None:
    for kind in summary["errors"]["kinds"]:
        example = kind["example"]["error"]
        codes = ", ".join(f"HTTP {code}: {count}" for code, count in kind["http_status"].items())
        text = f"{kind['count']:,} {kind['status']}" + (f" ({codes})" if codes else "")
        console.print(
            f"[red]{escape(text)}[/]" + (f": {escape(' '.join(example.split())[:160])}" if example else ""),
            highlight=False,
        )


def _print_validity(summary: dict[str, Any], console: Console) -> None:
    checks = summary["checks"]
    held = sum(check["status"] == "ok" for check in checks)
    client = summary["client"]
    lags = ", ".join(f"{label} {ms(client[key]['p99'])} ms" for key, label in _LAGS.items() if key in client)
    console.print(
        f"validity: {held} of {len(checks)} checks hold; {lags}; {client['stamp']} time stamps",
        highlight=False,
    )
    for check in checks:
        if check["status"] == "unchecked":
            console.print(f"[dim]  unchecked: {check['name']} ({escape(check['why'])})[/]", highlight=False)
