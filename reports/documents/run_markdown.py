"""Markdown that stands alone: for a job summary or a pull request. Always under 60 kB."""

from pathlib import Path
from typing import Any, Final

from tailgate.reports.documents.run_html.deployment import cold_start_words, vram_words
from tailgate.reports.documents.run_terminal import wire_words
from tailgate.reports.rundir.manifest import Manifest
from tailgate.workloads.common.formatting import dollars, ms, percent, whole

LIMIT_BYTES: Final = 60_000
_ICONS: Final = {"PASS": "✅", "FAIL": "❌", "INCONCLUSIVE": "❔", "INVALID": "⚠️"}
_FIGURES: Final = {"ttft": "TTFT", "itl": "ITL", "tpot": "TPOT", "stall": "stall", "e2e": "E2E"}
_COLUMNS: Final = ("mean", "p50", "p90", "p95", "p99", "p99.9", "max")


def markdown(run_dir: Path, summary: dict[str, Any]) -> str:
    """The document, for one run."""
    import shlex

    manifest = Manifest.load(run_dir)
    lines: list[str | None] = [
        f"## {_ICONS[summary['verdict']]} {summary['verdict']}: {cell(manifest.name or summary['run'])}",
        "",
    ]
    if summary["simulated"]:
        lines += ["> **SIMULATED**: the target is the embedded engine, not a real server.", ""]
    lines += [cell(summary["why"]), ""]
    lines += [f"- {cell(reason)}" for reason in summary["invalid_reasons"][1:]]
    lines += ["" if summary["invalid_reasons"][1:] else None, _load(summary), "", *_latency(summary)]
    lines += [
        *_objectives(summary),
        *_errors(summary),
        *_findings(summary),
        *_cost(summary),
        *_deployment(summary),
        *_notices(summary),
        *_checks(summary),
    ]
    lines += ["```", shlex.join(manifest.command_line).replace("```", "'''"), "```", ""]
    return cut("\n".join(line for line in lines if line is not None), LIMIT_BYTES)


def cell(value: object, most: int = 400) -> str:
    """Text that can't break a Markdown table nor become markup; what goes beyond `most` characters is `…`."""
    found = str(value).replace("\n", " ").replace("\r", " ")
    found = found if len(found) <= most else f"{found[: most - 1]}…"
    for mark in ("\\", "|", "`", "*", "_", "[", "]", "<", ">"):
        found = found.replace(mark, "\\" + mark if mark not in "<>" else {"<": "&lt;", ">": "&gt;"}[mark])
    return found


def md_table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table; the first column is text, the others are figures."""
    marks = ["---", *("---:" for _ in head[1:])]
    return [f"| {' | '.join(line)} |" for line in (head, marks, *rows)] + [""]


def cut(document: str, limit: int) -> str:
    """At most `limit` bytes, cut at a line's end."""
    if len(document.encode()) <= limit:
        return document
    note = "\n\n(cut here: see report.html)\n"
    kept = document.encode()[: limit - len(note)].decode(errors="ignore")
    return kept.rpartition("\n")[0] + note


def _load(summary: dict[str, Any]) -> str:
    load, rates = summary["load"], summary["throughput"]
    requests = load["requests"]
    parts = [f"{load['loop']} loop", f"{load['duration_s']:.0f} s", f"{requests['ok']:,} of {requests['planned']:,} ok"]
    if load["offered_rps"] is not None:
        parts.append(f"{load['offered_rps']:.2f} requests/s offered")
    if rates:
        share = rates["estimated_share"]
        told = f" ({percent(share)} estimated)" if share else ""
        parts.append(f"{whole(rates['output_tokens_per_s'])} output tokens/s{told}")
    if load.get("overloaded"):
        parts.append("**overloaded: latencies grow with duration**")
    return ", ".join(parts)


def _latency(summary: dict[str, Any]) -> list[str]:
    rows = []
    for key, label in _FIGURES.items():
        one, needs = summary["latency_ms"][key], summary["percentile_needs"].get(key, {})
        cells = [f"n≥{needs[name]:,}" if name in needs else ms(one[name]) for name in _COLUMNS]
        rows.append([label, f"{one['n']:,}", *cells])
    wire = wire_words(summary)
    return [*md_table(["ms", "n", *_COLUMNS], rows), *([cell(wire), ""] if wire else [])]


def _objectives(summary: dict[str, Any]) -> list[str]:
    if not summary["slo"] or not summary["slo"]["thresholds"]:
        return []
    rows = []
    for one in summary["slo"]["thresholds"]:
        scale, unit = (100, " %") if one["unit"] == "fraction" else (1, f" {one['unit']}")
        found = [_scaled(one[key], scale, unit) for key in ("value", "lower_bound", "upper_bound")]
        rows.append([cell(one["objective"]), one["result"], *found])
    return md_table(["objective", "result", "found", "lower bound", "upper bound"], rows)


def _scaled(value: float | str | None, scale: int, unit: str) -> str:
    if value is None:
        return "?"
    return "∞" if isinstance(value, str) else f"{value * scale:.4g}{unit}"


def _errors(summary: dict[str, Any]) -> list[str]:
    kinds = summary["errors"]["kinds"]
    rows = [[kind["status"], f"{kind['count']:,}", cell(kind["example"]["error"] or "")] for kind in kinds]
    return md_table(["error", "count", "example"], rows) if rows else []


def _findings(summary: dict[str, Any]) -> list[str]:
    found = [f"- **{cell(one['says'])}** {cell(one['remedy'])}" for one in summary["findings"]]
    return [*found, ""] if found else []


def _notices(summary: dict[str, Any]) -> list[str]:
    found = [f"- {cell(notice)}" for notice in summary["notices"]]
    return [*found, ""] if found else []


def _cost(summary: dict[str, Any]) -> list[str]:
    money = summary["cost"]
    if not money or money["per_million_output"] is None:
        return []
    at_slo = money["per_million_output_at_slo"]
    good = "" if at_slo is None else f", {dollars(at_slo)} at the SLO"
    gpu = f"{money['gpus']} × {money['gpu'] or 'GPU'} at {dollars(money['usd_per_gpu_hour'])} an hour"
    return [f"{dollars(money['per_million_output'])} per million output tokens{good} ({cell(gpu)})", ""]


def _deployment(summary: dict[str, Any]) -> list[str]:
    life, vram = summary["life"], summary["vram"]
    said = [cold_start_words(life) if life else "", vram_words(vram) if vram else ""]
    found = [f"- {cell(line)}" for line in said if line]
    return [*found, ""] if found else []


def _checks(summary: dict[str, Any]) -> list[str]:
    rows = []
    for check in summary["checks"]:
        found, bound = (
            "" if check[key] is None else f"{check[key]:.4g} {cell(check['unit'])}" for key in ("value", "bound")
        )
        rows.append([check["name"].replace("_", " "), check["status"], found, bound])
    return [
        "<details><summary>Validity checks</summary>",
        "",
        *md_table(["check", "", "found", "at most"], rows),
        "</details>",
        "",
    ]
