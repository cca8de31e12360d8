"""What a gate will take, before anything is started: launches, minutes, dollars; and whether it can decide at all."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from harness.gate.sides import Experiment
from harness.spec import RunSpec
from reports.gate_metrics import require_load
from reports.gate_policy import WHOLE
from reports.gate_runs import SIDES, Side
from reports.prices import price_of
from reports.stats import floor
from workloads.errors import UserError
from workloads.plan import make_plan

# Until a launch has been timed; `launch:` of a policy says better.
_LAUNCH_S: Final = {"vllm": 120.0, "command": 60.0, "sim": 1.5, "url": 0.0}
_AROUND_S: Final = 4.0  # plan, processes, drain of short answers, documents
# A share's rate comes from a run at the saturated point, which isn't judged.
CALIBRATION: Final = 0


@dataclass(frozen=True)
class Step:
    """One planned run: `order` counts from 1; pair 0 is the run that finds the shares' rates."""

    order: int
    pair: int
    side: Side
    point: str
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """What a gate will take.

    Attributes:
        steps: every run up to the declared pairs.
        seconds, dollars: of them; dollars None without a price.
        seconds_extended, dollars_extended: with the extension.
        launches: servers started.
    """

    steps: tuple[Step, ...]
    seconds: float
    dollars: float | None
    seconds_extended: float | None
    dollars_extended: float | None
    launches: int


def order_of(pair: int) -> tuple[Side, Side]:
    """AB, BA, AB, ...: pair 1 begins with the baseline."""
    return SIDES if pair % 2 else (SIDES[1], SIDES[0])


def steps(found: Experiment, pairs: int, extended: bool = False) -> Iterator[Step]:
    """The runs in their order."""
    order = 0
    if not extended and any(point.share is not None for point in found.policy.points.values()):
        order, saturated = 1, str(found.policy.saturated)
        yield Step(1, CALIBRATION, "baseline", saturated, run_seconds(found, "baseline", saturated))
    first = found.policy.pairs + 1 if extended else 1
    for pair in range(first, pairs + 1):
        for side in order_of(pair):
            for point in found.points:
                order += 1
                yield Step(order, pair, side, point, run_seconds(found, side, point))


def estimate(found: Experiment) -> Estimate:
    """Minutes and dollars of the declared pairs, and with the extension."""
    policy = found.policy
    planned = tuple(steps(found, policy.pairs))
    prices = {side: price_per_hour(found.sample(side)) for side in SIDES}
    seconds, dollars = _bill(planned, prices, policy.restart)
    more: tuple[float | None, float | None] = (None, None)
    if policy.extended is not None:
        further = tuple(steps(found, policy.extended, extended=True))
        more = _bill((*planned, *further), prices, policy.restart)
    return Estimate(planned, seconds, dollars, *more, launches=_launches(planned, policy.restart, found))


def price_per_hour(spec: RunSpec) -> float | None:
    """Dollars per hour of a whole deployment; None without a price."""
    price = price_of(spec.gpus.model_dump())
    return None if price is None else price.usd_per_gpu_hour * spec.gpus.count


def run_seconds(found: Experiment, side: Side, point: str) -> float:
    """How long one run will take, its launch included."""
    spec = found.sample(side, point)
    workload = spec.workload
    length = workload.measured_s()
    if length is None:
        rate = workload.arrivals.mean_rate() if workload.arrivals else None
        # A closed loop's requests take as long as they take: half a second each is a guess.
        length = (workload.requests or 0) / (rate or 2.0 * max(workload.most_users, 1))
    launch = _LAUNCH_S[spec.target.kind]
    if found.policy.launch is not None and spec.target.kind != "url":
        launch = found.policy.launch
    if found.policy.restart != "each":
        launch /= len(found.points) * (2 if found.policy.restart == "block" else found.policy.pairs)
    return launch + workload.warmup + length + _AROUND_S


def _bill(planned: tuple[Step, ...], prices: dict[Side, float | None], restart: str) -> tuple[float, float | None]:
    seconds = sum(step.seconds for step in planned)
    if any(price is None for price in prices.values()):
        return seconds, None
    if restart == "never":  # both are up all the time
        return seconds, seconds / 3600 * sum(price or 0.0 for price in prices.values())
    return seconds, sum(step.seconds / 3600 * (prices[step.side] or 0.0) for step in planned)


def _launches(planned: tuple[Step, ...], restart: str, found: Experiment) -> int:
    ours = {side for side in SIDES if found.sample(side).target.kind != "url"}
    mine = [step for step in planned if step.side in ours]
    if restart == "each":
        return len(mine)
    if restart == "never":
        return len(ours)
    turns = [step.side for step in planned]
    return sum(side in ours and (place == 0 or turns[place - 1] != side) for place, side in enumerate(turns))


def require_budget(found: Experiment, costs: Estimate) -> bool:
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


def require_decidable(found: Experiment) -> None:
    """Whether the planned runs can have what the policy judges: enough requests, a load that tells.

    Raises:
        UserError: with how many requests are needed, or which point is missing.
    """
    policy = found.policy
    sizes: dict[str, int | None] = {}
    for metric in policy.gate_metrics:
        if not metric.latency and not _saturated(found):
            raise require_load(metric, f"policy: metrics.{metric.key}")
        if metric.key.startswith("cost"):
            for side in SIDES:
                if price_per_hour(found.sample(side)) is None:
                    raise UserError(
                        f"metrics.{metric.key} needs a price, and the {side} has none", where="policy",
                        remedy="Give gpus: {type: h100-sxm} or {price_per_hour: 2.49}.",
                    )  # fmt: skip
    for point, metric in policy.tests():
        if metric.percentile is None:
            continue
        if point not in sizes:
            sizes[point] = planned_requests(found, point)
        planned, needs = sizes[point], floor(metric.percentile)
        if planned is not None and planned < needs:
            raise UserError(
                f"{metric.key} needs at least {needs:,} requests a run, and a run has {planned:,}"
                f"{'' if point == WHOLE else f' at the point {point}'}: it could never pass",
                where=f"policy: metrics.{metric.key}",
                remedy=f"Make the runs {needs / max(planned, 1):.1f} times as long, or gate a lower percentile.",
            )


def _saturated(found: Experiment) -> bool:
    if found.policy.points:
        return found.policy.saturated is not None
    return all(found.spec(side, WHOLE, 1).workload.loop == "closed" for side in SIDES)


def planned_requests(found: Experiment, point: str) -> int | None:
    """Requests of the measure phase of the first pair's plan; None where only the run can tell."""
    if found.share(point) is not None and point not in found.rates:
        return None
    workload = found.spec("baseline", point, 1).workload
    if workload.loop == "closed":
        return workload.requests
    plan = make_plan(workload, found.policy.seed + 1)
    return int(np.count_nonzero(plan.table["phase"].to_numpy(zero_copy_only=False) == "measure"))
