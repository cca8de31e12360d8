"""Configurations side by side: figures with intervals, ratios to the first, Pareto fronts, what differed.

A configuration is a label; its runs at one load are replicates. Runs that can't be compared are refused, or
compared loudly when told to. Documents are `reports.compare_docs`, statistics between runs `reports.between`.
"""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from reports.between import Estimate, Ratio, estimate, ratio
from reports.cost import fit_price_ratio
from reports.fingerprint import differences, gpu_count, gpus_in_words
from reports.manifest import Manifest
from reports.pareto import dominated_by
from reports.summary import stored_summary
from workloads.errors import UserError

SCHEMA: Final = "tailgate.compare/1"
# Percentage points by which failing is no longer alike.
_FAILED_APART: Final = 0.1
# Facts (`fingerprint.facts`) that make another deployment; what a server resolves by itself may vary by launch.
_OF_DEPLOYMENT: Final = (
    "target.", "version", "launch.", "gpus.type", "gpus.count", "cache", "fingerprint.gpus[", "fingerprint.gpu_driver",
)  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """One row of the comparison: where it stands in a summary, its unit, and whether more is better."""

    key: str
    label: str
    unit: str
    higher: bool
    path: tuple[str, ...]


def _latency(figure: str, label: str, *statistics: str) -> list[Metric]:
    return [Metric(f"{figure}.{s}", f"{label} {s}", "ms", False, ("latency_ms", figure, s)) for s in statistics]


METRICS: Final = (
    *_latency("ttft", "TTFT", "p50", "p90", "p95", "p99"),
    *(
        Metric(
            f"ttft_failed_as_inf.{s}", f"TTFT {s}, failures late", "ms", False, ("latency_failed_as_inf_ms", "ttft", s)
        )
        for s in ("p90", "p99")
    ),
    *_latency("itl", "ITL", "p50", "p99"),
    *_latency("tpot", "TPOT", "mean", "p50", "p99"),
    *_latency("stall", "stall", "p50", "p99"),
    *_latency("e2e", "E2E", "p50", "p95", "p99"),
    Metric("output_tokens_per_s", "output tokens/s", "/s", True, ("throughput", "output_tokens_per_s")),
    Metric("requests_per_s", "requests/s", "/s", True, ("throughput", "requests_per_s")),
    Metric("tokens_per_s_per_gpu", "output tokens/s per GPU", "/s", True, ("derived", "tokens_per_s_per_gpu")),
    Metric("tokens_per_s_per_user", "tokens/s per user (1 / TPOT)", "/s", True, ("derived", "tokens_per_s_per_user")),
    Metric("errors", "failed", "%", False, ("derived", "errors_percent")),
    Metric("attained", "good", "%", True, ("derived", "attained_percent")),
    Metric("goodput", "goodput", "/s", True, ("slo", "goodput_rps")),
    Metric("cost.per_million_output", "$ per million output tokens", "$", False, ("cost", "per_million_output")),
    Metric("cost.at_slo", "the same at the SLO", "$", False, ("cost", "per_million_output_at_slo")),
    Metric("energy.j_per_output_token", "J per output token", "J", False, ("energy", "j_per_output_token")),
    Metric("kv_usage", "KV cache in use, mean", "", False, ("server", "kv_usage", "mean")),
    Metric("power_w", "GPU power", "W", False, ("gpu", "power_w")),
)


@dataclass(frozen=True)
class OneRun:
    """A run as the comparison needs it."""

    path: Path
    label: str
    manifest: Manifest
    summary: dict[str, Any]

    def value(self, metric: Metric) -> float | None:
        """The run's own figure; None if it has none."""
        found: Any = self.summary | {"derived": _derived(self.summary, self.manifest)}
        for name in metric.path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None

    @property
    def load(self) -> str:
        """The load as the spec asked for it, e.g. `12/s` or `64 users`; as offered if the spec doesn't say."""
        workload = self.manifest.spec.get("workload") or {}
        if self.manifest.loop == "closed":
            users = workload.get("users")
            return f"{users} users" if isinstance(users, int) else "stages of users"
        arrivals, trace = workload.get("arrivals") or {}, workload.get("trace") or {}
        own = [(kind.get("arrivals") or {}).get("rate") for kind in (workload.get("classes") or {}).values()]
        rates = [rate for rate in (arrivals.get("rate") or trace.get("rate"), *own) if isinstance(rate, int | float)]
        if rates:
            return f"{sum(rates):g}/s"
        if arrivals.get("stages"):
            return "stages of rates"
        if trace:
            return f"trace x {trace['speed']:g}" if trace.get("speed") else "trace"
        offered = self.summary["load"]["offered_rps"]
        return f"{offered:.2g}/s" if offered else "-"


@dataclass(frozen=True)
class Point:
    """One configuration at one load.

    Attributes:
        label, load: which.
        runs: its replicates.
        offered_rps: mean offered load.
        figures: by Metric.key.
        ratios: to the first label at the same load, by Metric.key; none of that itself, nor where it has not run
            at this load.
    """

    label: str
    load: str
    runs: tuple[OneRun, ...]
    offered_rps: float | None
    figures: dict[str, Estimate]
    ratios: dict[str, Ratio]

    @property
    def name(self) -> str:
        """Label and load."""
        return f"{self.label} @ {self.load}"


@dataclass(frozen=True)
class Front:
    """A Pareto front: two metrics, and for each point the index of one that beats it on both, if any."""

    title: str
    x: Metric
    y: Metric
    beaten_by: tuple[int | None, ...]


@dataclass(frozen=True)
class Comparison:
    """Everything a comparison says; `warnings` are said loudest."""

    points: tuple[Point, ...]
    metrics: tuple[Metric, ...]
    fronts: tuple[Front, ...]
    differences: tuple[tuple[str, dict[str, str]], ...]
    warnings: tuple[str, ...]
    simulated: bool


def load_runs(arguments: Sequence[str]) -> list[OneRun]:
    """Runs named as `DIR`, a glob, or `LABEL=DIR-or-glob`; a run without a label is labelled by its own name.

    Runs of one name that ran on different deployments are no replicates: each is labelled by its folder. A directory
    that is named twice is taken once.

    Runs that were not summarised yet (or by an older version) are worked out first.

    Raises:
        UserError: nothing matches, or a directory is no run.
    """
    found: list[OneRun] = []
    known: set[Path] = set()
    unnamed: dict[str, list[int]] = {}
    for argument in arguments:
        label, equals, pattern = argument.partition("=")
        if not equals or Path(argument).is_dir():
            label, pattern = "", argument
        paths = sorted(Path(p) for p in glob.glob(pattern) if Path(p).is_dir())
        if not paths:
            raise UserError("no run directory matches", where=argument, remedy="Give folders that runs wrote.")
        for path in paths:
            if path.resolve() in known:
                continue
            known.add(path.resolve())
            manifest, summary = Manifest.load(path), _summary(path)
            if not label:
                unnamed.setdefault(manifest.name, []).append(len(found))
            found.append(OneRun(path, label or manifest.name or path.name, manifest, summary))
    for places in unnamed.values():
        if _deployments_differ([found[place] for place in places]):
            for place in places:
                found[place] = replace(found[place], label=found[place].path.name)
    return found


def _deployments_differ(runs: Sequence[OneRun]) -> list[str]:
    """The facts of the deployment under test that are not the same in all runs."""
    different = differences({str(place): [run.manifest] for place, run in enumerate(runs)})
    return [key for key, _ in different if key.startswith(_OF_DEPLOYMENT)]


def _summary(path: Path) -> dict[str, Any]:
    """The stored one if it is what the run's files gave, else worked out anew."""
    from reports.build import build

    stored = None if (path / "spool").exists() else stored_summary(path)
    return build(path) if stored is None else stored


def compare(runs: Sequence[OneRun], anyway: bool = False) -> Comparison:
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
    groups: dict[tuple[str, str], list[OneRun]] = {}
    for run in runs:
        groups.setdefault((run.label, run.load), []).append(run)
    base, _ = next(iter(groups))
    points = tuple(
        _point(label, load, members, groups.get((base, load), ())) for (label, load), members in groups.items()
    )
    metrics = tuple(m for m in METRICS if any(p.figures[m.key].value is not None for p in points))
    sides: dict[str, list[Manifest]] = {}
    for run in runs:
        sides.setdefault(run.label, []).append(run.manifest)
    return Comparison(
        points=points,
        metrics=metrics,
        fronts=tuple(_fronts(points)),
        differences=tuple(differences(sides)),
        warnings=(*obstacles, *_remarks(runs, points)),
        simulated=any(run.summary["simulated"] for run in runs),
    )


def _obstacles(runs: Sequence[OneRun]) -> list[str]:
    """Why these runs can't be compared."""
    found = []
    bad = [run for run in runs if not run.summary["valid"]]
    if bad:
        why = bad[0].summary["invalid_reasons"][0]
        found.append(f"{len(bad)} of {len(runs)} runs are INVALID ({bad[0].path.name}: {why})")
    workloads = {run.manifest.workload_hash for run in runs}
    if len(workloads) > 1 or "" in workloads:
        others = [run.path.name for run in runs if run.manifest.workload_hash != runs[0].manifest.workload_hash]
        what = (
            f"{', '.join(others[:3])} had another workload than {runs[0].path.name}" if others else "no workload hash"
        )
        found.append(f"different workloads: {what}")
    for label in dict.fromkeys(run.label for run in runs):
        mixed = _deployments_differ([run for run in runs if run.label == label])
        if mixed:
            found.append(f"runs labelled {label} are of different deployments ({', '.join(mixed[:3])})")
    if len({run.manifest.loop for run in runs}) > 1:
        found.append("open and closed loops are mixed: their latencies mean different things")
    if len({run.summary["simulated"] for run in runs}) > 1:
        found.append("simulated and real targets are mixed")
    return found


def _remarks(runs: Sequence[OneRun], points: Sequence[Point]) -> list[str]:
    """What a reader must know besides."""
    found = []
    gpus = {gpus_in_words(run.manifest) for run in runs}
    if len(gpus) > 1:
        found.append(f"different GPUs: {', '.join(sorted(gpus))}")
    lonely = [point.name for point in points if not point.ratios and point.label != points[0].label]
    if lonely:
        found.append(f"{points[0].label} did not run at the load of {', '.join(lonely)}: no ratios there")
    failed = {point.name: point.figures["errors"].value for point in points}
    shares = [share for share in failed.values() if share is not None]
    if shares and max(shares) - min(shares) > _FAILED_APART:
        told = ", ".join(f"{name} failed {share:.2g} %" for name, share in failed.items() if share)
        found.append(f"latencies are of ok requests only, and {told}: see the rows with failures as infinitely late")
    if any(run.summary["load"].get("overloaded") for run in runs):
        names = sorted({run.path.name for run in runs if run.summary["load"].get("overloaded")})
        found.append(f"overloaded, so that latencies grow with duration: {', '.join(names[:5])}")
    elif runs[0].manifest.loop == "open" and len({run.label for run in runs}) > 1:
        found.append(
            "load-limited: below saturation throughput and cost are those of the offered load, not of capacity"
        )
    if (fitted := _fitted_price_ratio(runs)) is not None:
        found.append(
            f"an output token's price over an input token's, fitted from these saturated mixes, is {fitted:.2f}; "
            "the costs use what each run states (gpus.price_ratio, default 4)"
        )
    if any(len(point.runs) < 2 for point in points):
        found.append("single runs have no interval: how much runs differ by themselves is not known")
    return found


def _fitted_price_ratio(runs: Sequence[OneRun]) -> float | None:
    """From runs at saturation (closed loops, or overloaded) of one deployment; None if they don't tell."""
    full = [run for run in runs if run.manifest.loop == "closed" or run.summary["load"].get("overloaded")]
    if len(full) < 3 or _deployments_differ(full):
        return None
    rates = [run.summary["throughput"] for run in full]
    columns = [[rate.get(f"{way}_tokens_per_s") for rate in rates] for way in ("input", "output")]
    if any(value is None for column in columns for value in column):
        return None
    seconds = np.full(len(full), float(gpu_count(full[0].manifest) or 1))
    return fit_price_ratio(seconds, np.array(columns[0], np.float64), np.array(columns[1], np.float64))


def _point(label: str, load: str, runs: Sequence[OneRun], base: Sequence[OneRun]) -> Point:
    figures, ratios = {}, {}
    for metric in METRICS:
        mine, theirs = _known(runs, metric), _known(base, metric)
        figures[metric.key] = estimate([value for _, value in mine])
        if base and runs is not base:
            plans, base_plans = ([run.manifest.plan_hash for run, _ in side] for side in (mine, theirs))
            found = ratio([v for _, v in theirs], [v for _, v in mine], base_plans, plans)
            if found is not None:
                ratios[metric.key] = found
    offered = [r for run in runs if (r := run.summary["load"]["offered_rps"]) is not None]
    return Point(label, load, tuple(runs), sum(offered) / len(offered) if offered else None, figures, ratios)


def _known(runs: Sequence[OneRun], metric: Metric) -> list[tuple[OneRun, float]]:
    return [(run, value) for run in runs if (value := run.value(metric)) is not None]


def _fronts(points: Sequence[Point]) -> list[Front]:
    """Tokens/s per GPU against tokens/s per user; $ per million output tokens against the TTFT tail."""
    by_key = {metric.key: metric for metric in METRICS}
    # Failures count as late: who drops its slow requests is not the faster one.
    tails = ("ttft_failed_as_inf.p99", "ttft_failed_as_inf.p90", "ttft.p50")
    # The furthest tail that every point's sample supports: another one would compare unlike things.
    tail = next((k for k in tails if all(p.figures[k].value is not None for p in points)), "ttft.p50")
    wanted = (
        ("Throughput against speed", "tokens_per_s_per_user", "tokens_per_s_per_gpu"),
        ("Cost against time to first token", tail, "cost.per_million_output"),
    )
    found = []
    for title, x_key, y_key in wanted:
        x, y = by_key[x_key], by_key[y_key]
        places = [_place(point, x, y) for point in points]
        if sum(place is not None for place in places) >= 2:
            found.append(Front(title, x, y, tuple(dominated_by(places, (x.higher, y.higher)))))
    return found


def _place(point: Point, x: Metric, y: Metric) -> tuple[float, float] | None:
    a, b = point.figures[x.key].value, point.figures[y.key].value
    return None if a is None or b is None else (a, b)


def _derived(summary: Mapping[str, Any], manifest: Manifest) -> dict[str, float | None]:
    output = summary["throughput"].get("output_tokens_per_s")
    tpot, errors = summary["latency_ms"]["tpot"]["mean"], summary["errors"]["share"]
    attained = summary["slo"].get("attained") if summary["slo"] else None
    gpus = gpu_count(manifest)
    return {
        "tokens_per_s_per_gpu": None if output is None or gpus is None else output / gpus,
        "tokens_per_s_per_user": 1000 / tpot if tpot else None,
        "errors_percent": None if errors is None else 100 * errors,
        "attained_percent": None if attained is None else 100 * attained,
    }
