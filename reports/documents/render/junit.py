"""JUnit XML, so that a CI system shows what was judged: a case is passed, failed, in error, or was skipped."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree as ET

from tailgate.reports.documents.render.text import shown

CaseOutcome = Literal["", "failure", "error", "skipped"]


@dataclass(frozen=True)
class Case:
    """What was judged; `outcome` is empty where it passed, and `why` is said where it did not."""

    group: str
    name: str
    outcome: CaseOutcome
    why: str


def junit(name: str, cases: Sequence[Case], seconds: float | None = None) -> str:
    suite = ET.Element("testsuite", name=shown(name), tests=str(len(cases)))
    for outcome, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(case.outcome == outcome for case in cases)))
    if seconds is not None:
        suite.set("time", f"{seconds:.1f}")
    for case in cases:
        element = ET.SubElement(suite, "testcase", classname=f"tailgate.{case.group}", name=shown(case.name))
        if case.outcome:
            ET.SubElement(element, case.outcome, message=shown(case.why)).text = shown(case.why)
    ET.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"
