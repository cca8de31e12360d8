"""A run over time, in bins a person can see: latency, load, in flight, and the server's gauges beside them.

All series share the same bins, so that they can share one axis. Drawing is `reports.documents.plots.run`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.in_flight import in_flight_at
from tailgate.reports.rundir.telemetry import mean_on_grid
from tailgate.workloads.common.arrays import Floats, Ints

# What servers call the same thing; the first that is there is shown.
RUNNING = ("vllm:num_requests_running",)
WAITING = ("vllm:num_requests_waiting",)
KV_USAGE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")


AnyInts = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Timeline:
    """Series over time; every array has one entry per bin, NaN where nothing was seen."""

    edges_ns: Ints  # bin edges from the run's start; shape (bins + 1,)
    # by name, e.g. `ttft_p50` (ms, by when the request was due), `itl_p99` (ms, by when the token came), `offered`,
    # `ok`, `failed` (per second), `output_tokens` (content arrivals per second), `in_flight`; where sampled `running`,
    # `waiting`, `kv_usage` (a fraction), `power_w` (of all GPUs), `sm_clock_mhz` and `utilization` (their mean)
    series: dict[str, Floats]

    @property
    def middle_s(self) -> Floats:
        return (self.edges_ns[1:] + self.edges_ns[:-1]) / 2e9


def timeline(analysis: Analysis) -> Timeline:
    """The run in bins of `analysis.scan.bin_ns`, drain included."""
    run, width = analysis.run, analysis.scan.bin_ns
    ends = [run.window_ns[1], *(float(c.max()) for n in ("end_ns",) if len(c := _known(run.column(n))))]
    bins = max(1, int(np.ceil(max(ends) / width)))
    edges = np.arange(bins + 1, dtype=np.int64) * width
    seconds = width / 1e9
    begin = run.column("scheduled_ns" if run.manifest.loop == "open" else "sent_ns")
    due, ended = _slots(begin, width, bins), _slots(run.column("end_ns"), width, bins)
    series: dict[str, Floats] = {
        "offered": _count(due, np.isfinite(begin), bins) / seconds,
        "ok": _count(ended, run.ok, bins) / seconds,
        "failed": _count(ended, ~run.ok & ~analysis.censored & np.isfinite(run.column("end_ns")), bins) / seconds,
        "output_tokens": _padded(analysis.scan.arrivals_per_bin, bins) / seconds,
        "in_flight": in_flight_at(run, edges.astype(np.float64)),
    }
    for name in ("ttft", "e2e", *sorted(_of_interest(analysis))):
        ms = analysis.figures.ms[name]
        seen = run.ok & np.isfinite(ms)
        p50, most = group_quantiles(due[seen], np.rint(1000 * ms[seen]).astype(np.int64), bins, (0.5, 1.0))
        series |= {f"{name}_p50": p50, f"{name}_max": most}
    sample = analysis.scan.sample
    inside = sample.slots < bins
    p50, p99 = group_quantiles(sample.slots[inside], sample.us[inside], bins, (0.5, 0.99))
    series |= {"itl_p50": p50, "itl_p99": p99}
    if not analysis.scan.known:
        del series["output_tokens"]  # not known, which is not none
    return Timeline(edges, series | _server(analysis, edges) | _gpu(analysis, edges))


def _of_interest(analysis: Analysis) -> set[str]:
    """Further latencies that an objective is about."""
    slos = (analysis.slo, *analysis.class_slos.values())
    return {"tpot", "stall", "ttfa"} & {metric for slo in slos for metric, _ in slo.limits()}


def _server(analysis: Analysis, edges: Ints) -> dict[str, Floats]:
    if (server := analysis.server) is None:
        return {}
    wanted = {"running": RUNNING, "waiting": WAITING, "kv_usage": KV_USAGE}
    lines = {}
    for name, names in wanted.items():
        if series := server.first(*names):
            total = mean_on_grid(series, edges)
            # Usage is a share of each engine's own cache: engines are averaged, counts are added.
            lines[name] = total / len(series) if name == "kv_usage" else total
    return lines


def _gpu(analysis: Analysis, edges: Ints) -> dict[str, Floats]:
    if (gpu := analysis.gpu) is None:
        return {}
    lines = {}
    for name in ("power_w", "sm_clock_mhz", "utilization"):
        if series := gpu.series(name):
            total = mean_on_grid(series, edges)
            lines[name] = total if name == "power_w" else total / len(series)
    return lines


def group_quantiles(slots: AnyInts, values_us: AnyInts, groups: int, shares: tuple[float, ...]) -> list[Floats]:
    """Nearest-rank quantiles, in ms, of `values_us` by group: per share an array of shape (groups,), NaN if empty."""
    # One sort of (group, value) packed into 64 bits.
    packed = slots.astype(np.int64) << 40
    packed |= np.clip(values_us, 0, (1 << 40) - 1).astype(np.int64)
    packed.sort()
    bounds = np.searchsorted(packed, np.arange(groups + 1) << 40)
    sizes = np.diff(bounds)
    quantiles = []
    for share in shares:
        ranks = np.maximum(np.ceil(share * sizes - 1e-9).astype(np.int64), 1)
        at = np.minimum(bounds[:-1] + ranks - 1, max(len(packed) - 1, 0))
        ms = (packed[at] & ((1 << 40) - 1)) / 1000 if len(packed) else np.nan
        quantiles.append(np.where(sizes > 0, ms, np.nan))
    return quantiles


def _known(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def _slots(times_ns: Floats, width: int, bins: int) -> Ints:
    return np.clip(np.nan_to_num(times_ns) // width, 0, bins - 1).astype(np.int64)


def _count(slots: Ints, wanted: np.ndarray[tuple[int], np.dtype[np.bool_]], bins: int) -> Floats:
    return np.bincount(slots[wanted], minlength=bins).astype(np.float64)


def _padded(counts: Ints, bins: int) -> Floats:
    return np.concatenate([counts, np.zeros(max(0, bins - len(counts)))])[:bins].astype(np.float64)
