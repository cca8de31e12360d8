"""A verdict in each format: verdict.json, gate.md, gate.xml (JUnit), gate.html, and what a terminal shows."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson

from tailgate.reports.documents.gate.cases import cases
from tailgate.reports.documents.gate.document import gate_document
from tailgate.reports.documents.gate.history import Entry
from tailgate.reports.documents.render import html as html_page
from tailgate.reports.documents.render import junit as junit_xml
from tailgate.reports.documents.render import markdown as markdown_text
from tailgate.reports.documents.render.terminal import print_document
from tailgate.reports.rundir.json_files import write_atomic
from tailgate.reports.verdicts.gate.result import Verdict
from tailgate.workloads.common.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

VERDICT: Final = "verdict.json"
STEP_SUMMARY: Final = "GITHUB_STEP_SUMMARY"


def json_text(verdict: Verdict) -> str:
    return orjson.dumps(verdict.to_json(), option=orjson.OPT_INDENT_2).decode() + "\n"


def html(verdict: Verdict, history: Sequence[Entry] = ()) -> str:
    return html_page.html(gate_document(verdict, history))


def markdown(verdict: Verdict) -> str:
    return markdown_text.markdown(gate_document(verdict))


def junit(verdict: Verdict) -> str:
    seconds = None if verdict.spent is None else verdict.spent.seconds
    return junit_xml.junit(f"tailgate gate {verdict.name}", [*cases(verdict)], seconds)


def print_verdict(verdict: Verdict, console: "Console") -> None:
    print_document(gate_document(verdict), console)


def write_all(verdict: Verdict, folder: Path, history: Sequence[Entry] = ()) -> None:
    """Write the four documents into a folder.

    Raises:
        UserError: one can't be written.
    """
    documents = {
        VERDICT: json_text(verdict),
        "gate.md": markdown(verdict),
        "gate.xml": junit(verdict),
        "gate.html": html(verdict, history),
    }
    for name, content in documents.items():
        write_atomic(folder / name, content.encode())


def write_step_summary(verdict: Verdict) -> None:
    """Append the Markdown to GitHub's job summary, if this is such a job.

    Raises:
        UserError: the file it names can't be written.
    """
    path = os.environ.get(STEP_SUMMARY)
    if not path:
        return
    try:
        with Path(path).open("a") as file:
            file.write(markdown(verdict) + "\n")
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=f"{STEP_SUMMARY}: {path}") from error
