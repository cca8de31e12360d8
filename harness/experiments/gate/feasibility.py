"""Can the planned runs have what the policy judges? Refused before anything is started, or after the first run."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from yarl import URL

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.experiments.core.estimate import price_per_hour
from tailgate.harness.experiments.gate.run_specs import Experiment
from tailgate.loadgen.loopback import is_loopback
from tailgate.reports.compare.runs import StoredRun
from tailgate.reports.metrics import slo as slo_grammar
from tailgate.reports.stats.order_statistics import floor
from tailgate.reports.verdicts.gate.metrics import GateMetric, require_figure, require_load
from tailgate.reports.verdicts.gate.policy import WHOLE, Policy
from tailgate.reports.verdicts.gate.runs import SIDES
from tailgate.reports.verdicts.gate.thresholds import applies
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.plan.plan import closed_rows, make_plan

_FIRST_REQUESTS: Final = 4096


@dataclass(frozen=True)
class _Percentile:
    """One percentile that has to be there: at which point, of what, and where the policy asks for it."""

    point: str
    text: str
    q: float
    where: str


def require_decidable(experiment: Experiment) -> None:
    """Refuse runs that can't have what the policy judges: enough requests, a load that tells, a price, an SLO."""
    for metric in experiment.policy.gate_metrics:
        if not metric.latency:
            _require_load(experiment, metric)
            for side in SIDES:
                if lack := _lacks(metric, experiment.sample(side)):
                    what, remedy = lack
                    raise UserError(
                        f"metrics.{metric.key} needs {what}, and the {side} has none", where="policy", remedy=remedy
                    )
    sizes: dict[str, int | None] = {}
    for percentile in _percentiles(experiment.policy):
        point = percentile.point
        if point not in sizes:
            sizes[point] = planned_requests(experiment, point)
        planned, needs = sizes[point], floor(percentile.q)
        if planned is not None and planned < needs:
            raise UserError(
                f"{percentile.text} needs at least {needs:,} requests a run, and a run has {planned:,}"
                f"{'' if point == WHOLE else f' at the point {point}'}: it could never pass",
                where=f"policy: {percentile.where}",
                remedy=f"Make the runs {needs / max(planned, 1):.1f} times as long, or take a lower percentile.",
            )


def require_figures(run: StoredRun, policy: Policy) -> None:
    """Refuse to go on where a run that went well lacks a figure that is judged at its point: none of its kind will
    have it.
    """
    if run.target_died or run.refused_all or run.summary.failed_checks:
        return
    for point, metric in policy.tests():
        if point == run.point:
            require_figure(metric, run)


def planned_requests(experiment: Experiment, point: str) -> int | None:
    """Requests of the measure phase of the first pair's plan; None where only the run can tell."""
    if experiment.rate_unknown(point):
        return None
    workload = experiment.spec("baseline", point, 1).workload
    if workload.loop == "closed":
        return workload.requests
    plan = make_plan(workload, experiment.policy.seed + 1)
    return int(np.count_nonzero(plan.table["phase"].to_numpy(zero_copy_only=False) == "measure"))


def _percentiles(policy: Policy) -> Iterator[_Percentile]:
    for point, metric in policy.tests():
        if metric.percentile is not None:
            yield _Percentile(point, metric.key, metric.percentile, f"metrics.{metric.key}")
    for threshold in policy.limits.thresholds:
        # Gaps between tokens are many times the requests.
        if threshold.percentile is not None and threshold.metric != "itl":
            for point in [*policy.points] or [WHOLE]:
                if applies(threshold, point, policy):
                    yield _Percentile(point, threshold.text, threshold.percentile, f"thresholds.{threshold.metric}")


def _require_load(experiment: Experiment, metric: GateMetric) -> None:
    """Whether what is carried is up to the target where it is judged: users who wait, and do nothing else."""
    where = f"policy: metrics.{metric.key}"
    saturated = [name for name, point in experiment.policy.points.items() if point.saturated]
    if experiment.policy.points and not saturated:
        raise require_load(metric, where)
    for point in saturated or [WHOLE]:
        spec = experiment.sample("baseline", point)
        if spec.workload.loop != "closed":
            raise require_load(metric, where)
        if pause := _mean_pause_s(spec):
            raise UserError(
                f"load-limited: the users pause between requests, {pause:.2g} s on average, so that {metric.key} can't"
                " tell a slower target",
                where=where,
                remedy="Add a saturated point (points: {saturated: closed 256}), where think times are left out."
                if point == WHOLE
                else "A trace's own pauses can't be left out: gate it by a workload with `sessions`, or without them.",
            )


def _mean_pause_s(spec: RunSpec) -> float:
    """Between a user's requests, by the first of them; a locustfile's waits are seen only when it runs."""
    if spec.workload.locustfile is not None:
        return 0.0
    return float(closed_rows(spec.workload, spec.seed, 0, _FIRST_REQUESTS)["think_ns"].to_numpy().mean()) / 1e9


def _lacks(metric: GateMetric, spec: RunSpec) -> tuple[str, str] | None:
    """What a figure needs and a side hasn't, and what to do about it."""
    if metric.key.startswith("cost") and price_per_hour(spec) is None:
        return "a price", "Give gpus: {type: h100-sxm} or {price_per_hour: 2.49}."
    if metric.key == "goodput" and not _says_good(spec):
        return "an SLO that says what a good request is", "Give e.g. slo: {good: ttft < 800ms and tpot < 60ms}."
    if metric.key.startswith("energy") and (why := _no_gpus(spec)):
        return f"GPU telemetry ({why})", "Name the GPUs (telemetry: {gpu: nvml} or {gpu: 'dcgm:URL'})."
    return None


def _says_good(spec: RunSpec) -> bool:
    slos = [slo_grammar.parse(spec.slo), *(slo_grammar.parse(kind.slo) for kind in spec.workload.classes.values())]
    return any(slo.good for slo in slos)


def _no_gpus(spec: RunSpec) -> str:
    """Why no GPU will be watched; empty if one may be (the first run tells)."""
    if spec.telemetry.gpu == "none":
        return "it is switched off"
    elsewhere = spec.target.kind == "url" and not is_loopback(URL(spec.target.all_urls[0]).host or "")
    if spec.telemetry.gpu == "auto" and elsewhere:
        return "the target runs elsewhere"
    return ""
