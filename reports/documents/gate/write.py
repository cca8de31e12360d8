"""All documents of a verdict, written at once: verdict.json, gate.md, gate.xml (JUnit), gate.html."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tailgate.reports.documents.gate.history import Entry
from tailgate.reports.documents.gate.html import html
from tailgate.reports.documents.gate.junit import junit
from tailgate.reports.documents.gate.markdown import markdown
from tailgate.reports.rundir.json_files import write_atomic
from tailgate.reports.verdicts.gate.result import Verdict
from tailgate.workloads.common.errors import UserError

VERDICT: Final = "verdict.json"
STEP_SUMMARY: Final = "GITHUB_STEP_SUMMARY"


def json_text(found: Verdict) -> str:
    """`tailgate.verdict/1`."""
    import orjson

    return orjson.dumps(found.to_json(), option=orjson.OPT_INDENT_2).decode() + "\n"


def write_all(found: Verdict, folder: Path, history: Sequence[Entry] = ()) -> None:
    """Write the four documents into a folder.

    Raises:
        UserError: one can't be written.
    """
    documents = {
        VERDICT: json_text(found),
        "gate.md": markdown(found),
        "gate.xml": junit(found),
        "gate.html": html(found, history),
    }
    for name, content in documents.items():
        write_atomic(folder / name, content.encode())


def write_step_summary(found: Verdict) -> None:
    """Append the Markdown to GitHub's job summary, if this is such a job.

    Raises:
        UserError: the file it names can't be written.
    """
    path = os.environ.get(STEP_SUMMARY)
    if not path:
        return
    try:
        with Path(path).open("a") as file:
            file.write(markdown(found) + "\n")
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=f"{STEP_SUMMARY}: {path}") from error
