"""A verdict in each format: verdict.json, gate.md, gate.xml (JUnit), gate.html, and what a terminal shows."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import orjson

from tailgate.reports.documents.gate.document import gate_document
from tailgate.reports.documents.gate.history import Entry
from tailgate.reports.documents.render import html as html_page
from tailgate.reports.documents.render import junit as junit_xml
from tailgate.reports.documents.render import markdown as markdown_text
from tailgate.reports.documents.render.junit import Case, CaseOutcome
from tailgate.reports.rundir.json_files import write_atomic
from tailgate.reports.verdicts.gate.result import Verdict
from tailgate.reports.verdicts.gate.wording import interval, limit, name_of, threshold_figures
from tailgate.workloads.common.errors import UserError

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
    return junit_xml.junit(f"tailgate gate {verdict.name}", [*_cases(verdict)], seconds)


def write_all(verdict: Verdict, folder: Path, history: Sequence[Entry] = ()) -> None:
    documents = {
        VERDICT: json_text(verdict),
        "gate.md": markdown(verdict),
        "gate.xml": junit(verdict),
        "gate.html": html(verdict, history),
    }
    for name, content in documents.items():
        write_atomic(folder / name, content.encode())


def write_step_summary(verdict: Verdict) -> None:
    """Append the Markdown to GitHub's job summary, if this is such a job."""
    path = os.environ.get(STEP_SUMMARY)
    if not path:
        return
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(markdown(verdict) + "\n")
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=f"{STEP_SUMMARY}: {path}") from error


def _cases(verdict: Verdict) -> Iterator[Case]:
    """The verdict, and each metric, threshold and check that it rests on.

    What can't be judged since the measuring failed is an error; what is worse is a failure; what can't be told is a
    failure or skipped, as the policy says.
    """
    unsure: CaseOutcome = "skipped" if verdict.inconclusive == "neutral" else "failure"
    words: dict[str, CaseOutcome] = {"PASS": "", "FAIL": "failure", "INCONCLUSIVE": unsure, "INVALID": "error"}
    yield Case("gate.verdict", verdict.name, words[verdict.verdict], f"{verdict.verdict}: {verdict.why}")
    if (errors := verdict.errors) is not None:
        failed: CaseOutcome = "failure" if errors.outcome == "fail" else ""
        yield Case("gate.errors", "the candidate does not err more", failed, errors.says)
    results: dict[str, CaseOutcome] = {"pass": "", "met": "", "fail": "failure", "broken": "failure"}
    for m in verdict.metrics:
        why = f"{m.result}: {interval(m)}, margin {limit(m)}. {m.why}".rstrip()
        yield Case("gate.metric", name_of(m), (results | {"withheld": "skipped"}).get(m.result, unsure), why)
    for t in verdict.thresholds:
        why = f"{t.result}: {threshold_figures(t)}. {t.why}".rstrip()
        yield Case("gate.threshold", name_of(t), results.get(t.result, unsure), why)
    yield from _checks(verdict)


def _checks(verdict: Verdict) -> Iterator[Case]:
    """One case a check: the worst that it was in any run; and what concerns several runs."""
    outcomes: dict[str, CaseOutcome] = {"ok": "", "noted": "", "unchecked": "skipped", "fail": "error"}
    ranks = list(outcomes)
    worst: dict[str, tuple[str, str]] = {}
    for run, name, status, why in verdict.checks:
        if name not in worst or ranks.index(status) > ranks.index(worst[name][0]):
            worst[name] = status, f"{run}: {why}"
    for name, (status, why) in worst.items():
        yield Case("gate.validity", name, outcomes[status], why)
    for obstacle in verdict.obstacles:
        if obstacle.check not in worst:
            yield Case("gate.validity", obstacle.check, "error", f"{obstacle.says}. {obstacle.remedy}")
