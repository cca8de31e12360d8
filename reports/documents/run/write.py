"""A run's documents in each format: the page, Markdown, JUnit, CSV, JSON, and what a terminal shows."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tailgate.reports.documents.render.csv import requests_csv
from tailgate.reports.documents.render.html import html
from tailgate.reports.documents.render.junit import Case, CaseOutcome, junit
from tailgate.reports.documents.render.markdown import markdown
from tailgate.reports.documents.render.terminal import print_document
from tailgate.reports.documents.run.document import run_document
from tailgate.reports.metrics.analysis import Analysis, analyse
from tailgate.reports.rundir.manifest import Manifest, write_atomic

if TYPE_CHECKING:
    from rich.console import Console

FILE_NAME: Final = "report.html"
FORMATS: Final = ("csv", "json", "junit", "md")


def write_report(run_dir: Path | str, summary: dict[str, Any], analysis: Analysis | None = None) -> Path:
    """Write `run_dir/report.html` from a summary and the run's columns (read again unless given); its path.

    Raises:
        UserError: files are missing or damaged, or the page cannot be written.
    """
    path = Path(run_dir) / FILE_NAME
    write_atomic(path, report(summary, analysis or analyse(run_dir)).encode())
    return path


def report(summary: dict[str, Any], analysis: Analysis) -> str:
    """The page."""
    return html(run_document(summary, analysis.run.manifest, analysis))


def print_summary(summary: dict[str, Any], console: "Console") -> None:
    """Print a summary (`tailgate.summary/1`) to a terminal."""
    print_document(run_document(summary), console)


def export(run_dir: Path, summary: dict[str, Any], kind: str, analysis: Analysis | None = None) -> str:
    """The document of `kind` (one of FORMATS) as text; a run that was analysed already isn't read again."""
    match kind:
        case "md":
            return markdown(run_document(summary, Manifest.load(run_dir)))
        case "csv":
            return requests_csv(analysis or analyse(run_dir))
        case "junit":
            return junit(f"tailgate {summary['run']}", [*_cases(summary)])
        case _:
            import orjson

            return orjson.dumps(summary, option=orjson.OPT_INDENT_2).decode() + "\n"


def _cases(summary: dict[str, Any]) -> Iterator[Case]:
    """A failed check is an error, since nothing can be said; an objective that isn't met for certain is a failure."""
    outcomes: dict[str, CaseOutcome] = {"ok": "", "fail": "error", "unchecked": "skipped"}
    for check in summary["checks"]:
        why = f"{check['why']}. {check['remedy']}"
        yield Case("validity", check["name"], outcomes[check["status"]], why)
    objectives = summary["slo"]["thresholds"] if summary["slo"] else []
    for one in objectives:
        bounds = f"95 % bounds {one['lower_bound']} to {one['upper_bound']} {one['unit']}"
        why = f"{one['result']}: found {one['value']}, {bounds}"
        yield Case("objective", one["objective"], "" if one["result"] == "met" else "failure", why)
    if not objectives:
        yield Case("run", "anything ended ok", "failure" if summary["verdict"] == "FAIL" else "", summary["why"])
