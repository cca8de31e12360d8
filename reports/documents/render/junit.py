"""JUnit XML, so that a CI system shows what was judged: a case is passed, failed, in error, or was skipped."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree as ET

CaseOutcome = Literal["", "failure", "error", "skipped"]


@dataclass(frozen=True)
class Case:
    """What was judged; `outcome` is empty where it passed, and `why` is said where it did not."""

    group: str
    name: str
    outcome: CaseOutcome
    why: str


def junit(name: str, cases: Sequence[Case], seconds: float | None = None) -> str:
    suite = ET.Element("testsuite", name=_clean(name), tests=str(len(cases)))
    for outcome, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(case.outcome == outcome for case in cases)))
    if seconds is not None:
        suite.set("time", f"{seconds:.1f}")
    for case in cases:
        element = ET.SubElement(suite, "testcase", classname=f"tailgate.{case.group}", name=_clean(case.name))
        if case.outcome:
            ET.SubElement(element, case.outcome, message=_clean(case.why)).text = _clean(case.why)
    ET.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"


def _clean(value: str) -> str:
    # XML 1.0 has no way to write the other control characters.
    return "".join(c for c in value if c in "\t\n\r" or 0x20 <= ord(c) <= 0xD7FF or ord(c) >= 0xE000)
