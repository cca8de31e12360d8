"""A verdict as Markdown that stands alone: a pull request's comment, a job's summary. Always under 60 kB."""

import shlex

from tailgate.reports.documents.gate.dots import dots
from tailgate.reports.documents.run_markdown import LIMIT_BYTES, cell, cut, md_table
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

ICONS = {"PASS": "✅", "FAIL": "❌", "INCONCLUSIVE": "❔", "INVALID": "⚠️"}
_SENTENCE = 4000  # characters: of what stands outside of tables


def markdown(found: Verdict) -> str:
    """The document."""
    lines = [f"## {ICONS[found.verdict]} {found.verdict}: {cell(found.name)}", ""]
    if found.simulated:
        lines += ["> **SIMULATED**: the targets are the embedded engine, not real servers.", ""]
    lines += [cell(found.why, _SENTENCE), ""]
    lines += [f"- {cell(one, _SENTENCE)}" for one in found.advice] + [""] * bool(found.advice)
    lines += [*_metrics(found), *_thresholds(found), *_errors(found), *_obstacles(found)]
    lines += [f"**It holds for** {cell(found.holds_for)}.", ""] if found.holds_for else []
    lines += [*_what(found), *_folded(found)]
    return cut("\n".join(lines), LIMIT_BYTES)


def _metrics(found: Verdict) -> list[str]:
    if not found.metrics:
        return []
    head = ["metric", "result", "change", "margin", "baseline", "candidate"]
    rows = [
        [
            cell(name_of(one)), one.result, interval(one), limit(one),
            *both_sides(one),
        ]
        for one in found.metrics
    ]  # fmt: skip
    lines = md_table(head, rows)
    drawn = [(name_of(one), line) for one in found.metrics if (line := dots(one))]
    if drawn:
        width = max(len(name) for name, _ in drawn)
        lines += ["```", *(f"{name:<{width}} {line}" for name, line in drawn), "```", ""]
        lines += ["One dot a pair; `│` no change, `┊` margin.", ""]
    lines += [f"- {cell(name_of(one))}: {cell(one.why)}" for one in found.metrics if one.why]
    return [*lines, ""] if any(one.why for one in found.metrics) else lines


def _thresholds(found: Verdict) -> list[str]:
    rows = [[cell(name_of(one)), one.result, threshold_figures(one), cell(one.why)] for one in found.thresholds]
    return md_table(["threshold", "result", "found", ""], rows) if rows else []


def _errors(found: Verdict) -> list[str]:
    return [] if found.errors is None else [f"Errors: {cell(found.errors.says)}.", ""]


def _obstacles(found: Verdict) -> list[str]:
    if len(found.obstacles) < 2:
        return []
    return [*(f"- {cell(one.says)}. {cell(one.remedy)}" for one in found.obstacles[:30]), ""]


def _what(found: Verdict) -> list[str]:
    parts = [f"{found.pairs} pairs" if found.pairs else f"{found.runs} runs"]
    spent = found.spent
    if spent is not None:
        parts.append(duration(spent.seconds))
        parts += [] if spent.dollars is None else [f"${spent.dollars:.2f}"]
        parts.append(
            {"each": "restarted for every run", "block": "restarted at each change of sides"}.get(spent.restart, "")
        )
    sides = f"{cell(found.baseline)} → {cell(found.candidate)}" if found.baseline else cell(found.candidate)
    lines = [f"{sides}: {', '.join(part for part in parts if part)}.", ""]
    lines += [f"- {cell(note)}" for note in found.notes] + [""] * bool(found.notes)
    if found.command:
        lines += ["```", shlex.join(found.command).replace("```", "'''"), "```", ""]
    return lines


def _folded(found: Verdict) -> list[str]:
    lines: list[str] = []
    if found.differences:
        rows = [
            [
                cell(key),
                cell(values.get("baseline", "-")),
                cell(values.get("candidate", "-")),
                DECLARED[how],
            ]
            for key, values, how in found.differences
        ]
        lines += _details("What differs", md_table(["", "baseline", "candidate", "declared"], rows))
    numbers = [_numbers(one) for one in found.metrics if one.p is not None]
    if numbers:
        head = ["metric", "p (not worse)", "Holm level", "Hodges-Lehmann", "Wilcoxon p", "would have proved", "how"]
        lines += _details("The numbers behind it", md_table(head, numbers))
    lines += _details("Validity", _checks(found)) if found.checks else []
    return lines


def _numbers(one: MetricVerdict) -> list[str]:
    p, holm, wilcoxon = ("-" if value is None else f"{value:.3g}" for value in (one.p, one.holm, one.wilcoxon_p))
    return [cell(name_of(one)), p, holm, plain(one.hodges_lehmann), wilcoxon, plain(one.detectable), one.how]


def _checks(found: Verdict) -> list[str]:
    by_name: dict[str, list[str]] = {}
    for _, name, status, _ in found.checks:
        by_name.setdefault(name, []).append(status)
    rows = [
        [name.replace("_", " "), *(str(statuses.count(status)) for status in ("ok", "fail", "unchecked"))]
        for name, statuses in by_name.items()
    ]
    return md_table(["check", "ok", "failed", "unchecked"], rows)


def _details(title: str, inner: list[str]) -> list[str]:
    return [f"<details><summary>{title}</summary>", "", *inner, "</details>", ""]
