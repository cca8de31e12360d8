"""What became of the requests, whether the measuring held, what happened meanwhile, and what was run."""

import shlex
from collections.abc import Sequence
from typing import Any, Final

import orjson

from tailgate.reports.documents.model import TONES, Code, Depth, Note, Notes, Row, Section, Table, TableCell, section
from tailgate.reports.metrics.catalogue import METRICS
from tailgate.reports.rundir.events import Event
from tailgate.reports.rundir.manifest import Manifest, TargetRecord
from tailgate.reports.summary.model import ErrorKind, Summary
from tailgate.reports.validity.client import Check
from tailgate.workloads.common.formatting import ms, plain

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
        short="Requests",
    )


def _error(kind: ErrorKind) -> Row:
    codes = ", ".join(f"{code}: {count}" for code, count in kind.http_status.items())
    example, status = kind.example, TableCell(kind.status, tone="fail")
    return [status, f"{kind.count:,}", codes, example["error"] or "", example["request_id"] or ""]


def events_section(events: Sequence[Event]) -> Section:
    rows = [[f"{event.t_ns / 1e9:,.1f} s", event.kind, event.text] for event in events[:_MOST_EVENTS]]
    more = len(events) - len(rows)
    return section(
        "Events",
        Table(["at", "kind", "what"], rows, words=(0, 1, 2)),
        Note(f"{more:,} more are in events.jsonl.") if more else None,
        depth=Depth.PAGE,
    )


def _requests(target: TargetRecord) -> list[tuple[str, str]]:
    """The form that requests had; none for runs that didn't write it down."""
    form = target.requests
    if not form:
        return []
    without = f", without {', '.join(form['omitted'])}" if form.get("omitted") else ""
    return [("requests", f"fields {form.get('fields')}, prompts {form.get('prompt')}, {form.get('limit')}{without}")]


def _acknowledged(manifest: Manifest) -> list[tuple[str, str]]:
    if manifest.acks_delayed is None:
        return []
    how = "tokens several at a time, from an answer's first on" if manifest.acks_delayed else "each segment at once"
    return [("acknowledged", how)]


def what_was_run(manifest: Manifest) -> Section:
    target = manifest.target
    rows = [
        ("run", manifest.run),
        ("target", f"{target.kind}: {', '.join(target.urls)}"),
        ("model", target.model),
        ("server", f"{target.server} {target.version}".strip()),
        ("endpoint", target.endpoint),
        *_requests(target),
        *((f"way to {url}", way) for url, way in target.proxy.items()),
        ("loop", manifest.loop),
        *([("clock", "virtual: simulated, nothing was sent")] if manifest.clock == "virtual" else []),
        ("seed", str(manifest.seed)),
        ("plan hash", manifest.plan_hash),
        ("workload hash", manifest.workload_hash),
        ("cache, isolation", f"{manifest.cache}, {manifest.isolation}"),
        ("TLS", "NOT VERIFIED (--insecure)" if manifest.insecure_tls else "verified where used"),
        ("injectors, time stamps", f"{manifest.injectors}, {manifest.stamp}"),
        *_acknowledged(manifest),
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


_LAGS: Final = ("dispatch", "send", "receive", "turnaround")
_BRIEF_LAGS: Final = ("dispatch", "turnaround", "receive")


def validity(summary: Summary) -> Section:
    checks, client = summary.checks, summary.client
    held = sum(check.holds for check in checks)
    lags = {name: lag for name in _LAGS if (lag := getattr(client, f"{name}_lag_ms")) is not None}
    brief = ", ".join(f"{name} lag p99 {ms(lags[name]['p99'])} ms" for name in _BRIEF_LAGS if name in lags)
    unchecked = [check for check in checks if check.status == "unchecked"]
    rows = [[f"{name} lag", *(ms(lag[q]) for q in ("p50", "p99", "max"))] for name, lag in lags.items()]
    return section(
        "Did the measuring itself hold?",
        Note(f"validity: {held} of {len(checks)} checks hold; {brief}; {client.stamp} time stamps"),
        Notes([*map(_failed, summary.failed_checks)], depth=Depth.PAGE),
        Notes(_foreseen(summary), depth=Depth.PAGE),
        Notes([Note(f"{check_name(c)} ({c.why})", "unchecked:", tone="unchecked") for c in unchecked]),
        Table(
            ["check", "result", "found", "at most", ""],
            [*map(_check, checks)],
            f"All {len(checks)} checks",
            words=(0, 1, 4),
            depth=Depth.FOLDED,
        ),
        Table(["", "p50", "p99", "max"], rows, "The client's own conduct, ms", depth=Depth.PAGE),
        Notes([Note(notice) for notice in summary.notices], "Notes"),
        short="Validity",
    )


def _foreseen(summary: Summary) -> list[Note]:
    """What was expected of this machine before the load, against what it came to."""
    expected = summary.client.expected_error_ms
    if expected is None:
        return []
    texts = []
    for name, ms_ in expected.items():
        low, high = summary.latency_ms[name].errors.get("p99") or (None, None)
        came_to = "" if low is None or high is None else f", and it came to ± {ms((high - low) / 2)} ms"
        texts.append(f"± {ms_:g} ms of {METRICS[name].label} p99 was expected{came_to}")
    return [Note(f"The load generator's own error: {'; '.join(texts)}.")]


def check_name(check: Check) -> str:
    return check.name.replace("_", " ")


def _worker(worker: dict[str, Any]) -> str:
    """One machine of a distributed run: its injectors, and its clock against the master's."""
    return (
        f"injectors {', '.join(map(str, worker['injectors']))}; tailgate {worker['version']}; clock "
        f"{worker['clock_offset_ms']:+.3f} ms (± {worker['clock_error_ms']:.3f} ms) against the master's, "
        f"moved by {worker['clock_drift_ms']:+.3f} ms" + ("" if worker["drained"] else "; did not come to the end")
    )


def _failed(check: Check) -> Note:
    return Note(check.reason().partition(": ")[2], f"{check_name(check)}:", tone="fail")


def _check(check: Check) -> Row:
    value, bound = ("" if v is None else f"{plain(v)} {check.unit}" for v in (check.value, check.bound))
    why = check.why + (f". {check.remedy}" if check.status == "fail" else "")
    return [check_name(check), TableCell(check.status, tone=TONES[check.status]), value, bound, why]
