"""A verdict's cases for JUnit: one a metric, threshold and validity check.

What can't be judged since the measuring failed is an error; what is worse is a failure; what can't be told is a
failure or skipped, as the policy says.
"""

from collections.abc import Iterator

from tailgate.reports.documents.render.junit import Case, CaseOutcome
from tailgate.reports.verdicts.gate.result import Verdict
from tailgate.reports.verdicts.gate.wording import interval, limit, name_of, threshold_figures


def cases(verdict: Verdict) -> Iterator[Case]:
    """The verdict itself, then what it rests on."""
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
    outcomes: dict[str, CaseOutcome] = {"ok": "", "unchecked": "skipped", "fail": "error"}
    ranks = list(outcomes)
    worst: dict[str, tuple[str, str]] = {}
    for run, name, status, why in verdict.checks:
        if name not in worst or ranks.index(status) > ranks.index(worst[name][0]):
            worst[name] = status, f"{run}: {why}"
    for name, (status, why) in worst.items():
        yield Case("gate.validity", name, outcomes[status], why)
    for one in verdict.obstacles:
        if one.check not in worst:
            yield Case("gate.validity", one.check, "error", f"{one.says}. {one.remedy}")
