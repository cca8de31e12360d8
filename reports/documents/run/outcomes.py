"""What became of the requests, what happened meanwhile, and what was run."""

import shlex
from collections.abc import Sequence
from typing import Any, Final

import orjson

from tailgate.reports.documents.model import Code, Depth, Note, Row, Section, Table, TableCell, section
from tailgate.reports.rundir.events import Event
from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.summary.model import ErrorKind, Summary

_MOST_EVENTS: Final = 200


def outcomes(summary: Summary) -> Section:
    counts = dict(summary.load.requests)
    planned = max(counts.pop("planned"), 1)
    rows: list[Row] = []
    for status, n in counts.items():
        share = f"{100 * n / planned:.2f} %"
        bar = TableCell(share, bar=n / planned, tone="" if status == "ok" else "fail")
        rows.append([status, f"{n:,}", share, bar])
    heads = ["error", "count", "HTTP status", "example", "its request id"]
    kinds = [*map(_error, summary.errors.kinds)]
    return section(
        "Requests by status",
        Table(["status", "requests", "share", ""], rows, words=(0, 3), depth=Depth.PAGE),
        Table(heads, kinds, "Errors, each with an example", words=(0, 2, 3, 4)),
    )


def _error(kind: ErrorKind) -> Row:
    codes = ", ".join(f"{code}: {count}" for code, count in kind.http_status.items())
    example, status = kind.example, TableCell(kind.status, tone="fail")
    return [status, f"{kind.count:,}", codes, example["error"] or "", example["request_id"] or ""]


def events_section(events: Sequence[Event]) -> Section:
    """What happened while it ran: workers that came, went missing or died, stages, restarts, marks."""
    rows = [[f"{event.t_ns / 1e9:,.1f} s", event.kind, event.text] for event in events[:_MOST_EVENTS]]
    more = len(events) - len(rows)
    return section(
        "Events",
        Table(["at", "kind", "what"], rows, words=(0, 1, 2)),
        Note(f"{more:,} more are in events.jsonl.") if more else None,
        depth=Depth.PAGE,
    )


def what_was_run(manifest: Manifest) -> Section:
    """The run's identity, the target's fingerprint, the resolved specification."""
    target = manifest.target
    rows = [
        ("run", manifest.run),
        ("target", f"{target.kind}: {', '.join(target.urls)}"),
        ("model", target.model),
        ("server", f"{target.server} {target.version}".strip()),
        ("endpoint", target.endpoint),
        ("loop", manifest.loop),
        ("seed", str(manifest.seed)),
        ("plan hash", manifest.plan_hash),
        ("workload hash", manifest.workload_hash),
        ("cache, isolation", f"{manifest.cache}, {manifest.isolation}"),
        ("TLS", "NOT VERIFIED (--insecure)" if manifest.insecure_tls else "verified where used"),
        ("injectors, time stamps", f"{manifest.injectors}, {manifest.stamp}"),
        *((worker["name"], _worker(worker)) for worker in manifest.workers),
        ("tailgate", manifest.tailgate_version),
    ]
    more = {
        "Specification, resolved": manifest.spec,
        "Fingerprint of the target": target.fingerprint,
        "Host": manifest.host,
        "Versions": manifest.versions,
    }
    values = [
        (title, orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()) for title, value in more.items() if value
    ]
    return section(
        "What was run",
        Table(["", ""], rows, words=(0, 1), depth=Depth.PAGE),
        *(Code(text, title, folded=True, depth=Depth.PAGE) for title, text in values),
        Code(shlex.join(manifest.command_line), depth=Depth.BRIEF),
    )


def _worker(worker: dict[str, Any]) -> str:
    """One machine of a distributed run: its injectors, and its clock against the master's."""
    return (
        f"injectors {', '.join(map(str, worker['injectors']))}; tailgate {worker['version']}; clock "
        f"{worker['clock_offset_ms']:+.3f} ms (± {worker['clock_error_ms']:.3f} ms) against the master's, "
        f"moved by {worker['clock_drift_ms']:+.3f} ms" + ("" if worker["drained"] else "; did not come to the end")
    )
