"""JUnit XML: one case per validity check and per objective, so that a CI system shows them.

A failed check is an error (nothing can be said), a broken objective a failure, "can't tell" a failure too
unless the caller's policy says otherwise; a check that could not be made is skipped, with its reason.
"""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET


def junit(_run_dir: Path, summary: dict[str, Any]) -> str:
    """The document, for one run."""
    suite = ET.Element("testsuite", name=f"tailgate {summary['run']}")
    counts = {"failure": 0, "error": 0, "skipped": 0}
    cases = [_check(check) for check in summary["checks"]] + [_objective(one) for one in _objectives(summary)]
    if not _objectives(summary):
        result = "failure" if summary["verdict"] == "FAIL" else ""
        cases.append(("run", "anything ended ok", result, summary["why"]))
    for group, name, result, why in cases:
        case = ET.SubElement(suite, "testcase", classname=f"tailgate.{group}", name=clean(name))
        if result:
            counts[result] += 1
            ET.SubElement(case, result, message=clean(why)).text = clean(why)
    suite.set("tests", str(len(cases)))
    suite.set("failures", str(counts["failure"]))
    suite.set("errors", str(counts["error"]))
    suite.set("skipped", str(counts["skipped"]))
    ET.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"


def _objectives(summary: dict[str, Any]) -> list[dict[str, Any]]:
    return list(summary["slo"].get("thresholds", [])) if summary["slo"] else []


def _check(check: dict[str, Any]) -> tuple[str, str, str, str]:
    result = {"ok": "", "fail": "error", "unchecked": "skipped"}[check["status"]]
    return "validity", check["name"], result, f"{check['why']}. {check['remedy']}"


def _objective(one: dict[str, Any]) -> tuple[str, str, str, str]:
    found = f"found {one['value']}, 95 % bounds {one['lower_bound']} to {one['upper_bound']} {one['unit']}"
    return "objective", one["objective"], "" if one["result"] == "met" else "failure", f"{one['result']}: {found}"


def clean(value: str) -> str:
    """Without the control characters that XML 1.0 has no way to write."""
    return "".join(c for c in value if c in "\t\n\r" or 0x20 <= ord(c) <= 0xD7FF or ord(c) >= 0xE000)
