"""A run's documents in each format: the page, Markdown, JUnit, CSV, JSON, and what a terminal shows."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tailgate.reports.documents.render.csv import requests_csv
from tailgate.reports.documents.render.html import html
from tailgate.reports.documents.render.junit import Case, CaseOutcome, junit
from tailgate.reports.documents.render.markdown import markdown
from tailgate.reports.documents.render.terminal import print_document
from tailgate.reports.documents.run.document import run_document
from tailgate.reports.metrics.analysis import Analysis, analyse
from tailgate.reports.rundir.json_files import write_atomic
from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.summary.model import Summary

if TYPE_CHECKING:
    from rich.console import Console

FILE_NAME: Final = "report.html"
FORMATS: Final = ("csv", "json", "junit", "md")


def write_report(run_dir: Path | str, summary: Summary, analysis: Analysis | None = None) -> Path:
    """Write `run_dir/report.html` from a summary and the run's columns (read again unless given); its path.

    Raises:
        UserError: files are missing or damaged, or the page cannot be written.
    """
    path = Path(run_dir) / FILE_NAME
    write_atomic(path, report(summary, analysis or analyse(run_dir)).encode())
    return path


def report(summary: Summary, analysis: Analysis) -> str:
    return html(run_document(summary, analysis.run.manifest, analysis))


def print_summary(summary: Summary, console: "Console") -> None:
    print_document(run_document(summary), console)


def export(run_dir: Path, summary: Summary, kind: str, analysis: Analysis | None = None) -> str:
    """The document of `kind` (one of FORMATS) as text; a run that was analysed already isn't read again."""
    match kind:
        case "md":
            return markdown(run_document(summary, Manifest.load(run_dir)))
        case "csv":
            return requests_csv(analysis or analyse(run_dir))
        case "junit":
            return junit(f"tailgate {summary.run}", [*_cases(summary)])
        case _:
            import orjson

            return orjson.dumps(summary.to_json(), option=orjson.OPT_INDENT_2).decode() + "\n"


def _cases(summary: Summary) -> Iterator[Case]:
    """A failed check is an error, since nothing can be said; an objective that isn't met for certain is a failure."""
    outcomes: dict[str, CaseOutcome] = {"ok": "", "fail": "error", "unchecked": "skipped"}
    for check in summary.checks:
        yield Case("validity", check.name, outcomes[check.status], f"{check.why}. {check.remedy}")
    for one in summary.objectives:
        bounds = f"95 % bounds {one.lower_bound} to {one.upper_bound} {one.unit}"
        outcome: CaseOutcome = "" if one.result == "met" else "failure"
        yield Case("objective", one.objective, outcome, f"{one.result}: found {one.value}, {bounds}")
    if not summary.objectives:
        yield Case("run", "anything ended ok", "failure" if summary.verdict == "FAIL" else "", summary.why)
