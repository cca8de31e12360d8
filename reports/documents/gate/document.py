"""A verdict for a person: the word, why, each metric with its pairs, where to look, and what was run."""

import shlex
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from tailgate.reports.documents import model as doc
from tailgate.reports.documents.gate.history import Entry
from tailgate.reports.documents.plots.gate import pairs, trend
from tailgate.reports.stats.sequential_design import Design
from tailgate.reports.verdicts.gate import wording
from tailgate.reports.verdicts.gate.comparison import MetricVerdict
from tailgate.reports.verdicts.gate.result import Verdict
from tailgate.reports.verdicts.gate.runs import GateRecord
from tailgate.workloads.common.formatting import counted, plain

_RESTARTS: Final = {"each": "restarted for every run", "block": "restarted at each change of sides"}

_HOLDS = ("ok", "noted")  # results of a check that void nothing


def gate_document(verdict: Verdict, history: Sequence[Entry] = ()) -> doc.Document:
    nothing = doc.Banner("INVALID", "nothing can be said about the candidate")
    return doc.Document(
        title=f"{verdict.name}: {verdict.verdict}",
        heading=verdict.name,
        about=_sides(verdict),
        verdict=verdict.verdict,
        why=verdict.why,
        points=verdict.advice,
        banners=[
            *([doc.simulated(several=True)] if verdict.simulated else []),
            *([nothing] if verdict.verdict == "INVALID" else []),
        ],
        sections=[
            _head(verdict),
            _metrics(verdict),
            doc.section("Thresholds", _thresholds(verdict)),
            _causes(verdict),
            doc.section("Over time", trend(history, verdict), depth=doc.Depth.PAGE),
            _validity(verdict),
            _what_was_run(verdict),
        ],
    )


def _sides(verdict: Verdict) -> str:
    return " → ".join(part for part in (verdict.baseline, verdict.candidate) if part)


def _head(verdict: Verdict) -> doc.Section:
    return doc.section(
        "",
        doc.Note(f"{verdict.holds_for}." if verdict.holds_for else "", "It holds for"),
        doc.Cards(_cards(verdict)),
        doc.Note(f"{verdict.errors.says}." if verdict.errors is not None else "", "Errors:"),
    )


def _size(verdict: Verdict) -> str:
    return counted(verdict.pairs, "pair") if verdict.pairs else counted(verdict.runs, "run")


def _cards(verdict: Verdict) -> list[doc.Card]:
    count, name = _size(verdict).split()
    cards, spent, errors = [doc.Card(name, count)], verdict.spent, verdict.errors
    if spent is not None:
        cards.append(doc.Card("took", wording.duration(spent.seconds)))
        cards += [] if spent.dollars is None else [doc.Card("spent", f"${spent.dollars:.2f}")]
    if errors is not None:
        for name, side in (("baseline", errors.baseline), ("candidate", errors.candidate)):
            cards.append(doc.Card(f"failed, {name}", f"{100 * side.share:.2f} %"))
    return cards


def _result(result: str) -> doc.TableCell:
    return doc.TableCell(result, tone=doc.TONES.get(result, "unsure"))


def _metrics(verdict: Verdict) -> doc.Section:
    rows: list[doc.Row] = [
        [wording.name_of(m), _result(m.result), wording.interval(m), wording.limit(m), *wording.both_sides(m), m.how]
        for m in verdict.metrics
    ]
    head = ["metric", "result", "change", "margin", "baseline", "candidate", "how"]
    picture = pairs(verdict)
    legend = "One dot a pair; │ is no change, ┊ the margin." if picture and picture.strips else ""
    return doc.section(
        "The metrics",
        doc.Table(head, rows, words=(0, 1, 6), dash="not known; the reason stands below the table"),
        doc.Note(_what_columns_are(verdict.metrics)),
        doc.Notes([doc.Note(m.why, f"{wording.name_of(m)}:") for m in verdict.metrics if m.why]),
        picture,
        doc.Note(legend, depth=doc.Depth.BRIEF),
        _statistics([m for m in verdict.metrics if m.p is not None]),
    )


def _what_columns_are(metrics: Sequence[MetricVerdict]) -> str:
    """How the change and the two sides' figures belong together."""
    tested = [m for m in metrics if m.ratio is not None]
    drift = any(m.how == "unpaired, with drift" for m in tested)
    beside = " Where a drift was found over time, the change is what the candidate adds to it." if drift else ""
    if not tested:
        return ""
    return f"Baseline and candidate are geometric means of their runs, and the change is their ratio.{beside}"


def _statistics(metrics: Sequence[MetricVerdict]) -> doc.Table:
    head = ["metric", "p (not worse)", "Holm level", "Hodges-Lehmann", "Wilcoxon p", "detectable slowdown", "how"]
    rows: list[doc.Row] = []
    for m in metrics:
        p, holm, wilcoxon = ("-" if value is None else f"{value:.3g}" for value in (m.p, m.holm, m.wilcoxon_p))
        detectable = "-" if m.detectable is None else wording.percent(m.detectable)
        rows.append([wording.name_of(m), p, holm, plain(m.hodges_lehmann), wilcoxon, detectable, m.how])
    return doc.Table(
        head,
        rows,
        "The numbers behind it",
        words=(0, 6),
        depth=doc.Depth.FOLDED,
        dash="has no meaning for this way to compare",
    )


def _thresholds(verdict: Verdict) -> doc.Table:
    rows: list[doc.Row] = [
        [wording.name_of(t), _result(t.result), wording.threshold_figures(t), t.why] for t in verdict.thresholds
    ]
    return doc.Table(["threshold", "result", "found", "why"], rows, words=(0, 1, 2, 3), dash="not known; see why")


def _causes(verdict: Verdict) -> doc.Section:
    notes = [doc.Note(f"{cause.says} {cause.remedy}", f"{cause.place}:") for cause in verdict.causes]
    rows = [
        [cause.place, name, plain(a), plain(b)] for cause in verdict.causes for name, (a, b) in cause.figures.items()
    ]
    table = doc.Table(
        ["place", "figure", "baseline", "candidate"], rows, words=(0, 1), dash="that side doesn't report it"
    )
    return doc.section("Where to look first", doc.Notes(notes, numbered=True), table, depth=doc.Depth.PAGE)


def _validity(verdict: Verdict) -> doc.Section:
    obstacles = [
        doc.Note(f"{obstacle.says}. {obstacle.remedy}", f"{obstacle.check}:") for obstacle in verdict.obstacles
    ]
    differences: list[doc.Row] = [
        [fact, values.get("baseline", "-"), values.get("candidate", "-"), wording.DECLARED[how]]
        for fact, values, how in verdict.differences
    ]
    by_name: dict[str, list[tuple[str, str]]] = {}
    for run, name, status, _ in verdict.checks:
        by_name.setdefault(name, []).append((run, status))
    checks: list[doc.Row] = [
        [
            name.replace("_", " "), *(str(sum(s in of for _, s in runs)) for of in (_HOLDS, ("fail",), ("unchecked",))),
            ", ".join(run for run, status in runs if status == "fail"),
        ]
        for name, runs in by_name.items()
    ]  # fmt: skip
    sides = ["fact", "baseline", "candidate", "declared"]
    counts = ["check", "ok", "failed", "unchecked", "failed in"]
    return doc.section(
        "Can the runs be compared?",
        # The first stands in the verdict's own sentence.
        doc.Notes(obstacles[1:], depth=doc.Depth.BRIEF),
        doc.Notes(obstacles, depth=doc.Depth.PAGE),
        doc.Table(
            sides,
            differences,
            "What differs",
            words=(0, 1, 2, 3),
            depth=doc.Depth.FOLDED,
            dash="not stated on that side, and not reported",
        ),
        doc.Table(counts, checks, "Checks of all runs", words=(0, 4), depth=doc.Depth.FOLDED),
    )


def _what_was_run(verdict: Verdict) -> doc.Section:
    spent, sides = verdict.spent, _sides(verdict)
    parts = [_size(verdict)]
    if spent is not None:
        parts += [wording.duration(spent.seconds), "" if spent.dollars is None else f"${spent.dollars:.2f}"]
        parts.append(_RESTARTS.get(spent.restart, ""))
    size = ", ".join(part for part in parts if part)
    return doc.section(
        "What was run",
        doc.Note(f"{sides}: {size}." if sides else f"{size}.", depth=doc.Depth.BRIEF),
        doc.Notes([doc.Note(note) for note in verdict.notes]),
        doc.Note(_design(verdict.design) if verdict.design is not None else "", depth=doc.Depth.PAGE),
        doc.Code(shlex.join(verdict.command), "Run it again:") if verdict.command else None,
        _runs(spent) if spent is not None else None,
    )


def _runs(spent: GateRecord) -> doc.Block:
    """Each run's own report lies beside the page."""
    rows: list[doc.Row] = [
        [str(pair), side, point, doc.TableCell(name, link=f"{quote(name)}/report.html")]
        for name, side, point, pair in spent.runs
    ]
    return doc.Table(["pair", "side", "load", "run directory"], rows, words=(1, 2, 3), depth=doc.Depth.PAGE)


def _design(design: Design) -> str:
    looks = f"one look at {design.pairs} pairs" if design.paired else "stored runs, one look"
    if design.extended is not None:
        looks = f"look {design.look} of two ({design.pairs} pairs, then {design.extended} in all)"
    return (
        f"Decided at {looks}. A PASS needs a {100 * (1 - design.pass_tail()):.2f} % upper bound below the margin;"
        f" a FAIL a {100 * (1 - design.fail_tail()):.2f} % lower bound above zero, and an estimate beyond the margin."
    )
