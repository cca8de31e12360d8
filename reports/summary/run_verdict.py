"""The verdict of one run, its exit code, and one sentence why. Validity comes before any result."""

from collections.abc import Sequence
from dataclasses import dataclass

from tailgate.reports.metrics.catalogue import METRICS
from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.summary.model import EXIT_CODES, Errors, LoadSummary, Outcome
from tailgate.reports.summary.objective_model import Judgement
from tailgate.reports.summary.objectives import Judged
from tailgate.reports.validity.cause import cause
from tailgate.reports.validity.client import Check


@dataclass(frozen=True)
class RunVerdict:
    """As it stands in a summary."""

    verdict: Outcome
    why: str
    by_hand: bool = False  # a person interrupted the run

    @property
    def exit_code(self) -> int:
        return 130 if self.by_hand else EXIT_CODES[self.verdict]


def run_verdict(
    manifest: Manifest, failed: Sequence[Check], load: LoadSummary, errors: Errors, judged: Sequence[Judged]
) -> RunVerdict:
    """What a run's end, its failed checks, its requests and its objectives come to."""
    if failed:
        by_hand = manifest.state == "interrupted" and not manifest.recovered
        found = cause(failed)
        return RunVerdict("INVALID", f"{found.happened} {found.remedy}".rstrip(), by_hand)
    by_budget = manifest.state == "aborted" and manifest.aborted_by == "spend"
    if manifest.state == "aborted" and not by_budget:
        why = manifest.state_reason or "a condition of abort_if held"
        return RunVerdict("FAIL", f"The run was aborted: {why}.")
    if not load.requests["ok"] and (errors.failed or not by_budget):
        return RunVerdict("FAIL", "No request of the measure phase ended ok.")
    broken = [j for j in judged if j.result is Judgement.BROKEN]
    unsure = [j for j in judged if j.result is Judgement.UNDECIDED]
    if broken:
        return RunVerdict("FAIL", f"Broken: {_listed(broken)}.")
    if by_budget:
        return RunVerdict("INCONCLUSIVE", f"The budget ended the run before its time: {manifest.state_reason}.")
    if unsure:
        return RunVerdict("INCONCLUSIVE", f"Can't tell: {_listed(unsure)}.")
    return RunVerdict("PASS", _all_met(judged) if judged else "Measured; no objective was given (--slo).")


def _all_met(judged: Sequence[Judged]) -> str:
    unbounded = [j for j in judged if j.as_measured]
    if not unbounded:
        return "Every objective is met with 95 % confidence."
    rest = "the others with 95 % confidence, " if len(unbounded) < len(judged) else ""
    return f"Every objective is met: {rest}as measured and without a bound {_listed(unbounded)}."


def _listed(judged: Sequence[Judged]) -> str:
    return "; ".join(map(_in_words, judged))


def _in_words(judged: Judged) -> str:
    metric = METRICS[judged.threshold.metric]
    figures = ", ".join(
        f"{name} {value * metric.scale:.4g} {metric.unit}"
        for name, value in (("found", judged.value), ("at least", judged.below), ("at most", judged.above))
        if value is not None
    )
    why = "" if judged.as_measured and judged.result is Judgement.MET else judged.why
    details = ", ".join(part for part in (figures, judged.counts, why) if part)
    return f"{judged.scope + ': ' if judged.scope else ''}{judged.threshold.text} ({details})"
