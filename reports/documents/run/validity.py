"""Did the measuring itself hold? Every check, the client's own conduct, and what else should be known."""

from typing import Final

from tailgate.reports.documents.model import TONES, Depth, Note, Notes, Row, Section, Table, TableCell, section
from tailgate.reports.summary.model import Summary
from tailgate.reports.validity.client import Check
from tailgate.workloads.common.formatting import ms, plain

_LAGS: Final = ("dispatch", "send", "receive", "turnaround")
_BRIEF_LAGS: Final = ("dispatch", "turnaround", "receive")


def validity(summary: Summary) -> Section:
    checks, client = summary.checks, summary.client
    held = sum(check.status == "ok" for check in checks)
    lags = {name: lag for name in _LAGS if (lag := getattr(client, f"{name}_lag_ms")) is not None}
    brief = ", ".join(f"{name} lag p99 {ms(lags[name]['p99'])} ms" for name in _BRIEF_LAGS if name in lags)
    unchecked = [check for check in checks if check.status == "unchecked"]
    rows = [[f"{name} lag", *(ms(lag[q]) for q in ("p50", "p99", "max"))] for name, lag in lags.items()]
    return section(
        "Did the measuring itself hold?",
        Note(f"validity: {held} of {len(checks)} checks hold; {brief}; {client.stamp} time stamps", depth=Depth.BRIEF),
        Notes([Note(f"{_name(c)} ({c.why})", "unchecked:", tone="unchecked") for c in unchecked], depth=Depth.BRIEF),
        Table(["check", "result", "found", "at most", ""], [*map(_check, checks)], words=(0, 1, 4), depth=Depth.FOLDED),
        Table(["", "p50", "p99", "max"], rows, "The client's own conduct, ms", depth=Depth.PAGE),
        Notes([Note(notice) for notice in summary.notices], "Notes"),
    )


def _name(check: Check) -> str:
    return check.name.replace("_", " ")


def _check(check: Check) -> Row:
    value, bound = ("" if v is None else f"{plain(v)} {check.unit}" for v in (check.value, check.bound))
    why = check.why + (f". {check.remedy}" if check.status == "fail" else "")
    return [_name(check), TableCell(check.status, tone=TONES[check.status]), value, bound, why]
