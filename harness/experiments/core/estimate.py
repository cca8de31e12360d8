"""What a campaign takes: launches, minutes and dollars, before anything is started, and dollars once they are spent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.run.prepare import warms_up
from tailgate.reports.cost.prices import price_of
from tailgate.reports.verdicts.budget import Budget
from tailgate.workloads.plan.plan import make_plan

# Until a launch has been timed, or the user says how long it takes.
_LAUNCH_S: Final = {"vllm": 120.0, "command": 60.0, "sim": 1.5, "url": 0.0}
_AROUND_S: Final = 4.0  # plan, processes, drain of short answers, documents
# What `harness.run.warmup` takes of a server that is steady from the first rounds on; one that isn't takes up to 180 s.
_SETTLE_S: Final = 10.0


@dataclass(frozen=True)
class Deployment:
    """One of the deployments that a campaign measures, as its costs go."""

    spec: RunSpec  # of any of its runs: where it is, and what its GPUs cost
    stays: bool = False  # it costs all the time, not only while its runs are made

    @property
    def launched(self) -> bool:
        return self.spec.target.kind != "url"


@dataclass(frozen=True)
class PlannedRun:
    """One run that is still to be made."""

    label: str  # for people
    deployment: str
    launch: str | None  # which server it shares (`campaign.RunRequest`); None: one of its own
    seconds: float  # its part of a launch included
    open_end: bool  # it ends by a number of requests, which take nobody knows how long; `seconds` are without them


@dataclass(frozen=True)
class CampaignEstimate:
    """What planned runs take: `dollars` is None without a price, `launches` counts the servers started."""

    runs: tuple[PlannedRun, ...]
    seconds: float
    dollars: float | None
    launches: int

    @property
    def open_end(self) -> bool:
        """Whether some runs take longer than is known: the figures are the least it takes."""
        return any(run.open_end for run in self.runs)


@dataclass(frozen=True)
class Overrun:
    """A budget that is too small: what is needed, what there is, and the share of the runs that fits."""

    needed: str
    budget: str
    share: float


def estimate_runs(runs: Sequence[PlannedRun], deployments: Mapping[str, Deployment]) -> CampaignEstimate:
    seconds = {name: sum(run.seconds for run in runs if run.deployment == name) for name in deployments}
    whole = sum(seconds.values())
    launched = [run for run in runs if deployments[run.deployment].launched]
    shared = {(run.deployment, run.launch) for run in launched if run.launch is not None}
    launches = len(shared) + sum(run.launch is None for run in launched)
    return CampaignEstimate(tuple(runs), whole, dollars(deployments, seconds, whole), launches)


def run_seconds(
    spec: RunSpec, launch_s: float | None = None, runs_a_launch: int = 1, *, rate_known: bool = True
) -> tuple[float, bool]:
    """How long one run will take, its part of a launch included; whether its requests take nobody knows how long.

    `launch_s`: of a launch that `runs_a_launch` share, where it is known; `rate_known`: the spec's rate is final.
    """
    launch = _LAUNCH_S[spec.target.kind] if launch_s is None or spec.target.kind == "url" else launch_s
    measured = _measured_s(spec, rate_known)
    settling = _SETTLE_S if warms_up(spec) else 0.0
    seconds = launch / runs_a_launch + settling + spec.workload.warmup + (measured or 0.0) + _AROUND_S
    return seconds, measured is None


def _measured_s(spec: RunSpec, rate_known: bool) -> float | None:
    """Of the measured part; None where requests end it and their rate is the target's to say, or not known yet."""
    workload = spec.workload
    if (length := workload.measured_s()) is not None:
        return length
    if workload.loop == "closed" or not rate_known:
        return None
    return make_plan(workload, spec.seed).span_s - workload.warmup


def price_per_hour(spec: RunSpec) -> float | None:
    """Dollars per hour of a whole deployment; None without a price."""
    price = price_of(spec.gpus.model_dump())
    return None if price is None else price.usd_per_gpu_hour * spec.gpus.count


def dollars(deployments: Mapping[str, Deployment], seconds: Mapping[str, float], whole_s: float) -> float | None:
    """What all deployments cost in `whole_s`, of which each had `seconds` of runs; those at the same URLs are one.

    None unless each has a price, since a part of a sum is none.
    """
    bill, billed = 0.0, set[tuple[str, ...]]()
    for name, deployment in deployments.items():
        price, target = price_per_hour(deployment.spec), deployment.spec.target
        if price is None:
            return None
        if target.kind == "url":
            if target.all_urls in billed:
                continue
            billed.add(target.all_urls)
        bill += price / 3600 * (whole_s if deployment.stays or not deployment.launched else seconds[name])
    return bill


def overrun(budget: Budget, estimate: CampaignEstimate) -> Overrun | None:
    """Whether runs take more than the budget has; None if they fit."""
    for limit, needed, scale, text in (
        (budget.seconds, estimate.seconds, 60, "{:.1f} min"), (budget.dollars, estimate.dollars, 1, "${:.2f}"),
    ):  # fmt: skip
        if limit is not None and needed is not None and needed > limit:
            return Overrun(text.format(needed / scale), text.format(limit / scale), limit / needed)
    return None
