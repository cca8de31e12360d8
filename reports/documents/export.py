"""Documents other than the report: JSON for scripts, Markdown for job summaries, CSV for tables, JUnit for CI.

One function a format, each from a run directory and its summary to text.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tailgate.reports.documents.run_csv import requests_csv
from tailgate.reports.documents.run_junit import junit
from tailgate.reports.documents.run_markdown import markdown
from tailgate.reports.metrics.analysis import Analysis, analyse


def _json(_run_dir: Path, summary: dict[str, Any]) -> str:
    import orjson

    return orjson.dumps(summary, option=orjson.OPT_INDENT_2).decode() + "\n"


def _csv(run_dir: Path, _summary: dict[str, Any], analysis: Analysis | None = None) -> str:
    return requests_csv(analysis or analyse(run_dir))


FORMATS: Final[dict[str, Callable[[Path, dict[str, Any]], str]]] = {
    "json": _json,
    "md": markdown,
    "csv": _csv,
    "junit": junit,
}


def export(run_dir: Path, summary: dict[str, Any], kind: str, analysis: Analysis | None = None) -> str:
    """The document of `kind` (a key of FORMATS) as text; a run that was analysed already isn't read again."""
    return _csv(run_dir, summary, analysis) if kind == "csv" else FORMATS[kind](run_dir, summary)
