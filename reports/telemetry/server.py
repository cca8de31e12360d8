"""What the server said of itself over the steady window: queue, KV cache, prefix cache, batches, phases.

Names are vLLM's; of other servers only what has the same names is understood, the rest stays raw in
`server.parquet`. What follows from the figures is `reports.summary.diagnosis`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.rundir import telemetry

_PHASES: Final = {
    "queue": "vllm:request_queue_time_seconds",
    "prefill": "vllm:request_prefill_time_seconds",
    "decode": "vllm:request_decode_time_seconds",
    "inference": "vllm:request_inference_time_seconds",
    "ttft": "vllm:time_to_first_token_seconds",
    "itl": "vllm:inter_token_latency_seconds",
    "e2e": "vllm:e2e_request_latency_seconds",
}


@dataclass(frozen=True)
class Gauge:
    """A gauge summed over engines (a share: averaged): time-weighted mean and largest sample in the window."""

    mean: float
    max: float


@dataclass(frozen=True)
class PhaseTime:
    """A histogram's growth over the window, in ms. Percentiles lie within their bucket.

    Between two scrapes counters are taken to grow evenly, so that all of it is as exact as the window's edges
    lie near to scrapes.
    """

    n: float  # requests (for itl: gaps)
    mean_ms: float
    # p50_ms, p99_ms: interpolated; with the lower and upper edge of the bucket that holds them
    p50_ms: tuple[float, float, float | None]
    p99_ms: tuple[float, float, float | None]


@dataclass(frozen=True)
class ServerEndpoint:
    """One endpoint's part."""

    url: str
    running: float | None
    waiting: float | None
    finished: float | None


@dataclass(frozen=True)
class ServerView:
    """Figures of the steady window; None where the server doesn't report it."""

    # running, waiting: requests in the batch, and waiting for it
    running: Gauge | None = None
    waiting: Gauge | None = None
    waiting_by_reason: dict[str, float] = field(default_factory=dict)  # mean waiting per reason (capacity, deferred)
    kv_usage: Gauge | None = None  # share of the KV cache in use
    kv_tokens: float | None = None  # its size over all engines
    preemptions: float | None = None  # requests thrown out of the batch for want of KV room
    rejections: float | None = None  # requests refused at admission
    prefix_hit_share: float | None = None  # prompt tokens found in the prefix cache, of those looked up
    tokens_per_step: float | None = None  # mean tokens per engine step
    steps_per_s: float | None = None
    # max_num_seqs, max_num_batched_tokens: limits, as resolved by the server
    max_num_seqs: float | None = None
    max_num_batched_tokens: float | None = None
    phases: dict[str, PhaseTime] = field(default_factory=dict)  # by name of _PHASES
    draft_acceptance: float | None = None  # share of drafted tokens that speculative decoding kept
    endpoints: tuple[ServerEndpoint, ...] = ()
    gap_s: float | None = None  # longest pause between scrapes in the window


def server_view(analysis: Analysis) -> ServerView | None:
    """The server's figures over the steady window; None if it was not sampled."""
    server, (start, end) = analysis.server, analysis.run.window_ns
    if server is None or end <= start:
        return None

    def grew(*names: str) -> float | None:
        return server.delta(*names, start_ns=start, end_ns=end)

    queries, hits = grew("vllm:prefix_cache_queries_total"), grew("vllm:prefix_cache_hits_total")
    steps = telemetry.histogram(server, "vllm:iteration_tokens_total", start, end)
    drafted = grew("vllm:spec_decode_num_draft_tokens_total")
    accepted = grew("vllm:spec_decode_num_accepted_tokens_total")
    fingerprint = analysis.run.manifest.target.fingerprint
    return ServerView(
        running=_gauge(server.series("vllm:num_requests_running"), start, end),
        waiting=_gauge(server.series("vllm:num_requests_waiting"), start, end),
        waiting_by_reason=_by_reason(server, start, end),
        kv_usage=_gauge(server.first("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"), start, end, share=True),
        kv_tokens=_kv_tokens(server),
        preemptions=grew("vllm:num_preemptions_total"),
        rejections=grew("vllm:admission_rejections_total"),
        prefix_hit_share=hits / queries if queries and hits is not None else None,
        tokens_per_step=steps.mean if steps else None,
        steps_per_s=steps.n / ((end - start) / 1e9) if steps else None,
        max_num_seqs=find_number(fingerprint, "max_num_seqs"),
        max_num_batched_tokens=find_number(fingerprint, "max_num_batched_tokens"),
        phases={
            k: _phase(h) for k, name in _PHASES.items() if (h := telemetry.histogram(server, name, start, end)) and h.n
        },
        draft_acceptance=accepted / drafted if drafted and accepted is not None else None,
        endpoints=_endpoints(server, start, end),
        gap_s=telemetry.longest_gap_s(server.times_ns, start, end),
    )


def _gauge(series: list[telemetry.Series], start: int, end: int, share: bool = False) -> Gauge | None:
    if not series:
        return None
    means = [mean for source in series if (mean := source.mean(start, end)) is not None]
    times = np.unique(np.concatenate([source.t_ns for source in series]))
    times = times[(times >= start) & (times <= end)]
    total = telemetry.on_grid(series, times)
    total = total[np.isfinite(total)]
    if not means or not len(total):
        return None
    parts = len(series) if share else 1
    return Gauge(sum(means) / (len(means) if share else 1), float(total.max()) / parts)


def _by_reason(server: telemetry.Telemetry, start: int, end: int) -> dict[str, float]:
    means: dict[str, float] = {}
    for source in server.series("vllm:num_requests_waiting_by_reason"):
        reason = telemetry.labels_of(source).get("reason", "")
        means[reason] = means.get(reason, 0.0) + (source.mean(start, end) or 0.0)
    return means


def _kv_tokens(server: telemetry.Telemetry) -> float | None:
    """Tokens that all engines' KV caches hold, from the labels of `cache_config_info`."""
    total = 0.0
    for source in server.series("vllm:cache_config_info"):
        labels = telemetry.labels_of(source)
        try:
            size = labels.get("kv_cache_size_tokens")
            total += float(size) if size else float(labels["num_gpu_blocks"]) * float(labels["block_size"])
        except (KeyError, ValueError):
            return None
    return total or None


def _phase(growth: telemetry.HistogramGrowth) -> PhaseTime:
    def scaled(q: float) -> tuple[float, float, float | None]:
        value, low, high = growth.percentile(q) or (0.0, 0.0, 0.0)
        return 1000 * value, 1000 * low, None if np.isinf(high) else 1000 * high

    return PhaseTime(growth.n, 1000 * (growth.mean or 0.0), scaled(50), scaled(99))


def _endpoints(server: telemetry.Telemetry, start: int, end: int) -> tuple[ServerEndpoint, ...]:
    urls = sorted({source.key[0] for source in server.series("vllm:num_requests_running")})

    def of(name: str, url: str) -> list[telemetry.Series]:
        return [source for source in server.series(name) if source.key[0] == url]

    def mean(name: str, url: str) -> float | None:
        gauge = _gauge(of(name, url), start, end)
        return gauge.mean if gauge else None

    def finished(url: str) -> float | None:
        series = of("vllm:request_success_total", url)
        return sum(source.delta(start, end) for source in series) if series else None

    return tuple(
        ServerEndpoint(
            url, mean("vllm:num_requests_running", url), mean("vllm:num_requests_waiting", url), finished(url)
        )
        for url in urls
    )


def find_number(tree: object, name: str) -> float | None:
    """The first number under `name` (underscores or dashes) anywhere in nested mappings."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if str(key).replace("-", "_").lstrip("_") == name and (number := _as_number(value)) is not None:
                return number
        tree = list(tree.values())
    if isinstance(tree, list | tuple):
        return next((number for item in tree if (number := find_number(item, name)) is not None), None)
    return None


def _as_number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
