"""Configurations side by side: figures with intervals, ratios to the first, Pareto fronts, what differed.

A configuration is a label; its runs at one load are replicates. Runs that can't be compared are refused, or
compared loudly when told to. Documents are `reports.compare_docs`, statistics between runs `reports.between`.
"""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from reports.between import Estimate, Ratio, estimate, ratio
from reports.fingerprint import differences
from reports.manifest import Manifest
from reports.pareto import dominated_by
from workloads.errors import UserError

SCHEMA: Final = "tailgate.compare/1"


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
        rate = (workload.get("arrivals") or {}).get("rate")
        if self.manifest.loop == "closed" and (users := workload.get("users")):
            return f"{users} users" if isinstance(users, int) else "stages of users"
        if isinstance(rate, int | float):
            return f"{rate:g}/s"
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
        ratios: to the first label at the same load (else at its first one), by Metric.key; of that itself none.
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

    Runs that were not summarised yet (or by an older version) are worked out first.

    Raises:
        UserError: nothing matches, or a directory is no run.
    """
    found = []
    for argument in arguments:
        label, equals, pattern = argument.partition("=")
        if not equals or Path(argument).is_dir():
            label, pattern = "", argument
        paths = sorted(Path(p) for p in glob.glob(pattern) if Path(p).is_dir())
        if not paths:
            raise UserError("no run directory matches", where=argument, remedy="Give folders that runs wrote.")
        for path in paths:
            manifest, summary = Manifest.load(path), _summary(path)
            found.append(OneRun(path, label or manifest.name or path.name, manifest, summary))
    return found


def _summary(path: Path) -> dict[str, Any]:
    import json

    from reports.build import build
    from reports.manifest import check_schema

    stored = path / "summary.json"
    if stored.exists() and not (path / "spool").exists():
        try:
            summary = json.loads(stored.read_bytes())
        except ValueError:
            return build(path)
        check_schema(summary, "tailgate.summary/1", str(stored))
        return dict(summary)
    return build(path)


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
    base, _ = first = next(iter(groups))
    points = tuple(
        _point(label, load, members, groups.get((base, load), groups[first]))
        for (label, load), members in groups.items()
    )
    metrics = tuple(m for m in METRICS if any(p.figures[m.key].value is not None for p in points))
    sides: dict[str, list[Manifest]] = {}
    for run in runs:
        sides.setdefault(run.label, []).append(run.manifest)
    return Comparison(
        points=points,
        metrics=metrics,
        fronts=tuple(_fronts(points)),
        differences=tuple(differences(sides)) if len(sides) > 1 else (),
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
    if len({run.manifest.loop for run in runs}) > 1:
        found.append("open and closed loops are mixed: their latencies mean different things")
    if len({run.summary["simulated"] for run in runs}) > 1:
        found.append("simulated and real targets are mixed")
    return found


def _remarks(runs: Sequence[OneRun], points: Sequence[Point]) -> list[str]:
    """What a reader must know besides."""
    found = []
    gpus = {str((run.manifest.spec.get("gpus") or {}).get("type") or "") for run in runs}
    if len(gpus) > 1:
        found.append(f"different GPUs: {', '.join(sorted(gpu or '(not stated)' for gpu in gpus))}")
    if any(run.summary["load"].get("overloaded") for run in runs):
        names = sorted({run.path.name for run in runs if run.summary["load"].get("overloaded")})
        found.append(f"overloaded, so that latencies grow with duration: {', '.join(names[:5])}")
    elif runs[0].manifest.loop == "open" and len({run.label for run in runs}) > 1:
        found.append(
            "load-limited: below saturation throughput and cost are those of the offered load, not of capacity"
        )
    if any(len(point.runs) < 2 for point in points):
        found.append("single runs have no interval: how much runs differ by themselves is not known")
    return found


def _point(label: str, load: str, runs: Sequence[OneRun], base: Sequence[OneRun]) -> Point:
    figures, ratios = {}, {}
    for metric in METRICS:
        mine, theirs = _known(runs, metric), _known(base, metric)
        figures[metric.key] = estimate([value for _, value in mine])
        if runs is not base:
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
    tails = ("ttft.p99", "ttft.p95", "ttft.p90", "ttft.p50")
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
    gpus = (manifest.spec.get("gpus") or {}).get("count") or summary["gpu"].get("count") or 1
    return {
        "tokens_per_s_per_gpu": None if output is None else output / gpus,
        "tokens_per_s_per_user": 1000 / tpot if tpot else None,
        "errors_percent": None if errors is None else 100 * errors,
        "attained_percent": None if attained is None else 100 * attained,
    }
