"""What a gate will take, before anything is started: launches, minutes, dollars; and whether the budget has them."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.experiments.gate import costs
from tailgate.harness.experiments.gate.run_specs import Experiment
from tailgate.harness.run.prepare import settles
from tailgate.reports.verdicts.gate.runs import SIDES, Side
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.plan.plan import make_plan

# Until a launch has been timed; `launch:` of a policy says better.
_LAUNCH_S: Final = {"vllm": 120.0, "command": 60.0, "sim": 1.5, "url": 0.0}
_AROUND_S: Final = 4.0  # plan, processes, drain of short answers, documents
# What `harness.run.warmup` takes of a server that is steady from the first rounds on; one that isn't takes up to 180 s.
_SETTLE_S: Final = 10.0
# A share's rate comes from a run at the saturated point, which isn't judged.
CALIBRATION: Final = 0


@dataclass(frozen=True)
class PlannedRun:
    """One planned run: `order` counts from 1; pair 0 is the run that finds the shares' rates.

    `open_end`: it ends by a number of requests, and how long they take isn't known; `seconds` are without them.
    """

    order: int
    pair: int
    side: Side
    point: str
    seconds: float
    open_end: bool = False


@dataclass(frozen=True)
class CampaignEstimate:
    """What a gate will take.

    Attributes:
        steps: every run up to the declared pairs.
        seconds, dollars: of them; dollars None without a price.
        seconds_extended, dollars_extended: with the extension.
        launches: servers started.
    """

    steps: tuple[PlannedRun, ...]
    seconds: float
    dollars: float | None
    seconds_extended: float | None
    dollars_extended: float | None
    launches: int

    @property
    def open_end(self) -> bool:
        """Whether some runs take longer than is known: the figures are the least it takes."""
        return any(step.open_end for step in self.steps)


def order_of(pair: int) -> tuple[Side, Side]:
    """AB, BA, AB, ...: pair 1 begins with the baseline."""
    return SIDES if pair % 2 else (SIDES[1], SIDES[0])


def steps(found: Experiment, pairs: int, extended: bool = False) -> Iterator[PlannedRun]:
    """The runs in their order."""
    order = 0
    known = {(side, point): run_seconds(found, side, point) for side, point in product(SIDES, found.points)}
    if not extended and any(point.share is not None for point in found.policy.points.values()):
        order, saturated = 1, str(found.policy.saturated)
        yield PlannedRun(1, CALIBRATION, "baseline", saturated, *known["baseline", saturated])
    first = found.policy.pairs + 1 if extended else 1
    for pair in range(first, pairs + 1):
        for side in order_of(pair):
            for point in found.points:
                order += 1
                yield PlannedRun(order, pair, side, point, *known[side, point])


def estimate(found: Experiment) -> CampaignEstimate:
    """Minutes and dollars of the declared pairs, and with the extension."""
    policy = found.policy
    planned = tuple(steps(found, policy.pairs))
    seconds, dollars = _bill(planned, found)
    more: tuple[float | None, float | None] = (None, None)
    if policy.extended is not None:
        further = tuple(steps(found, policy.extended, extended=True))
        more = _bill((*planned, *further), found)
    return CampaignEstimate(planned, seconds, dollars, *more, launches=_launches(planned, policy.restart, found))


def run_seconds(found: Experiment, side: Side, point: str) -> tuple[float, bool]:
    """How long one run will take, its launch included; whether its requests take longer by nobody knows how much."""
    spec = found.sample(side, point)
    length = _measured_s(found, spec, point)
    launch = _LAUNCH_S[spec.target.kind]
    if found.policy.launch is not None and spec.target.kind != "url":
        launch = found.policy.launch
    if found.policy.restart != "each":
        launch /= len(found.points) * (2 if found.policy.restart == "block" else found.policy.pairs)
    settling = _SETTLE_S if settles(spec) else 0.0
    return launch + settling + spec.workload.warmup + (length or 0.0) + _AROUND_S, length is None


def _measured_s(found: Experiment, spec: RunSpec, point: str) -> float | None:
    """Of the measured part; None where requests end it and their rate is the target's to say, or not known yet."""
    workload = spec.workload
    if (length := workload.measured_s()) is not None:
        return length
    if workload.loop == "closed" or found.rate_unknown(point):
        return None
    return make_plan(workload, spec.seed).span_s - workload.warmup


def _bill(planned: tuple[PlannedRun, ...], found: Experiment) -> tuple[float, float | None]:
    seconds = {side: sum(step.seconds for step in planned if step.side == side) for side in SIDES}
    whole = sum(seconds.values())
    return whole, costs.dollars(found, seconds, whole)


def _launches(planned: tuple[PlannedRun, ...], restart: str, found: Experiment) -> int:
    ours = {side for side in SIDES if found.sample(side).target.kind != "url"}
    mine = [step for step in planned if step.side in ours]
    if restart == "each":
        return len(mine)
    if restart == "never":
        return len(ours)
    turns = [step.side for step in planned]
    return sum(side in ours and (place == 0 or turns[place - 1] != side) for place, side in enumerate(turns))


def require_budget(found: Experiment, costs: CampaignEstimate) -> bool:
    """Whether the extension fits into the budget too.

    Raises:
        UserError: the declared pairs don't; it says what does.
    """
    budget = found.policy.budget
    if budget.dollars is not None and costs.dollars is None:
        raise UserError(
            "a budget in dollars needs a price", where="policy: budget",
            remedy="Give gpus: {type: ...} or {price_per_hour: ...} in `spec` or on both sides.",
        )  # fmt: skip
    for limit, cost, text in (
        (budget.seconds, costs.seconds, "{:.1f} min"), (budget.dollars, costs.dollars, "${:.2f}"),
    ):  # fmt: skip
        if limit is not None and cost is not None and cost > limit:
            scale = 60 if limit is budget.seconds else 1
            fit = int(found.policy.pairs * limit / cost)
            what = f"{fit} pairs of this length fit" if fit >= 3 else "not even 3 pairs of this length fit"
            shorter = limit / cost
            raise UserError(
                f"{found.policy.pairs} pairs take about {text.format(cost / scale)}, the budget is"
                f" {text.format(limit / scale)}: {what}",
                where="policy: budget",
                remedy=f"Raise it, declare fewer pairs, or make each run {100 * (1 - shorter):.0f} % shorter.",
            )
    over = [
        budget.seconds is not None and costs.seconds_extended is not None and costs.seconds_extended > budget.seconds,
        budget.dollars is not None and costs.dollars_extended is not None and costs.dollars_extended > budget.dollars,
    ]
    return found.policy.extended is not None and not any(over)
