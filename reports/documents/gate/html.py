"""`gate.html`: a verdict for a person on one page that opens from disk with the network off."""

import shlex
from collections.abc import Sequence
from urllib.parse import quote

from tailgate.reports.documents.gate.history import Entry
from tailgate.reports.documents.html_page import Cell, figure, page, section, table, text, word
from tailgate.reports.documents.plots.gate import pairs, trend
from tailgate.reports.verdicts.gate.comparison import MetricVerdict
from tailgate.reports.verdicts.gate.result import Verdict
from tailgate.reports.verdicts.gate.wording import (
    DECLARED,
    both_sides,
    duration,
    interval,
    limit,
    name_of,
    threshold_figures,
)
from tailgate.workloads.common.formatting import plain

_CLASSES = {"pass": "ok", "fail": "fail", "met": "ok", "broken": "fail"}


def html(found: Verdict, history: Sequence[Entry] = ()) -> str:
    """The page."""
    dots, creep = pairs(found), trend(history, found)
    body = [
        _head(found),
        section("The metrics", _metrics(found) + (figure(dots) if dots else "")) if found.metrics else "",
        section("Thresholds", _thresholds(found)) if found.thresholds else "",
        section("Where to look first", _causes(found)) if found.causes else "",
        section("Over time", figure(creep)) if creep else "",
        section("Can the runs be compared?", _validity(found)),
        section("What was run", _what(found)),
    ]
    drawn = [one for one in (dots, creep) if one is not None]
    return page(f"{found.name}: {found.verdict}", _banner(found), "".join(body), drawn)


def _banner(found: Verdict) -> str:
    parts = ""
    if found.simulated:
        what = "SIMULATED: the targets are the embedded engine, not real servers"
        parts += (
            f'<div class="watermark" aria-hidden="true">SIMULATED</div><div class="banner sim" role="note">{what}</div>'
        )
    if found.verdict == "INVALID":
        parts += '<div class="banner bad" role="alert">INVALID: nothing can be said about the candidate</div>'
    return parts


def _head(found: Verdict) -> str:
    sides = " → ".join(part for part in (found.baseline, found.candidate) if part)
    advice = "".join(f"<li>{text(one)}</li>" for one in found.advice)
    holds = f"<p><b>It holds for</b> {text(found.holds_for)}.</p>" if found.holds_for else ""
    return (
        f"<header><h1>{text(found.name)}</h1><p class='faint'>{text(sides)}</p>"
        f'<div class="verdict {found.verdict}"><b>{found.verdict}</b><span>{text(found.why)}</span></div>'
        f"{f'<ul>{advice}</ul>' if advice else ''}{holds}{_cards(found)}</header>"
    )


def _cards(found: Verdict) -> str:
    spent = found.spent
    cards = [("pairs", str(found.pairs)) if found.pairs else ("runs", str(found.runs))]
    if spent is not None:
        cards.append(("took", duration(spent.seconds)))
        cards += [] if spent.dollars is None else [("spent", f"${spent.dollars:.2f}")]
    if found.errors is not None:
        a, b = found.errors.baseline, found.errors.candidate
        cards.append(("failed, baseline", f"{100 * a.share:.2f} %"))
        cards.append(("failed, candidate", f"{100 * b.share:.2f} %"))
    shown = "".join(
        f'<div class="card"><div class="name">{text(name)}</div><div class="value">{text(value)}</div></div>'
        for name, value in cards
    )
    return f'<div class="cards">{shown}</div>'


def _metrics(found: Verdict) -> str:
    head = ["metric", "", "change", "margin", "baseline", "candidate", "p", "Holm", "HL", "Wilcoxon p", "how", ""]
    return table(head, [_metric(one) for one in found.metrics], (0, 1, 10, 11))


def _metric(one: MetricVerdict) -> list[str | Cell]:
    p, holm, wilcoxon = ("-" if value is None else f"{value:.3g}" for value in (one.p, one.holm, one.wilcoxon_p))
    return [
        name_of(one), word(one.result, _CLASSES.get(one.result, "unsure")), interval(one), limit(one),
        *both_sides(one), p, holm, plain(one.hodges_lehmann), wilcoxon, one.how, one.why,
    ]  # fmt: skip


def _thresholds(found: Verdict) -> str:
    rows: list[list[str | Cell]] = [
        [name_of(one), word(one.result, _CLASSES.get(one.result, "unsure")), threshold_figures(one), one.why]
        for one in found.thresholds
    ]
    return table(["threshold", "", "found", ""], rows, (0, 1, 2, 3))


def _causes(found: Verdict) -> str:
    rows: list[list[str]] = []
    lines = []
    for cause in found.causes:
        lines.append(f"<li><b>{text(cause.place)}</b>: {text(cause.says)} {text(cause.remedy)}</li>")
        rows += [[cause.place, name, plain(a), plain(b)] for name, (a, b) in cause.figures.items()]
    return f'<ol class="findings">{"".join(lines)}</ol>' + table(["", "figure", "baseline", "candidate"], rows, (0, 1))


def _validity(found: Verdict) -> str:
    parts = ""
    if found.obstacles:
        rows = [[one.check, one.says, one.remedy] for one in found.obstacles]
        parts += table(["reason", "", "what to do"], rows, (0, 1, 2))
    if found.differences:
        facts = [
            [key, values.get("baseline", "-"), values.get("candidate", "-"), DECLARED[how]]
            for key, values, how in found.differences
        ]
        parts += "<h3>What differs</h3>" + table(["fact", "baseline", "candidate", "declared"], facts, (0, 1, 2, 3))
    by_name: dict[str, list[tuple[str, str]]] = {}
    for run, name, status, _ in found.checks:
        by_name.setdefault(name, []).append((run, status))
    counted = [_counted(name, entries) for name, entries in by_name.items()]
    checks = table(["check", "ok", "failed", "unchecked", "failed in"], counted, (0, 4))
    return parts + "<h3>Checks of all runs</h3>" + checks


def _counted(name: str, entries: list[tuple[str, str]]) -> list[str]:
    counts = [str(sum(status == one for _, status in entries)) for one in ("ok", "fail", "unchecked")]
    return [name.replace("_", " "), *counts, ", ".join(run for run, status in entries if status == "fail")]


def _what(found: Verdict) -> str:
    notes = "".join(f"<li>{text(note)}</li>" for note in found.notes)
    parts = f"<ul>{notes}</ul>" if notes else ""
    if found.design is not None:
        parts += f"<p>{text(_design(found))}</p>"
    if found.command:
        parts += f"<p><b>Run it again:</b></p><pre>{text(shlex.join(found.command))}</pre>"
    if found.spent is not None:
        rows: list[list[str | Cell]] = [
            [str(pair), side, point, _link(name)] for name, side, point, pair in found.spent.runs
        ]
        parts += table(["pair", "side", "load", "run directory"], rows, (1, 2, 3))
    return parts


def _link(name: str) -> Cell:
    """To the run's own report, which lies beside the page."""
    return Cell(f'<a href="{text(quote(name))}/report.html">{text(name)}</a>', "text")


def _design(found: Verdict) -> str:
    design = found.design
    if design is None:
        return ""
    looks = f"one look at {design.pairs} pairs" if design.paired else "stored runs, one look"
    if design.extended is not None:
        looks = f"look {design.look} of two ({design.pairs} pairs, then {design.extended} in all)"
    return (
        f"Decided at {looks}. A PASS needs a {100 * (1 - design.pass_tail()):.2f} % upper bound below the margin;"
        f" a FAIL a {100 * (1 - design.fail_tail()):.2f} % lower bound above zero, and an estimate beyond the margin."
    )
