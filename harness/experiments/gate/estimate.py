"""What a gate will take, before anything is started: its runs in their order, and whether the budget has them."""

from collections.abc import Iterator
from itertools import product
from typing import Final

from tailgate.harness.experiments.core.estimate import (
    CampaignEstimate,
    Deployment,
    PlannedRun,
    estimate_runs,
    overrun,
    run_seconds,
)
from tailgate.harness.experiments.gate.run_specs import Experiment
from tailgate.reports.verdicts.gate.policy import Policy
from tailgate.reports.verdicts.gate.runs import SIDES, Side
from tailgate.workloads.common.errors import UserError

# A share's rate comes from a run at the saturated point, which isn't judged.
CALIBRATION: Final = 0


def deployments(experiment: Experiment) -> dict[str, Deployment]:
    """The two sides, as their costs go: with `restart: never` their servers stay up all the time."""
    return {side: Deployment(experiment.sample(side), experiment.policy.restart == "never") for side in SIDES}


def order_of(pair: int) -> tuple[Side, Side]:
    """AB, BA, AB, ...: pair 1 begins with the baseline."""
    return SIDES if pair % 2 else (SIDES[1], SIDES[0])


def launch_of(restart: str, side: Side, pair: int) -> str | None:
    """Which launch of a side a run shares; None: it has one of its own.

    With `restart: block` neighbouring runs of one side share it, over the end of a pair: A | B B | A A | B.
    """
    if restart == "each":
        return None
    if restart == "never":
        return "all"
    pair = max(pair, 1)  # what finds the rates is followed by the baseline's first run
    return str(pair - 1 if side == order_of(pair)[0] else pair)


def planned_runs(experiment: Experiment, pairs: int) -> Iterator[PlannedRun]:
    """The runs of so many pairs in their order; pair 0 is the run that finds the shares' rates."""
    policy = experiment.policy
    each = {(side, point): _run_seconds(experiment, side, point) for side, point in product(SIDES, experiment.points)}

    def planned(side: Side, point: str, pair: int) -> PlannedRun:
        label, launch = f"pair {pair}  {side:<9}  {point}", launch_of(policy.restart, side, pair)
        return PlannedRun(label, side, launch, *each[side, point])

    if any(point.share is not None for point in policy.points.values()):
        yield planned("baseline", str(policy.saturated), CALIBRATION)
    for pair in range(1, pairs + 1):
        for side in order_of(pair):
            for point in experiment.points:
                yield planned(side, point, pair)


def estimate(experiment: Experiment) -> tuple[CampaignEstimate, CampaignEstimate | None]:
    """What the declared pairs take, and what they take with the extension; None without one."""
    policy, sides = experiment.policy, deployments(experiment)
    declared = estimate_runs(tuple(planned_runs(experiment, policy.pairs)), sides)
    if policy.extended is None:
        return declared, None
    return declared, estimate_runs(tuple(planned_runs(experiment, policy.extended)), sides)


def _run_seconds(experiment: Experiment, side: Side, point: str) -> tuple[float, bool]:
    policy = experiment.policy
    runs_a_side = {"each": 1, "block": 2 * len(experiment.points), "never": policy.pairs * len(experiment.points)}
    return run_seconds(
        experiment.sample(side, point), policy.launch, runs_a_side[policy.restart],
        rate_known=not experiment.rate_unknown(point),
    )  # fmt: skip


def require_budget(policy: Policy, declared: CampaignEstimate, extended: CampaignEstimate | None) -> bool:
    """Whether the extension fits into the budget too; declared pairs that don't are refused."""
    if policy.budget.dollars is not None and declared.dollars is None:
        raise UserError(
            "a budget in dollars needs a price", where="policy: budget",
            remedy="Give gpus: {type: ...} or {price_per_hour: ...} in `spec` or on both sides.",
        )  # fmt: skip
    if (over := overrun(policy.budget, declared)) is not None:
        fit = int(policy.pairs * over.share)
        what = f"{fit} pairs of this length fit" if fit >= 3 else "not even 3 pairs of this length fit"
        raise UserError(
            f"{policy.pairs} pairs take about {over.needed}, the budget is {over.budget}: {what}",
            where="policy: budget",
            remedy=f"Raise it, declare fewer pairs, or make each run {100 * (1 - over.share):.0f} % shorter.",
        )
    return extended is not None and overrun(policy.budget, extended) is None
