"""`report.html`: the run for a person, verdict first, in one file that opens from disk with the network off.

The order is that of the questions: can I believe it, what came out, why, what was run, how do I run it again.
Its further sections are `reports.documents.run_html.sections`, figures `reports.documents.plots.run`, the page itself
`reports.documents.html_page`.
"""

import shlex
from pathlib import Path
from typing import Any

from tailgate.reports.documents.html_page import figure, page, section, table, text, word
from tailgate.reports.documents.plots.requests import heatmap, length_curves, ttft_by_prompt, waterfall
from tailgate.reports.documents.plots.run import over_time, percentile_curve
from tailgate.reports.documents.run_html import breakdown, cost, sections
from tailgate.reports.documents.run_html import server_and_gpus as detail
from tailgate.reports.documents.run_html.deployment import deployment
from tailgate.reports.documents.run_terminal import good_words
from tailgate.reports.metrics.analysis import Analysis, analyse
from tailgate.reports.metrics.slowest import slowest
from tailgate.reports.metrics.timeline import timeline
from tailgate.reports.rundir.events import read_events
from tailgate.reports.rundir.json_files import write_atomic
from tailgate.reports.rundir.manifest import Manifest
from tailgate.workloads.common.formatting import ms, percent, plain, whole

FILE_NAME = "report.html"


def write_report(run_dir: Path | str, summary: dict[str, Any], analysis: Analysis | None = None) -> Path:
    """Write `run_dir/report.html` from a summary and the run's columns (read again unless given); its path.

    Raises:
        UserError: files are missing or damaged, or the page cannot be written.
    """
    path = Path(run_dir) / FILE_NAME
    write_atomic(path, render(summary, analysis or analyse(run_dir)).encode())
    return path


def render(summary: dict[str, Any], analysis: Analysis) -> str:
    """The page."""
    manifest = analysis.run.manifest
    curves = [
        found
        for name, title in (("ttft", "TTFT"), ("itl", "ITL"), ("e2e", "E2E"), ("tpot", "TPOT"))
        if (found := percentile_curve(analysis, name, title)) is not None
    ]
    events, _ = read_events(analysis.run.path)
    time = over_time(analysis, timeline(analysis), events)
    spread = [found for found in (heatmap(analysis), ttft_by_prompt(analysis)) if found is not None]
    slow, sizes = waterfall(slowest(analysis)), length_curves(analysis)
    body = [
        _head(summary, manifest),
        sections.latency(summary, curves),
        section("Over time", figure(time) + f'<div class="pair">{"".join(figure(one) for one in spread)}</div>'),
        detail.diagnosis(summary),
        section("The slowest requests", figure(slow)) if slow else "",
        sections.outcomes(summary),
        breakdown.splits(summary),
        detail.server(summary),
        detail.gpus(summary),
        deployment(summary, manifest),
        cost.cost(summary),
        sections.workload(summary, analysis, sizes),
        sections.validity(summary),
        sections.happened(events),
        sections.what_was_run(manifest),
    ]
    drawn = [*curves, time, *spread, *(one for one in (slow, sizes) if one is not None)]
    return page(f"{summary['run']}: {summary['verdict']}", banner(summary), "".join(body), drawn)


def banner(summary: dict[str, Any]) -> str:
    """What must not be overlooked, above everything."""
    found = ""
    if summary["simulated"]:
        found += '<div class="watermark" aria-hidden="true">SIMULATED</div>'
        what = "SIMULATED: the target is the embedded engine, not a real server"
        found += f'<div class="banner sim" role="note">{what}</div>'
    if summary["state"] == "interrupted":
        found += '<div class="banner bad" role="alert">INTERRUPTED: the run did not come to its end</div>'
    if not summary["valid"]:
        found += '<div class="banner bad" role="alert">INVALID: do not use these figures</div>'
    return found


def _head(summary: dict[str, Any], manifest: Manifest) -> str:
    target = manifest.target
    what = " · ".join(
        part for part in (target.model, target.server, target.version, target.endpoint, manifest.started_at) if part
    )
    reasons = "".join(f"<li>{text(reason)}</li>" for reason in summary["invalid_reasons"][1:])
    return (
        f"<header><h1>{text(manifest.name or manifest.run)}</h1><p class='faint'>{text(what)}</p>"
        f'<div class="verdict {text(summary["verdict"])}"><b>{text(summary["verdict"])}</b>'
        f"<span>{text(summary['why'])}</span></div>{f'<ul>{reasons}</ul>' if reasons else ''}"
        f'<div class="cards">{"".join(_cards(summary))}</div>{_objectives(summary)}'
        f"<p><b>Run it again:</b></p><pre>{text(_again(manifest))}</pre></header>"
    )


def _again(manifest: Manifest) -> str:
    """The command without the run directory, which is there now."""
    words = [word for word in manifest.command_line if not word.startswith("--out=")]
    if "--out" in words:
        place = words.index("--out")
        del words[place : place + 2]
    return shlex.join(words) if words else "tailgate run (the command is not known)"


def _cards(summary: dict[str, Any]) -> list[str]:
    load, rates, latency = summary["load"], summary["throughput"], summary["latency_ms"]
    loop = "" if load["loop"] == "open" else " (closed loop)"
    cards = [
        _card(f"{title} {q}{loop}", ms(latency[name][q]), "ms", _range(summary, name, q))
        for name, title, q in (
            ("ttft", "TTFT", "p50"), ("ttft", "TTFT", "p99"), ("itl", "ITL", "p99"), ("e2e", "E2E", "p99"),
        )
    ]  # fmt: skip
    if rates:
        cards.append(_card("output", whole(rates["output_tokens_per_s"]), "tokens/s", _estimated(rates)))
    if load["offered_rps"] is not None:
        label = "offered" if load["loop"] == "open" else "sent"
        cards.append(_card(label, f"{load['offered_rps']:.2f}", "req/s", f"{load['duration_s']:.0f} s"))
    share = summary["errors"]["share"]
    failed = f"{summary['errors']['failed']:,} of {load['requests']['planned']:,}"
    cards.append(_card("failed", "-" if share is None else f"{100 * share:.2f}", "%", failed))
    checks = summary["checks"]
    held = sum(check["status"] == "ok" for check in checks)
    cards.append(_card("validity", f"{held}/{len(checks)}", "checks", "valid" if summary["valid"] else "INVALID"))
    return cards


def _estimated(rates: dict[str, Any]) -> str:
    """What stands below the output rate: how much of it no usage confirms, if that is anything."""
    share = rates["estimated_share"]
    return f"{percent(share)} of it estimated" if share else "steady window"


def _card(name: str, value: str, unit: str, below: str) -> str:
    return (
        f'<div class="card"><div class="name">{text(name)}, {text(unit)}</div><div class="value">{text(value)}</div>'
        f'<div class="range">{text(below)}</div></div>'
    )


def _range(summary: dict[str, Any], name: str, q: str) -> str:
    ends = summary["latency_ms"][name][f"{q}_ci"]
    if ends is None:
        needs = summary["percentile_needs"].get(name, {}).get(q)
        return f"needs {needs:,} requests" if needs else ""
    return f"{ms(ends[0])} to {ms(ends[1]) if ends[1] is not None else 'unknown'}"


def _objectives(summary: dict[str, Any]) -> str:
    slo = summary["slo"]
    if not slo:
        return ""
    rows = [
        [
            one["objective"], word(one["result"], one["result"].replace("can't tell", "unsure")),
            _scaled(one, "value"), _bounds(one), one["why"],
        ]
        for one in slo["thresholds"]
    ]  # fmt: skip
    found = table(["objective", "", "found", "95 % bounds", ""], rows, (0, 1, 4)) if rows else ""
    if slo["attained"] is not None and (said := good_words(slo)):
        share, rate = 100 * slo["attained"], slo["goodput_rps"]
        good = text(said)
        found += f"<p>{share:.2f} % of requests were good ({good}): {rate:.2f} good requests/s.</p>"
    return found


def _bounds(one: dict[str, Any]) -> str:
    if one["lower_bound"] is None and one["upper_bound"] is None:
        return "none"
    return f"{_scaled(one, 'lower_bound')} to {_scaled(one, 'upper_bound')}"


def _scaled(one: dict[str, Any], key: str) -> str:
    value = one[key]
    if value is None:
        return "?"
    if isinstance(value, str):
        return "∞"
    return f"{plain(100 * value)} %" if one["unit"] == "fraction" else f"{plain(value)} {one['unit']}"
