"""The sections of a report below its head: latency, outcomes, validity, workload, what was run.

Each takes figures that were worked out elsewhere and returns HTML.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from tailgate.reports.documents.html_page import Cell, figure, folded, section, table, text, word
from tailgate.reports.documents.plots.run import Figure
from tailgate.reports.documents.run_html.breakdown import interval
from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.rundir.events import Event
from tailgate.reports.rundir.manifest import Manifest
from tailgate.workloads.common.formatting import ms, percent, plain

_NAMES = {
    "ttft": "TTFT",
    "ttft_from_send": "TTFT from send",
    "ttfa": "TTFA",
    "itl": "ITL",
    "tpot": "TPOT",
    "stall": "stall",
    "jitter": "jitter",
    "e2e": "E2E",
    "normalized_e2e": "E2E per token",
}
_MOST_EVENTS: Final = 200
_COLUMNS = ("mean", "min", "p50", "p90", "p95", "p99", "p99.9", "max")
_LOOPS = {
    "open": "Open loop: TTFT and E2E count from the planned arrival.",
    "closed": "Closed loop: TTFT and E2E count from the sending; this is no latency at a given rate.",
}


def latency(summary: dict[str, Any], curves: list[Figure]) -> str:
    """The table of percentiles and the percentile curves."""
    rows: list[list[str | Cell]] = []
    for key, label in _NAMES.items():
        one, needs = summary["latency_ms"][key], summary["percentile_needs"].get(key, {})
        rows.append([label, f"{one['n']:,}", *_cells(one, needs)])
    for key, one in summary["latency_failed_as_inf_ms"].items():
        rows.append(
            [
                f"{_NAMES[key]}, failed = ∞",
                f"{one['n']:,}",
                *_cells(one, summary["percentile_needs_failed_as_inf"].get(key, {})),
            ]
        )
    warning = ""
    if summary["load"].get("overloaded"):
        words = "requests in flight grew all along, so latencies grow with the run's duration."
        warning = f'<p class="unsure"><b>Overloaded:</b> {words}</p>'
    said = (
        f"<p>{_LOOPS[summary['load']['loop']]} Milliseconds, over requests that ended ok; "
        "below each figure its 95 % interval, or how many requests it needs.</p>"
    )
    drawn = f'<div class="pair">{"".join(figure(curve) for curve in curves)}</div>'
    return section("Latency", warning + said + table(["", "n", *_COLUMNS], rows) + _wire(summary) + drawn)


def _cells(one: dict[str, Any], needs: dict[str, int]) -> list[str | Cell]:
    return [interval(one[name], one.get(f"{name}_ci"), needs.get(name)) for name in _COLUMNS]


def _wire(summary: dict[str, Any]) -> str:
    """How answers came over the wire, and what new connections took (inside TTFT and E2E, apart here)."""
    sent, opened = summary["streaming"], summary["connections"]
    rows = [
        ["chunks of several tokens (one gap each in ITL)", percent(sent["multi_token_share"])],
        [
            "chunks that came in one read with others: bundled by server or gateway",
            percent(sent["server_coalesced_share"]),
        ],
        ["chunks that came in one read with others: this client was late", percent(sent["client_coalesced_share"])],
        ["new connections", f"{opened['new']:,} of {opened['sent']:,} requests"],
    ]
    if share := summary["throughput"].get("estimated_share"):
        rows.append(["output tokens that no usage confirms (estimated)", percent(share)])
    times = opened["set_up_ms"]
    if times["n"]:
        told = ", ".join(f"{q} {ms(times[q])}" for q in ("p50", "p99", "max") if times[q] is not None)
        rows.append(["their set-up (TCP and TLS), ms", told])
    return "<h3>On the wire</h3>" + table(["", ""], rows)


def outcomes(summary: dict[str, Any]) -> str:
    """Requests by status, and errors with an example each."""
    requests = {k: v for k, v in summary["load"]["requests"].items() if k != "planned"}
    planned = max(summary["load"]["requests"]["planned"], 1)
    rows = [
        [status, f"{n:,}", f"{100 * n / planned:.2f} %", _bar(status, n / planned)] for status, n in requests.items()
    ]
    body = table(["status", "requests", "share", ""], rows, (0, 3))
    if kinds := summary["errors"]["kinds"]:
        found = [_error(kind) for kind in kinds]
        heads = ["error", "count", "HTTP status", "example", "its request id"]
        body += "<h3>Errors, each with an example</h3>" + table(heads, found, (0, 2, 3, 4))
    return section("Requests by status", body)


def _bar(status: str, share: float) -> Cell:
    kind = "bar" if status == "ok" else "bar bad"
    return Cell(f'<span class="{kind}" style="width:{max(1, round(200 * share))}px"></span>', "text")


def _error(kind: dict[str, Any]) -> list[str]:
    codes = ", ".join(f"{code}: {count}" for code, count in kind["http_status"].items())
    example = kind["example"]
    return [kind["status"], f"{kind['count']:,}", codes, example["error"] or "", example["request_id"] or ""]


def validity(summary: dict[str, Any]) -> str:
    """Every check, the client's own conduct, and what else should be known of the figures."""
    rows = [
        [
            check["name"], word(check["status"], check["status"]), _measured(check, "value"), _measured(check, "bound"),
            check["why"] + (f". {check['remedy']}" if check["status"] == "fail" else ""),
        ]
        for check in summary["checks"]
    ]  # fmt: skip
    client = summary["client"]
    lags = [
        [f"{name} lag", *(ms(client[f"{name}_lag_ms"][q]) for q in ("p50", "p99", "max"))]
        for name in ("dispatch", "send", "receive", "turnaround")
        if f"{name}_lag_ms" in client
    ]
    checks = table(["check", "", "found", "at most", ""], rows, (0, 1, 4))
    conduct = "<h3>The client's own conduct, ms</h3>" + table(["", "p50", "p99", "max"], lags)
    notices = "".join(f"<li>{text(notice)}</li>" for notice in summary["notices"])
    notes = f"<h3>Notes</h3><ul>{notices}</ul>" if notices else ""
    return section("Did the measuring itself hold?", checks + conduct + notes)


def _measured(check: dict[str, Any], key: str) -> str:
    value = check[key]
    return "" if value is None else f"{plain(value)} {check['unit']}"


def workload(summary: dict[str, Any], analysis: Analysis, curves: Figure | None) -> str:
    """Lengths as planned and as the server counted them; rate and burstiness as planned and as sent."""
    run = analysis.run
    rows = []
    for kind in ("prompt_tokens", "output_tokens"):
        for name, said in ((f"{kind}_planned", "planned"), (kind, "by usage")):
            values = run.column(name)[run.measured]
            values = values[np.isfinite(values)]
            if len(values):
                spread = np.percentile(values, [0, 50, 95, 100])
                label = f"{kind.replace('_', ' ')}, {said}"
                rows.append([label, f"{values.sum():,.0f}", f"{values.mean():,.1f}", *(f"{v:,.0f}" for v in spread)])
    sent = summary["workload"]
    facts = [["requests/s", plain(sent["planned_rps"]), plain(sent["sent_rps"])]]
    facts.append(["coefficient of variation of the gaps", plain(sent["gap_cv_planned"]), plain(sent["gap_cv_sent"])])
    for one in sent["dispersion"]:
        label = f"index of dispersion at {one['window_s']} s"
        its = "" if one["sent_low"] is None else f"{one['sent_low']:.2f} to {one['sent_high']:.2f}"
        poisson = f"{one['poisson_low']:.2f} to {one['poisson_high']:.2f}"
        facts.append([label, plain(one["planned"]), plain(one["sent"]), its, poisson])
    block = f", in the cache's blocks of {sent['cache_block_tokens']}" if sent["cache_block_tokens"] else ""
    label = f"share of prompt tokens seen before{block}"
    facts.append([label, plain(sent["planned_reuse"]), plain(sent["cached_share"])])
    facts = [[*row, *[""] * (5 - len(row))] for row in facts]
    ks = " and ".join(f"{kind} {plain(sent[f'{kind}_ks'])}" for kind in ("prompt", "output"))
    said = f"<p>Distance of lengths by usage from those planned (Kolmogorov-Smirnov): {ks}.</p>"
    body = table(["", "sum", "mean", "min", "p50", "p95", "max"], rows) + said
    body += table(["", "planned", "sent", "its 95 % interval", "a Poisson process: 95 % of cases"], facts)
    return section("The workload as sent", body + (figure(curves) if curves else ""))


def happened(events: Sequence[Event]) -> str:
    """What happened while it ran: workers that came, went missing or died, stages, restarts, marks."""
    if not events:
        return ""
    rows = [[f"{event.t_ns / 1e9:,.1f} s", event.kind, event.text] for event in events[:_MOST_EVENTS]]
    more = len(events) - len(rows)
    left = f"<p>{more:,} more are in events.jsonl.</p>" if more else ""
    return section("Events", table(["at", "kind", "what"], rows, (0, 1, 2)) + left)


def _worker(worker: dict[str, Any]) -> str:
    """One machine of a distributed run: its injectors, and its clock against the master's."""
    return (
        f"injectors {', '.join(map(str, worker['injectors']))}; tailgate {worker['version']}; clock "
        f"{worker['clock_offset_ms']:+.3f} ms (± {worker['clock_error_ms']:.3f} ms) against the master's, "
        f"moved by {worker['clock_drift_ms']:+.3f} ms" + ("" if worker["drained"] else "; did not come to the end")
    )


def what_was_run(manifest: Manifest) -> str:
    """The run's identity, the target's fingerprint, the resolved specification."""
    target = manifest.target
    rows = [
        ["run", manifest.run],
        ["target", f"{target.kind}: {', '.join(target.urls)}"],
        ["model", target.model],
        ["server", f"{target.server} {target.version}".strip()],
        ["endpoint", target.endpoint],
        ["loop", manifest.loop],
        ["seed", str(manifest.seed)],
        ["plan hash", manifest.plan_hash],
        ["workload hash", manifest.workload_hash],
        ["cache, isolation", f"{manifest.cache}, {manifest.isolation}"],
        ["TLS", "NOT VERIFIED (--insecure)" if manifest.insecure_tls else "verified where used"],
        ["injectors, time stamps", f"{manifest.injectors}, {manifest.stamp}"],
        *([worker["name"], _worker(worker)] for worker in manifest.workers),
        ["tailgate", manifest.tailgate_version],
    ]
    more = {
        "Specification, resolved": manifest.spec,
        "Fingerprint of the target": target.fingerprint,
        "Host": manifest.host,
        "Versions": manifest.versions,
    }
    body = table(["", ""], rows, (0, 1))
    return section("What was run", body + "".join(folded(label, value) for label, value in more.items() if value))
