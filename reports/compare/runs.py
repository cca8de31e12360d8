"""Stored runs, as comparisons and gates read them: what each showed, and whether several are of one deployment.

What follows from them is `reports.compare.comparison` and `reports.verdicts`.
"""

import glob
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from tailgate.reports.metrics.catalogue import Metric
from tailgate.reports.metrics.requests import multi_token_chunks
from tailgate.reports.rundir.fingerprint import differences, gpu_count
from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.rundir.run import load_run
from tailgate.reports.summary.model import Summary
from tailgate.reports.summary.summary import stored_summary
from tailgate.workloads.common.errors import UserError

# Facts (`fingerprint.facts`) that make another deployment; what a server resolves by itself may vary by launch.
_OF_DEPLOYMENT: Final = (
    "target.", "version", "launch.", "gpus.type", "gpus.count", "cache", "fingerprint.gpus[", "fingerprint.gpu_driver",
)  # fmt: skip


@dataclass(frozen=True)
class StoredRun:
    """A run as its directory holds it."""

    path: Path
    label: str  # the configuration that it belongs to; of a gate `baseline` or `candidate`
    manifest: Manifest
    summary: Summary
    point: str = ""  # of a gate or sweep, which load; empty otherwise
    pair: int | None = None  # of a gate's interleaved pairs, which; None for runs that were not made in pairs

    def value(self, metric: Metric) -> float | None:
        """The run's own value in the metric's unit: infinite where failures make it so; None if it has none."""
        if metric.path[0] == "derived":
            return self._derived(metric.key)
        value = self.summary.value(metric.path)
        return None if value is None else metric.scale * value

    def ends(self, metric: Metric) -> tuple[float, float] | None:
        """The least and the most that the load generator's own error leaves possible of `value`; None without a value.

        Of what is no latency, and of runs that don't tell that error, both are the value.
        """
        value = self.value(metric)
        if value is None:
            return None
        found = self.summary.own_error(metric.path)
        return (value, value) if found is None else (metric.scale * found[0], metric.scale * found[1])

    def _derived(self, key: str) -> float | None:
        if key == "tokens_per_s_per_user":
            tpot = self.summary.latency_ms["tpot"].mean
            return 1000 / tpot if tpot else None
        output, gpus = self.summary.value(("throughput", "output_tokens_per_s")), gpu_count(self.manifest)
        return None if output is None or gpus is None else output / gpus

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
        offered = self.summary.load.offered_rps
        return f"{offered:.2g}/s" if offered else "-"

    @property
    def target_died(self) -> bool:
        """Whether its server was gone before the run's end."""
        return self.manifest.failed_side == "target"

    @property
    def ok(self) -> int:
        """Requests of the measure phase that ended ok."""
        return self.summary.load.requests.get("ok", 0)

    @property
    def failed(self) -> int:
        """Judged requests that did not end ok."""
        return self.summary.errors.failed

    @property
    def judged(self) -> int:
        """Requests that count as good or bad."""
        errors = self.summary.errors
        return round(errors.failed / errors.share) if errors.share else self.ok

    @property
    def refused_all(self) -> bool:
        """Whether requests were judged and none ended ok."""
        return self.ok == 0 and self.summary.errors.share is not None

    @property
    def good(self) -> int | None:
        """Good requests; None where the run's SLO doesn't say what a good request is."""
        slo = self.summary.slo
        return slo.good if slo and (slo.good_means or slo.good_means_by_class) else None

    @property
    def good_ends(self) -> tuple[int, int]:
        """The fewest and the most good requests that the load generator's own error leaves possible."""
        slo, good = self.summary.slo, self.good or 0
        return (slo.good_ends if slo is not None else None) or (good, good)

    @property
    def overloaded(self) -> bool:
        return bool(self.summary.load.overloaded)

    @property
    def waiting_share(self) -> float | None:
        """Closed loop: share of the users' time in which they wait for an answer; None where it isn't known."""
        users, flight = (self.summary.load.users or {}).get("mean"), self.summary.load.in_flight
        return flight.mean / users if users and flight is not None else None

    @cached_property
    def multi_token_share(self) -> float | None:
        """Share of chunks with several tokens, None where it isn't known."""
        run = load_run(self.path)
        several = multi_token_chunks(run)
        rows = run.ok & run.measured & np.isfinite(several)
        chunks = float(np.nansum(run.column("chunks")[rows]))
        return float(several[rows].sum()) / chunks if chunks else None


def read_run(path: Path, label: str = "", point: str = "", pair: int | None = None) -> StoredRun:
    """One run directory; it is summarised first if it was not, or by an older version."""
    from tailgate.reports.build import build

    manifest, summary = Manifest.load(path), None if (path / "spool").exists() else stored_summary(path)
    return StoredRun(path, label or manifest.name or path.name, manifest, summary or build(path), point, pair)


def directories(pattern: str) -> list[Path]:
    """Directories that a glob names, sorted; whether they are runs is seen when they are read."""
    return sorted(path for path in map(Path, glob.glob(pattern)) if path.is_dir())


def load_runs(arguments: Sequence[str]) -> list[StoredRun]:
    """Runs named as `DIR`, a glob, or `LABEL=DIR-or-glob`; a run without a label is labelled by its own name.

    Runs of one name that ran on different deployments are no replicates: each is labelled by its folder. A directory
    that is named twice is taken once.

    Raises:
        UserError: nothing matches, or a directory is no run.
    """
    runs: dict[Path, StoredRun] = {}
    unnamed: dict[str, list[Path]] = {}
    for argument in arguments:
        label, equals, pattern = argument.partition("=")
        if not equals or Path(argument).is_dir():
            label, pattern = "", argument
        paths = directories(pattern)
        if not paths:
            raise UserError("no run directory matches", where=argument, remedy="Give folders that runs wrote.")
        for path in paths:
            if (place := path.resolve()) not in runs:
                runs[place] = read_run(path, label)
                if not label:
                    unnamed.setdefault(runs[place].manifest.name, []).append(place)
    for places in unnamed.values():
        if deployments_differ([runs[place] for place in places]):
            runs |= {place: replace(runs[place], label=runs[place].path.name) for place in places}
    return list(runs.values())


def deployments_differ(runs: Sequence[StoredRun]) -> list[str]:
    """The facts of the deployment under test that are not the same in all runs."""
    different = differences({str(place): [run.manifest] for place, run in enumerate(runs)})
    return [key for key, _ in different if key.startswith(_OF_DEPLOYMENT)]
