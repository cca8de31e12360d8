"""A verdict as JUnit XML: one case per metric, threshold and validity check.

What can't be judged since the measuring failed is an error; what is worse is a failure; what can't be told is a
failure or skipped, as the policy says.
"""

from collections.abc import Iterator
from xml.etree import ElementTree as ET

from tailgate.reports.documents.run_junit import clean
from tailgate.reports.verdicts.gate.result import Verdict
from tailgate.reports.verdicts.gate.wording import interval, limit, name_of, threshold_figures

Case = tuple[str, str, str, str]  # group, name, result (empty, failure, error, skipped), why


def junit(found: Verdict) -> str:
    """The document."""
    suite = ET.Element("testsuite", name=f"tailgate gate {clean(found.name)}")
    counts = {"failure": 0, "error": 0, "skipped": 0}
    cases = [*_verdict(found), *_metrics(found), *_thresholds(found), *_checks(found)]
    for group, name, result, why in cases:
        case = ET.SubElement(suite, "testcase", classname=f"tailgate.gate.{group}", name=clean(name))
        if result:
            counts[result] += 1
            ET.SubElement(case, result, message=clean(why)).text = clean(why)
    suite.set("tests", str(len(cases)))
    for name, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(attribute, str(counts[name]))
    if found.spent is not None:
        suite.set("time", f"{found.spent.seconds:.1f}")
    ET.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"


def _unsure(found: Verdict) -> str:
    return "skipped" if found.inconclusive == "neutral" else "failure"


def _verdict(found: Verdict) -> Iterator[Case]:
    result = {"PASS": "", "FAIL": "failure", "INCONCLUSIVE": _unsure(found), "INVALID": "error"}[found.verdict]
    yield "verdict", found.name, result, f"{found.verdict}: {found.why}"
    if found.errors is not None:
        yield (
            "errors",
            "the candidate does not err more",
            "failure" * (found.errors.outcome == "fail"),
            found.errors.says,
        )


def _metrics(found: Verdict) -> Iterator[Case]:
    for one in found.metrics:
        result = {"pass": "", "fail": "failure", "withheld": "skipped"}.get(one.result, _unsure(found))
        why = f"{one.result}: {interval(one)}, margin {limit(one)}. {one.why}"
        yield "metric", name_of(one), result, why.rstrip()


def _thresholds(found: Verdict) -> Iterator[Case]:
    for one in found.thresholds:
        result = {"met": "", "broken": "failure"}.get(one.result, _unsure(found))
        yield "threshold", name_of(one), result, f"{one.result}: {threshold_figures(one)}. {one.why}".rstrip()


def _checks(found: Verdict) -> Iterator[Case]:
    """One case a check: the worst that it was in any run; and what concerns several runs."""
    worst = {"fail": 2, "unchecked": 1, "ok": 0}
    by_name: dict[str, tuple[str, str]] = {}
    for run, name, status, why in found.checks:
        if name not in by_name or worst[status] > worst[by_name[name][0]]:
            by_name[name] = status, f"{run}: {why}"
    for name, (status, why) in by_name.items():
        yield "validity", name, {"ok": "", "fail": "error", "unchecked": "skipped"}[status], why
    for one in found.obstacles:
        if one.check not in by_name:
            yield "validity", one.check, "error", f"{one.says}. {one.remedy}"
