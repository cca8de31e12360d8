"""The verdict of a gate: PASS, FAIL, INCONCLUSIVE or INVALID, with every number that led to it.

`judge` is a pure function of files on disk, so that any verdict can be worked out again later:

    can the runs be compared?        reports.verdicts.gate.comparability     no: INVALID, whatever the figures say
    did the candidate work at all?   died, refused, erred more: FAIL, latencies withheld
    is it slower?                    reports.verdicts.gate.comparison      every metric, one decision
    does it keep its limits?         reports.verdicts.gate.thresholds
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from tailgate.reports.compare.runs import StoredRun
from tailgate.reports.stats.sequential_design import Design
from tailgate.reports.summary.model import Outcome
from tailgate.reports.verdicts.gate.causes import Cause, causes
from tailgate.reports.verdicts.gate.comparability import Obstacle, declared_differences, obstacles
from tailgate.reports.verdicts.gate.comparison import blank_verdict, compare, has_trend, holm
from tailgate.reports.verdicts.gate.error_rule import error_rule
from tailgate.reports.verdicts.gate.policy import WHOLE, Policy
from tailgate.reports.verdicts.gate.result import Verdict
from tailgate.reports.verdicts.gate.runs import SIDES, GateRecord, sides_of
from tailgate.reports.verdicts.gate.thresholds import judge_thresholds
from tailgate.reports.verdicts.gate.wording import advice_of, why_of
from tailgate.workloads.common.errors import UserError


def judge(runs: Sequence[StoredRun], policy: Policy, campaign: GateRecord | None = None) -> Verdict:
    """Judge the runs of a gate, or stored ones, by a policy.

    Args:
        runs: of both sides (paired where their `pair` is not None); of one side only thresholds are judged.
        policy: what decides.
        campaign: what the gate that made the runs says of itself; None for stored runs.

    Raises:
        UserError: there is nothing to judge, or the policy asks for what these runs can't have.
    """
    if not runs:
        raise UserError("there are no runs to judge")
    one_sided = len({run.label for run in runs}) == 1 and campaign is None
    if one_sided and not policy.limits.thresholds:
        raise UserError(
            "there is nothing to judge: one side only, and the policy has no thresholds", where="policy",
            remedy="Name --baseline and --candidate, or give `thresholds:`.",
        )  # fmt: skip
    verdict = _frame(runs, policy, campaign)
    if reasons := obstacles(runs, policy):
        return replace(verdict, verdict="INVALID", obstacles=tuple(reasons), **_invalid_words(reasons))
    dead = _dead(runs, campaign)
    if one_sided:
        thresholds = () if dead else tuple(judge_thresholds(runs, policy))
        return _worded(replace(verdict, thresholds=thresholds), dead, policy)
    baseline, candidate = ([run for run in runs if run.label == side] for side in SIDES)
    errors, design = None, _design(runs, policy, campaign)
    if baseline and candidate and not (dead and dead[0] == "baseline"):
        errors = error_rule(baseline, candidate, policy.errors, 1 if design is None else design.looks)
    verdict = replace(verdict, errors=errors, design=design)
    if dead or (errors is not None and errors.outcome == "fail"):
        withheld = [replace(blank_verdict(metric, point), result="withheld") for point, metric in policy.tests()]
        return _worded(replace(verdict, metrics=tuple(withheld)), dead, policy)
    if design is None:
        return _worded(verdict, dead, policy)
    window = policy.window is not None
    comparisons = [
        compare(metric, point, *sides_of(runs, point), design, window=window, fewer_good=policy.fewer_good)
        for point, metric in policy.tests()
    ]
    thresholds = tuple(judge_thresholds(candidate, policy))
    verdict = replace(verdict, metrics=tuple(holm(comparisons, design)), thresholds=thresholds)
    return _worded(replace(verdict, causes=tuple(_causes(verdict, runs))), dead, policy)


def _frame(runs: Sequence[StoredRun], policy: Policy, campaign: GateRecord | None) -> Verdict:
    """What is known before anything is judged."""
    pairs = [{run.pair for run in runs if run.pair is not None and run.label == side} for side in SIDES]
    return Verdict(
        verdict="INVALID",
        why="",
        name=policy.name,
        checks=tuple(_checks(runs)),
        differences=tuple(declared_differences(runs, policy)),
        pairs=len(pairs[0] & pairs[1]),
        runs=len(runs),
        holds_for=_holds_for(runs, campaign),
        notes=tuple(_notes(runs, policy, campaign)),
        baseline=_named_side(runs, "baseline"),
        candidate=_named_side(runs, "candidate"),
        simulated=any(run.summary.simulated for run in runs),
        inconclusive=policy.inconclusive,
        spent=campaign,
        command=() if campaign is None else campaign.command,
    )  # fmt: skip


def _checks(runs: Sequence[StoredRun]) -> Iterator[tuple[str, str, str, str]]:
    for run in runs:
        for check in run.summary.checks:
            yield run.path.name, check.name, check.status, f"{check.why}. {check.remedy}"


def _named_side(runs: Sequence[StoredRun], side: str) -> str:
    targets = [run.manifest.target for run in runs if run.label == side]
    return ", ".join(dict.fromkeys(f"{target.model} {target.version}".strip() for target in targets))


def _holds_for(runs: Sequence[StoredRun], campaign: GateRecord | None) -> str:
    if campaign is None:
        one_sided = len({run.label for run in runs}) == 1
        return "" if one_sided else "stored runs, which were made at different times, on whatever servers ran then"
    if campaign.restart == "never":
        return "these launches only, since the servers were not restarted between runs"
    return ""


def _notes(runs: Sequence[StoredRun], policy: Policy, campaign: GateRecord | None) -> Iterator[str]:
    if campaign is not None:
        yield from campaign.repeated
        yield from campaign.notes
        yield from [campaign.stopped] if campaign.stopped else []
    elif len({run.label for run in runs}) == 2:
        yield "unpaired comparison: its intervals are wider than those of as many interleaved pairs"
        yield from _without_trend(runs, policy)
    unchecked: dict[str, int] = {}
    for run in runs:
        for check in run.summary.checks:
            if check.status == "unchecked":
                unchecked[check.name] = unchecked.get(check.name, 0) + 1
    if unchecked:
        names = [f"{name} (in {'all' if n == len(runs) else f'{n} of {len(runs)}'})" for name, n in unchecked.items()]
        yield f"some checks could not be made in every run: {', '.join(names)}"


def _without_trend(runs: Sequence[StoredRun], policy: Policy) -> Iterator[str]:
    """A window asks for the drift to be taken into account; a few runs don't show any."""
    for point in dict.fromkeys(run.point for run in runs):
        baseline, candidate = sides_of(runs, point)
        if policy.window is not None and not has_trend(baseline, candidate):
            at, runs_in_all = "" if point == WHOLE else f" at {point}", len(baseline) + len(candidate)
            yield (
                f"drift over time is not taken into account{at}, although the policy has a `window`: that takes three"
                f" runs of the baseline at different times and five in all, not {len(baseline)} and {runs_in_all}"
            )


def _design(runs: Sequence[StoredRun], policy: Policy, campaign: GateRecord | None) -> Design | None:
    """The look that these runs are; None if there are fewer pairs than were declared."""
    if runs[0].pair is None:
        for point, side in product(dict.fromkeys(run.point for run in runs), SIDES):
            if (n := sum((run.point, run.label) == (point, side) for run in runs)) < 2:
                at = "" if point == WHOLE else f" at the point {point}"
                raise UserError(
                    f"one run can't tell how much runs differ by themselves ({n} of the {side}{at})", where=f"--{side}",
                    remedy="Give at least two runs a side, better five.",
                )  # fmt: skip
        return Design(len(runs), paired=False)
    pairs = len(
        {run.pair for run in runs if run.label == "baseline"} & {run.pair for run in runs if run.label != "baseline"}
    )
    extended = policy.extended if campaign is None or campaign.extension else None
    if pairs < policy.pairs:
        return None
    if pairs == policy.pairs or extended is None:
        return Design(pairs, extended)
    return Design(policy.pairs, pairs, look=2)


def _dead(runs: Sequence[StoredRun], campaign: GateRecord | None) -> tuple[str, str] | None:
    """(side, what happened) if a side's target died or refused everything; the baseline first."""
    for side in SIDES:
        if campaign is not None and campaign.gone is not None and campaign.gone[0] == side:
            return campaign.gone
        own = [run for run in runs if run.label == side]
        if died := [run for run in own if run.target_died]:
            return side, f"its server was gone in {len(died)} of {len(own)} runs ({died[0].manifest.state_reason})"
        if refused := [run for run in own if run.refused_all]:
            return side, f"no request ended ok in {len(refused)} of {len(own)} runs{_example(refused[0])}"
    return None


def _example(run: StoredRun) -> str:
    kinds = run.summary.errors.kinds
    return f" ({kinds[0].count:,} {kinds[0].status})" if kinds else ""


def _causes(verdict: Verdict, runs: Sequence[StoredRun]) -> list[Cause]:
    """Of the point where it is worst."""
    slower = sorted((m for m in verdict.metrics if m.result == "fail"), key=lambda metric: metric.p or 0.0)
    each = (causes(*sides_of(runs, point)) for point in dict.fromkeys(metric.point for metric in slower))
    return next((there for there in each if there), [])


def _invalid_words(reasons: Sequence[Obstacle]) -> dict[str, Any]:
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    remedies = tuple(dict.fromkeys(reason.remedy for reason in reasons if reason.remedy))
    return {"why": f"{reasons[0].says}{more}.".replace("..", "."), "advice": remedies}


def _worded(verdict: Verdict, dead: tuple[str, str] | None, policy: Policy) -> Verdict:
    outcome, design = _outcome(verdict, dead), verdict.design
    more = design is not None and design.look == 1 and design.extended is not None
    extend = outcome == "INCONCLUSIVE" and more and not dead and _more_helps(verdict)
    verdict = replace(verdict, verdict=outcome, extend=extend)
    return replace(verdict, why=why_of(verdict, dead, policy), advice=tuple(advice_of(verdict, dead)))


def _more_helps(verdict: Verdict) -> bool:
    """Whether further pairs can still decide: something is open, and nothing that they can't settle."""
    metrics = [metric for metric in verdict.metrics if metric.result != "pass"]
    limits = [threshold for threshold in verdict.thresholds if threshold.result == "can't tell"]
    return bool(metrics or limits) and not any(m.remedy for m in metrics) and all(t.open for t in limits)


def _outcome(verdict: Verdict, dead: tuple[str, str] | None) -> Outcome:
    if dead:
        # A baseline that doesn't work says nothing about the candidate.
        return "INCONCLUSIVE" if dead[0] == "baseline" else "FAIL"
    if verdict.errors is not None and verdict.errors.outcome == "fail":
        return "FAIL"
    results = [m.result for m in verdict.metrics] + [t.result for t in verdict.thresholds]
    if "fail" in results or "broken" in results:
        return "FAIL"
    if results and all(result in ("pass", "met") for result in results):
        return "PASS"
    return "INCONCLUSIVE"
