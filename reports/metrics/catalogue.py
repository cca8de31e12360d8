"""Every metric, once: its name, label, unit, place in a summary, which way is better and how it is judged.

SLOs, the gate, comparisons and all documents read from here. How a metric is worked out is in the modules beside
this one; docs/metrics.md defines each.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal

# Of a latency a percentile or mean is judged, of a share of requests counts, of a rate or a value the figure itself.
JudgedBy = Literal["latency", "share", "rate", "value"]


@dataclass(frozen=True)
class Metric:
    """One metric, or one statistic of a latency (`ttft.p99`)."""

    key: str  # its name in specs, policies and JSON
    label: str  # its name for people
    unit: str  # `ms`, `/s`, `%`, `$`, `J`, `W`, or empty
    path: tuple[str, ...]  # where it stands in a summary; below `derived` stands what needs the manifest too
    judged: JudgedBy
    higher: bool = False  # whether more is better
    objective: bool = False  # whether an SLO may name it
    gated: bool = False  # whether a gate may compare it
    per_request: bool = False  # whether one request has its own value; pooled gaps between tokens belong to none
    # whether there are percentiles that count failures as infinitely late: of latencies that a target could improve by
    # failing
    failures_count: bool = False

    @property
    def scale(self) -> float:
        """Summaries hold shares as fractions: what to multiply a value by to have it in `unit`."""
        return 100.0 if self.unit == "%" else 1.0

    @property
    def with_unit(self) -> str:
        """Its label and its unit, where the label doesn't say it: `TTFT p99, ms`, `output tokens/s`."""
        unit = {"/s": "requests/s"}.get(self.unit, self.unit)
        return self.label if self.unit in self.label else f"{self.label}, {unit}"

    def at(self, statistic: str, failures_late: bool = False) -> "Metric":
        """One statistic of a latency, e.g. `p99`, over ok requests or with failures as infinitely late."""
        kind = "latency_failed_as_inf_ms" if failures_late else "latency_ms"
        return replace(self, label=f"{self.label} {statistic}", path=(kind, self.key, statistic),
                       key=f"{self.key}.{statistic}")  # fmt: skip


def _latency(key: str, label: str, *flags: str) -> Metric:
    return Metric(key, label, "ms", ("latency_ms", key), "latency", **dict.fromkeys(flags, True))


def _throughput(key: str, label: str, **flags: bool) -> Metric:
    return Metric(key, label, "/s", ("throughput", key), "rate", higher=True, objective=True, **flags)


LATENCIES: Final = (
    _latency("ttft", "TTFT", "objective", "gated", "per_request", "failures_count"),
    _latency("ttft_from_send", "TTFT from send", "objective", "gated", "per_request", "failures_count"),
    _latency("ttfa", "TTFA", "objective", "per_request"),
    _latency("itl", "ITL", "objective", "gated"),
    _latency("tpot", "TPOT", "objective", "gated", "per_request"),
    _latency("stall", "stall", "objective", "gated", "per_request"),
    _latency("jitter", "jitter", "per_request"),
    _latency("e2e", "E2E", "objective", "gated", "per_request", "failures_count"),
    _latency("normalized_e2e", "E2E per token", "objective", "gated", "per_request"),
)
SHARES: Final = (
    Metric("errors", "failed", "%", ("errors", "share"), "share", objective=True),
    Metric("attained", "good", "%", ("slo", "attained"), "share", higher=True, objective=True),
)
RATES: Final = (
    _throughput("requests_per_s", "requests/s", gated=True),
    _throughput("input_tokens_per_s", "input tokens/s"),
    _throughput("output_tokens_per_s", "output tokens/s", gated=True),
    _throughput("total_tokens_per_s", "tokens/s", gated=True),
    Metric("goodput", "goodput", "/s", ("slo", "goodput_rps"), "rate", higher=True, objective=True, gated=True),
)
VALUES: Final = (
    Metric("tokens_per_s_per_gpu", "output tokens/s per GPU", "/s", ("derived", "tokens_per_s_per_gpu"), "value", True),
    Metric("tokens_per_s_per_user", "tokens/s per user (1 / TPOT)", "/s", ("derived", "tokens_per_s_per_user"),
           "value", True),
    Metric("cost.per_million_output", "$ per million output tokens", "$", ("cost", "per_million_output"), "value",
           gated=True),
    Metric("cost.per_million_total", "$ per million tokens", "$", ("cost", "per_million_total"), "value", gated=True),
    Metric("cost.at_slo", "$ per million output tokens at the SLO", "$", ("cost", "per_million_output_at_slo"),
           "value"),
    Metric("energy.j_per_output_token", "J per output token", "J", ("energy", "j_per_output_token"), "value",
           gated=True),
    Metric("kv_usage", "KV cache in use, mean share", "", ("server", "kv_usage", "mean"), "value"),
    Metric("power_w", "GPU power", "W", ("gpu", "power_w"), "value"),
)  # fmt: skip
METRICS: Final = {metric.key: metric for metric in (*LATENCIES, *SHARES, *RATES, *VALUES)}
PER_REQUEST: Final = tuple(metric.key for metric in LATENCIES if metric.per_request)


def keys(metrics: Iterable[Metric]) -> tuple[str, ...]:
    return tuple(metric.key for metric in metrics)


def metric_of(key: str) -> Metric:
    """The metric of a key such as `goodput`, `ttft.p99` or `ttft_failed_as_inf.p99`.

    Raises:
        KeyError: there is no such metric.
    """
    if key in METRICS:
        return METRICS[key]
    name, _, statistic = key.partition(".")
    of_ok = name.removesuffix("_failed_as_inf")
    if of_ok == name:
        return METRICS[name].at(statistic)
    metric = METRICS[of_ok].at(statistic, failures_late=True)
    return replace(metric, key=key, label=f"{metric.label}, failures late")


# The rows of a comparison, in their order.
COMPARED: Final = tuple(map(metric_of, (
    "ttft.p50", "ttft.p90", "ttft.p95", "ttft.p99", "ttft_failed_as_inf.p90", "ttft_failed_as_inf.p99", "itl.p50",
    "itl.p99", "tpot.mean", "tpot.p50", "tpot.p99", "stall.p50", "stall.p99", "e2e.p50", "e2e.p95", "e2e.p99",
    "output_tokens_per_s", "requests_per_s", "tokens_per_s_per_gpu", "tokens_per_s_per_user", "errors", "attained",
    "goodput", "cost.per_million_output", "cost.at_slo", "energy.j_per_output_token", "kv_usage", "power_w",
)))  # fmt: skip
