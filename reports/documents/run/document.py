"""A run for a person, verdict first.

The order is that of the questions: can I believe it, what came out, why, what was run, how do I run it again. A
terminal shows what the summary holds; figures and what was run need the run's columns and its manifest.
"""

import shlex
from typing import Any

from tailgate.reports.documents.model import (
    TONES,
    Banner,
    Card,
    Cards,
    Code,
    Depth,
    Document,
    Figures,
    Note,
    Section,
    Table,
    TableCell,
    section,
    simulated,
)
from tailgate.reports.documents.plots.requests import heatmap, length_curves, ttft_by_prompt, waterfall
from tailgate.reports.documents.plots.run import over_time
from tailgate.reports.documents.run.breakdown import breakdown
from tailgate.reports.documents.run.cost import cost
from tailgate.reports.documents.run.deployment import deployment
from tailgate.reports.documents.run.latency import latency
from tailgate.reports.documents.run.outcomes import events_section, outcomes, what_was_run
from tailgate.reports.documents.run.server import diagnosis, gpus, server
from tailgate.reports.documents.run.validity import validity
from tailgate.reports.documents.run.workload import workload, workload_line
from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.slowest import slowest
from tailgate.reports.metrics.timeline import timeline
from tailgate.reports.rundir.events import read_events
from tailgate.reports.rundir.manifest import Manifest
from tailgate.workloads.common.formatting import ms, percent, plain, whole


def run_document(
    summary: dict[str, Any], manifest: Manifest | None = None, analysis: Analysis | None = None
) -> Document:
    """The document, with as much in it as there is to make it from."""
    sections = [_head(summary, manifest), latency(summary, analysis)]
    events, _ = read_events(analysis.run.path) if analysis else ([], 0)
    if analysis:
        spread = [figure for figure in (heatmap(analysis), ttft_by_prompt(analysis)) if figure is not None]
        sections.append(section("Over time", over_time(analysis, timeline(analysis), events), Figures(spread)))
    sections.append(diagnosis(summary))
    if analysis:
        sections.append(section("The slowest requests", waterfall(slowest(analysis))))
    sections += [outcomes(summary), breakdown(summary), server(summary), gpus(summary), deployment(summary, manifest)]
    sections.append(cost(summary))
    if analysis:
        sections.append(workload(summary, analysis, length_curves(analysis)))
    sections += [validity(summary), events_section(events)]
    if manifest:
        sections.append(what_was_run(manifest))
    return Document(
        title=f"{summary['run']}: {summary['verdict']}",
        heading=(manifest and manifest.name) or summary["run"],
        about=_about(manifest) if manifest else "",
        verdict=summary["verdict"],
        why=summary["why"],
        points=summary["invalid_reasons"][1:],
        banners=[*_banners(summary)],
        sections=sections,
    )


def _banners(summary: dict[str, Any]) -> list[Banner]:
    return [
        *([simulated(several=False)] if summary["simulated"] else []),
        *([Banner("INTERRUPTED", "the run did not come to its end")] if summary["state"] == "interrupted" else []),
        *([] if summary["valid"] else [Banner("INVALID", "do not use these figures")]),
    ]


def _about(manifest: Manifest) -> str:
    target = manifest.target
    parts = (target.model, target.server, target.version, target.endpoint, manifest.started_at)
    return " · ".join(part for part in parts if part)


def _head(summary: dict[str, Any], manifest: Manifest | None) -> Section:
    slo = summary["slo"]
    good = good_words(slo) if slo and slo["attained"] is not None else ""
    share = f"{100 * slo['attained']:.2f} % of requests were good" if good else ""
    return section(
        "",
        Cards(_cards(summary)),
        Note(_load_line(summary), depth=Depth.BRIEF),
        Note(workload_line(summary["workload"]), depth=Depth.BRIEF),
        _objectives(slo["thresholds"]) if slo else None,
        Note(f"{share} ({good}): {slo['goodput_rps']:.2f} good requests/s.") if good else None,
        Code(_again(manifest), "Run it again:", depth=Depth.PAGE) if manifest else None,
    )


def _again(manifest: Manifest) -> str:
    """The command without the run directory, which is there now."""
    words = [word for word in manifest.command_line if not word.startswith("--out=")]
    if "--out" in words:
        place = words.index("--out")
        del words[place : place + 2]
    return shlex.join(words) if words else "tailgate run (the command is not known)"


def _load_line(summary: dict[str, Any]) -> str:
    load, rates = summary["load"], summary["throughput"]
    requests, users, flight = load["requests"], load.get("users"), load.get("in_flight")
    parts = [f"{load['loop']} loop, {load['duration_s']:.1f} s"]
    if users:
        waiting = f", {flight['mean']:.1f} requests in flight" if flight else ""
        parts[0] += f", {users['mean']:.1f} users (at most {users['max']:.0f}){waiting}"
    parts.append(f"{requests['ok']:,} of {requests['planned']:,} ok")
    if load["offered_rps"] is not None:
        parts.append(f"offered {load['offered_rps']:.2f}/s, sent {load['sent_rps']:.2f}/s")
    if rates:
        share = rates["estimated_share"]
        estimated = f" ({percent(share)} of the output estimated)" if share else ""
        output, prompt = whole(rates["output_tokens_per_s"]), whole(rates["input_tokens_per_s"])
        parts.append(f"{output} output and {prompt} input tokens/s{estimated}")
    return "; ".join(parts)


def good_words(slo: dict[str, Any]) -> str:
    """What makes a request good, in words; empty if nothing was said."""
    own = [f"class {name}: {' and '.join(means)}" for name, means in slo["good_means_by_class"].items()]
    return "; ".join(part for part in (" and ".join(slo["good_means"]), *own) if part)


def _cards(summary: dict[str, Any]) -> list[Card]:
    load, rates, latencies, checks = (summary[key] for key in ("load", "throughput", "latency_ms", "checks"))
    loop = "" if load["loop"] == "open" else " (closed loop)"
    cards = [
        Card(f"{name.upper()} {q}{loop}, ms", ms(latencies[name][q]), _range(summary, name, q))
        for name, q in (("ttft", "p50"), ("ttft", "p99"), ("itl", "p99"), ("e2e", "p99"))
    ]
    if rates:
        share = rates["estimated_share"]
        below = f"{percent(share)} of it estimated" if share else "steady window"
        cards.append(Card("output, tokens/s", whole(rates["output_tokens_per_s"]), below))
    if load["offered_rps"] is not None:
        name = "offered" if load["loop"] == "open" else "sent"
        cards.append(Card(f"{name}, req/s", f"{load['offered_rps']:.2f}", f"{load['duration_s']:.0f} s"))
    share, failed = summary["errors"]["share"], summary["errors"]["failed"]
    of = f"{failed:,} of {load['requests']['planned']:,}"
    held = sum(check["status"] == "ok" for check in checks)
    return [
        *cards,
        Card("failed, %", "-" if share is None else f"{100 * share:.2f}", of),
        Card("validity, checks", f"{held}/{len(checks)}", "valid" if summary["valid"] else "INVALID"),
    ]


def _range(summary: dict[str, Any], name: str, q: str) -> str:
    ends = summary["latency_ms"][name][f"{q}_ci"]
    if ends is None:
        needs = summary["percentile_needs"].get(name, {}).get(q)
        return f"needs {needs:,} requests" if needs else ""
    return f"{ms(ends[0])} to {ms(ends[1]) if ends[1] is not None else 'unknown'}"


def _objectives(thresholds: list[dict[str, Any]]) -> Table:
    rows = [
        [
            one["objective"], TableCell(one["result"], tone=TONES.get(one["result"], "unsure")), _scaled(one, "value"),
            "none" if one["lower_bound"] is one["upper_bound"] is None
            else f"{_scaled(one, 'lower_bound')} to {_scaled(one, 'upper_bound')}",
            one["why"],
        ]
        for one in thresholds
    ]  # fmt: skip
    return Table(["objective", "result", "found", "95 % bounds", ""], rows, words=(0, 1, 4))


def _scaled(one: dict[str, Any], key: str) -> str:
    value = one[key]
    if value is None or isinstance(value, str):
        return "∞" if value else "?"
    return f"{plain(100 * value)} %" if one["unit"] == "fraction" else f"{plain(value)} {one['unit']}"
