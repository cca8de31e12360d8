"""The runs of a comparison: how they are named and read, what each shows, and whether they are of one deployment.

What follows from them is `reports.compare.comparison`.
"""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tailgate.reports.rundir.fingerprint import differences, gpu_count
from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.summary.summary import stored_summary
from tailgate.workloads.common.errors import UserError

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
        if deployments_differ([found[place] for place in places]):
            for place in places:
                found[place] = replace(found[place], label=found[place].path.name)
    return found


def deployments_differ(runs: Sequence[OneRun]) -> list[str]:
    """The facts of the deployment under test that are not the same in all runs."""
    different = differences({str(place): [run.manifest] for place, run in enumerate(runs)})
    return [key for key, _ in different if key.startswith(_OF_DEPLOYMENT)]


def _summary(path: Path) -> dict[str, Any]:
    """The stored one if it is what the run's files gave, else worked out anew."""
    from tailgate.reports.build import build

    stored = None if (path / "spool").exists() else stored_summary(path)
    return build(path) if stored is None else stored


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
