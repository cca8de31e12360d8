"""Configurations side by side: figures with intervals, ratios to the first, Pareto fronts, what differed.

A configuration is a label; its runs at one load are replicates. Runs that can't be compared are refused, or
compared loudly when told to. Documents are `reports.documents.comparison`, statistics between runs
`reports.stats.between_runs`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tailgate.reports.compare.runs import StoredRun, deployments_differ
from tailgate.reports.cost.cost import fit_price_ratio
from tailgate.reports.metrics.catalogue import COMPARED, Metric, metric_of
from tailgate.reports.metrics.slo import LATENCIES, Threshold, parse
from tailgate.reports.rundir.fingerprint import differences, gpu_count, gpus_in_words
from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.stats.between_runs import Known, Ratio, RunsMean, ratio, runs_mean
from tailgate.workloads.common.errors import UserError

SCHEMA: Final = "tailgate.compare/1"
# Percentage points by which failing is no longer alike.
_FAILED_APART: Final = 0.1


@dataclass(frozen=True)
class Configuration:
    """One configuration at one load."""

    label: str
    load: str
    runs: tuple[StoredRun, ...]
    offered_rps: float | None
    figures: dict[str, RunsMean]  # by Metric.key
    # to the first label at the same load, by Metric.key; none of that itself, nor where it has not run at this load
    ratios: dict[str, Ratio]

    @property
    def name(self) -> str:
        return f"{self.label} @ {self.load}"


@dataclass(frozen=True)
class Front:
    """A Pareto front: two metrics, and for each point the index of one that beats it on both, if any."""

    title: str
    x: Metric
    y: Metric
    dominated_by: tuple[int | None, ...]


@dataclass(frozen=True)
class Comparison:
    """Everything a comparison says; `warnings` are said loudest."""

    points: tuple[Configuration, ...]
    metrics: tuple[Metric, ...]
    limits: tuple[tuple[Metric, Threshold], ...]  # what the runs' objectives demand of latencies
    fronts: tuple[Front, ...]
    differences: tuple[tuple[str, dict[str, str]], ...]
    warnings: tuple[str, ...]
    simulated: bool
    obstacles: tuple[str, ...] = ()  # why the runs should not be compared, where they are for all that
    load_limited: bool = False  # throughput is that of the offered load, not of capacity


def compare(runs: Sequence[StoredRun], anyway: bool = False) -> Comparison:
    """Compare configurations; ratios refer to the first label at the same load, where it has one.

    Raises:
        UserError: fewer than two runs; or, unless `anyway`, runs that are invalid, of different workloads,
            loops, or partly simulated.
    """
    if len(runs) < 2:
        raise UserError("there is only one run", remedy="Name at least two run directories.")
    obstacles = _obstacles(runs)
    if obstacles and not anyway:
        raise UserError(
            "these runs can't be compared: " + "; ".join(obstacles), remedy="Compare them nevertheless with --anyway."
        )
    groups: dict[tuple[str, str], list[StoredRun]] = {}
    for run in runs:
        groups.setdefault((run.label, run.load), []).append(run)
    base, _ = next(iter(groups))
    limits = _limits(runs)
    wanted = tuple({metric.key: metric for metric in (*COMPARED, *(metric for metric, _ in limits))}.values())
    points = tuple(
        _point(label, load, members, groups.get((base, load), ()), wanted) for (label, load), members in groups.items()
    )
    metrics = tuple(m for m in wanted if any(p.figures[m.key].value is not None for p in points))
    sides: dict[str, list[Manifest]] = {}
    for run in runs:
        sides.setdefault(run.label, []).append(run.manifest)
    return Comparison(
        points=points,
        metrics=metrics,
        limits=limits,
        fronts=tuple(_fronts(points)),
        differences=tuple(differences(sides)),
        warnings=(*obstacles, *_remarks(runs, points)),
        simulated=any(run.summary.simulated for run in runs),
        obstacles=tuple(obstacles),
        load_limited=_load_limited(runs),
    )


def _load_limited(runs: Sequence[StoredRun]) -> bool:
    return runs[0].manifest.loop == "open" and not any(run.overloaded for run in runs)


def _limits(runs: Sequence[StoredRun]) -> tuple[tuple[Metric, Threshold], ...]:
    """The latency objectives of the runs, each once, beside the statistic that each is about."""
    thresholds = dict.fromkeys(t for run in runs for t in parse(run.manifest.spec.get("slo")).thresholds)
    return tuple((metric_of(f"{t.metric}.{t.statistic}"), t) for t in thresholds if t.metric in LATENCIES)


def _obstacles(runs: Sequence[StoredRun]) -> list[str]:
    obstacles = []
    bad = [run for run in runs if not run.summary.valid]
    if bad:
        each = "; ".join(f"{run.path.name}: {run.summary.invalid_reasons[0].rstrip('.')}" for run in bad)
        obstacles.append(f"{len(bad)} of {len(runs)} runs are INVALID ({each})")
    workloads = {run.manifest.workload_hash for run in runs}
    if len(workloads) > 1 or "" in workloads:
        others = [run.path.name for run in runs if run.manifest.workload_hash != runs[0].manifest.workload_hash]
        what = f"{', '.join(others)} had another workload than {runs[0].path.name}" if others else "no workload hash"
        obstacles.append(f"different workloads: {what}")
    for label in dict.fromkeys(run.label for run in runs):
        mixed = deployments_differ([run for run in runs if run.label == label])
        if mixed:
            obstacles.append(f"runs labelled {label} are of different deployments ({', '.join(mixed)})")
    if len({run.manifest.loop for run in runs}) > 1:
        obstacles.append("open and closed loops are mixed: their latencies mean different things")
    if len({run.summary.simulated for run in runs}) > 1:
        obstacles.append("simulated and real targets are mixed")
    return obstacles


def _remarks(runs: Sequence[StoredRun], points: Sequence[Configuration]) -> list[str]:
    remarks = []
    gpus = {gpus_in_words(run.manifest) for run in runs}
    if len(gpus) > 1:
        remarks.append(f"different GPUs: {', '.join(sorted(gpus))}")
    lonely = [point.name for point in points if not point.ratios and point.label != points[0].label]
    if lonely:
        remarks.append(f"{points[0].label} did not run at the load of {', '.join(lonely)}: no ratios there")
    failed = {point.name: point.figures["errors"].value for point in points}
    shares = [share for share in failed.values() if share is not None]
    if shares and max(shares) - min(shares) > _FAILED_APART:
        shown = ", ".join(f"{name} failed {share:.2g} %" for name, share in failed.items() if share)
        remarks.append(f"latencies are of ok requests only, and {shown}: see the rows with failures as infinitely late")
    wire = {run.path.name: run.summary.streaming for run in runs}
    if bounds := sorted(name for name, sent in wire.items() if sent.tpot_is_bound):
        remarks.append(f"TPOT is a lower bound, by first chunks of an untold number of tokens: {', '.join(bounds[:5])}")
    if guessed := sorted(name for name, sent in wire.items() if sent.usage_contradicted or sent.usage_missing):
        remarks.append(f"tokens are estimates, for want of a usage that can be true: {', '.join(guessed[:5])}")
    if any(run.overloaded for run in runs):
        names = sorted({run.path.name for run in runs if run.overloaded})
        remarks.append(f"overloaded, so that latencies grow with duration: {', '.join(names)}")
    elif _load_limited(runs) and len({run.label for run in runs}) > 1:
        remarks.append(
            "load-limited: below saturation throughput and cost are those of the offered load, not of capacity"
        )
    if (fitted := _fitted_price_ratio(runs)) is not None:
        remarks.append(
            f"an output token's price over an input token's, fitted from these saturated mixes, is {fitted:.2f}; "
            "the costs use what each run states (gpus.price_ratio, default 4)"
        )
    if any(len(point.runs) < 2 for point in points):
        remarks.append("single runs have no interval: how much runs differ by themselves is not known")
    return remarks


def _fitted_price_ratio(runs: Sequence[StoredRun]) -> float | None:
    """From runs at saturation (closed loops, or overloaded) of one deployment; None if they don't tell."""
    full = [run for run in runs if run.manifest.loop == "closed" or run.overloaded]
    if len(full) < 3 or deployments_differ(full):
        return None
    columns = [
        [run.summary.value(("throughput", f"{way}_tokens_per_s")) for run in full] for way in ("input", "output")
    ]
    if any(value is None for column in columns for value in column):
        return None
    seconds = np.full(len(full), float(gpu_count(full[0].manifest) or 1))
    return fit_price_ratio(seconds, np.array(columns[0], np.float64), np.array(columns[1], np.float64))


def _point(
    label: str, load: str, runs: Sequence[StoredRun], base: Sequence[StoredRun], wanted: Sequence[Metric]
) -> Configuration:
    figures, ratios = {}, {}
    for metric in wanted:
        mine, theirs = _known(runs, metric), _known(base, metric)
        figures[metric.key] = runs_mean([value for _, value in mine])
        if base and runs is not base:
            plans, base_plans = ([run.manifest.plan_hash for run, _ in side] for side in (mine, theirs))
            over_base = ratio(_with_ends(theirs, metric), _with_ends(mine, metric), base_plans, plans)
            if over_base is not None:
                ratios[metric.key] = over_base
    offered = [r for run in runs if (r := run.summary.load.offered_rps) is not None]
    return Configuration(label, load, tuple(runs), sum(offered) / len(offered) if offered else None, figures, ratios)


def _known(runs: Sequence[StoredRun], metric: Metric) -> list[tuple[StoredRun, float]]:
    return [(run, value) for run in runs if (value := run.value(metric)) is not None and math.isfinite(value)]


def _with_ends(known: Sequence[tuple[StoredRun, float]], metric: Metric) -> list[Known]:
    return [(value, *(run.ends(metric) or (value, value))) for run, value in known]


def _fronts(points: Sequence[Configuration]) -> list[Front]:
    """Tokens/s per GPU against tokens/s per user; $ per million output tokens against the TTFT tail."""
    by_key = {metric.key: metric for metric in COMPARED}
    # Failures count as late: who drops its slow requests is not the faster one.
    tails = ("ttft_failed_as_inf.p99", "ttft_failed_as_inf.p90", "ttft.p50")
    # The furthest tail that every point's sample supports: another one would compare unlike things.
    tail = next((k for k in tails if all(p.figures[k].value is not None for p in points)), "ttft.p50")
    wanted = (
        ("Throughput against speed", "tokens_per_s_per_user", "tokens_per_s_per_gpu"),
        ("Cost against time to first token", tail, "cost.per_million_output"),
    )
    fronts = []
    for title, x_key, y_key in wanted:
        x, y = by_key[x_key], by_key[y_key]
        places = [_place(point, x, y) for point in points]
        if sum(place is not None for place in places) >= 2:
            fronts.append(Front(title, x, y, tuple(dominated_by(places, (x.higher, y.higher)))))
    return fronts


def _place(point: Configuration, x: Metric, y: Metric) -> tuple[float, float] | None:
    a, b = point.figures[x.key].value, point.figures[y.key].value
    return None if a is None or b is None else (a, b)


def dominated_by(points: Sequence[tuple[float, float] | None], higher: tuple[bool, bool]) -> list[int | None]:
    """For each point the index of one that is at least as good on both counts and better on one; else None.

    `higher` says for each count whether more is better. A missing point (None) neither dominates nor is
    dominated. O(n^2): configurations are few.
    """
    signs = tuple(1.0 if up else -1.0 for up in higher)
    scored = [None if p is None else (signs[0] * p[0], signs[1] * p[1]) for p in points]
    return [None if mine is None else _dominating(mine, scored) for mine in scored]


def _dominating(mine: tuple[float, float], scored: Sequence[tuple[float, float] | None]) -> int | None:
    for place, other in enumerate(scored):
        if other is not None and other != mine and other[0] >= mine[0] and other[1] >= mine[1]:
            return place
    return None
