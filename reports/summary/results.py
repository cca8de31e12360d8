"""All that is worked out of one run, in one place: figures, checks, objectives, views, cost, findings.

Documents are made from it; each part's meaning is in its own module.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tailgate.reports.cost.cost import Cost, cost
from tailgate.reports.cost.energy import Energy, energy
from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.breakdown import Fairness, Group, fairness, splits
from tailgate.reports.metrics.in_flight import InFlight, in_flight
from tailgate.reports.metrics.workload_as_sent import Workload, workload_as_sent
from tailgate.reports.rundir.events import Event, read_events
from tailgate.reports.summary.diagnosis import Evidence, Finding, diagnose
from tailgate.reports.summary.objectives import Judged, judge
from tailgate.reports.telemetry.deployment import Lived, Vram, lived, vram
from tailgate.reports.telemetry.gpu import GpuView, gpu_views
from tailgate.reports.telemetry.server import ServerView, server_view
from tailgate.reports.validity.client import Check, client_checks
from tailgate.reports.validity.crash import without_lost
from tailgate.reports.validity.server import server_checks
from tailgate.reports.validity.state import state_checks
from tailgate.workloads.common.errors import UserError

# A simulated step that is late by more than this share of a token gap is worth a word.
_SIMULATED_LATE: Final = 0.1


@dataclass(frozen=True)
class Results:
    """One run, worked out. `notices` say what could not be."""

    analysis: Analysis
    flight: InFlight | None
    checks: list[Check]
    judged: list[Judged]
    splits: dict[str, list[Group]]
    fairness: Fairness | None
    workload: Workload
    server: ServerView | None
    gpus: list[GpuView]
    life: Lived | None
    vram: Vram | None
    cost: Cost | None
    energy: Energy | None
    findings: list[Finding]
    events: list[Event]
    notices: list[str]


# What a run lacks without a file.
_WITHOUT = {
    "arrivals.parquet": "no ITL, stalls or tokens over time",
    "client.parquet": "the injector's own conduct can't be checked",
    "plan.parquet": "no reuse of prefixes is known",
    "server.parquet": "no figures of the server",
    "gpu.parquet": "no figures of GPUs",
    "host.parquet": "no figures of the host",
}


def _is_news(name: str, why: str) -> bool:
    """Telemetry that was never sampled is no news; a damaged file always is."""
    return "missing" not in why or name in ("arrivals.parquet", "client.parquet", "plan.parquet")


def _lacking(analysis: Analysis, groups: dict[str, list[Group]], unreadable: int) -> Iterator[str]:
    """What could not be read, and what stands for more than it shows."""
    run, sample = analysis.run, analysis.scan.sample
    for name, why in run.problems.items():
        if _is_news(name, why):
            yield f"{name} {why}: {_WITHOUT[name]}"
    if run.absent:
        yield f"requests.parquet has no column {', '.join(run.absent)}: what they tell is left out"
    if unreadable:
        yield f"events.jsonl: {unreadable:,} lines can't be read and are left out"
    if sample.stride > 1:
        yield (
            f"ITL over time, by group and its intervals are from every {sample.stride}th request "
            "(its percentiles over all requests are exact)"
        )
    for name, found in groups.items():
        if (others := found[-1].stands_for) > 1:
            yield f"the split by {name.replace('_', ' ')} shows the {others:,} smallest groups together"


def _simulated_late(analysis: Analysis) -> Iterator[str]:
    """Where an embedded engine could not keep its own time, its latencies are this machine's."""
    server, gap = analysis.server, analysis.latencies["itl"].at(50).value
    if not analysis.run.manifest.target.simulated or server is None or not gap:
        return
    late_s = server.delta("tailgate_engine_step_lateness_seconds_sum")
    steps = server.delta("tailgate_engine_step_lateness_seconds_count")
    if late_s and steps and 1000 * late_s / steps > _SIMULATED_LATE * gap:
        yield (
            f"the embedded engine's steps came {1000 * late_s / steps:.1f} ms late on average, where the median gap "
            f"between tokens is {gap:.1f} ms: this machine is too slow for the load that it simulates"
        )


def work_out(analysis: Analysis) -> Results:
    """Everything there is to know of an analysed run."""
    flight = in_flight(analysis.run)
    gpus = gpu_views(analysis)
    checks = [*client_checks(analysis), *server_checks(analysis), *state_checks(analysis, gpus)]
    checks = without_lost(analysis.run, checks)
    groups = splits(analysis)
    workload, server = workload_as_sent(analysis), server_view(analysis)
    events, unreadable = read_events(analysis.run.path)
    notices = [*_lacking(analysis, groups, unreadable), *_simulated_late(analysis)]
    try:
        money = cost(analysis)
    except UserError as error:
        money = None
        notices.append(f"no cost: {error}")
    stated = analysis.run.manifest.spec.get("gpus") or {}
    joules = energy(analysis, gpus, stated.get("usd_per_kwh"), stated.get("gco2_per_kwh"))
    evidence = Evidence(analysis, checks, flight, server, gpus, workload, money, events)
    return Results(
        analysis=analysis,
        flight=flight,
        checks=checks,
        judged=judge(analysis, overloaded=bool(flight and flight.overloaded)),
        splits=groups,
        fairness=fairness(analysis),
        workload=workload,
        server=server,
        gpus=gpus,
        life=lived(analysis.run.manifest),
        vram=vram(analysis.run.manifest, analysis.gpu),
        cost=money,
        energy=joules,
        findings=diagnose(evidence),
        events=events,
        notices=notices,
    )
