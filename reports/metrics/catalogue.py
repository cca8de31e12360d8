"""Every metric, once: its name, label, unit, meaning, place in a summary, which way is better and how it is judged.

SLOs, the gate, comparisons and all documents read from here, and the page's glossary is made from it. How a metric is
worked out is in the modules beside this one; docs/metrics.md defines each.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

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
    meaning: str  # one sentence for people
    higher: bool = False  # whether more is better
    objective: bool = False  # whether an SLO may name it
    gated: bool = False  # whether a gate may compare it
    per_request: bool = False  # whether one request has its own value; pooled gaps between tokens belong to none
    # whether there are percentiles that count failures as infinitely late: of latencies that a target could improve by
    # failing
    failures_count: bool = False
    counts_tokens: bool = False  # whether it is only as true as the server's count of tokens
    rare: bool = False  # whether documents show it on demand only, unless an objective names it
    variant_of: str = ""  # the metric that it only says again where the two are alike

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


def _latency(key: str, label: str, meaning: str, *flags: str, variant_of: str = "") -> Metric:
    whether: dict[str, Any] = dict.fromkeys(flags, True)
    return Metric(key, label, "ms", ("latency_ms", key), "latency", meaning, variant_of=variant_of, **whether)


def _throughput(key: str, label: str, meaning: str, **flags: Any) -> Metric:
    return Metric(key, label, "/s", ("throughput", key), "rate", meaning, higher=True, objective=True, **flags)


def _value(key: str, label: str, unit: str, path: tuple[str, ...], meaning: str, **flags: Any) -> Metric:
    return Metric(key, label, unit, path, "value", meaning, **flags)


LATENCIES: Final = (
    _latency(
        "ttft", "TTFT",
        "Time to first token: from the moment when a request was due (in a closed loop: was sent) to its first token.",
        "objective", "gated", "per_request", "failures_count",
    ),
    _latency(
        "ttft_from_send", "TTFT from send", "Time to first token, counted from the sending, as most other tools do.",
        "objective", "gated", "per_request", "failures_count", "rare", variant_of="ttft",
    ),
    _latency(
        "ttfa", "TTFA", "Time to the first token of the answer itself: what a model reasons before it doesn't count.",
        "objective", "per_request", variant_of="ttft",
    ),
    _latency(
        "itl", "ITL", "Inter-token latency: the gaps between the pieces of an answer as they arrive, of all answers.",
        "objective", "gated",
    ),
    _latency(
        "tpot", "TPOT", "Time per output token: how long an answer took after its first token, for each further one.",
        "objective", "gated", "per_request", "counts_tokens",
    ),
    _latency(
        "stall", "stall", "The longest pause within an answer.", "objective", "gated", "per_request", "rare",
    ),
    _latency(
        "jitter", "jitter", "How unevenly an answer's tokens came: the standard deviation of its gaps.",
        "per_request", "rare",
    ),
    _latency(
        "e2e", "E2E",
        "End to end: from the moment when a request was due (in a closed loop: was sent) to its last token.",
        "objective", "gated", "per_request", "failures_count",
    ),
    _latency(
        "normalized_e2e", "E2E per token", "The time of a whole request divided by the tokens of its answer.",
        "objective", "gated", "per_request", "rare", "counts_tokens",
    ),
)  # fmt: skip
SHARES: Final = (
    Metric("errors", "failed", "%", ("errors", "share"), "share", "The share of requests that did not end ok.",
           objective=True),
    Metric("attained", "good", "%", ("slo", "attained"), "share",
           "The share of all requests that ended ok and within the limits of the objectives.", higher=True,
           objective=True),
)  # fmt: skip
RATES: Final = (
    _throughput("requests_per_s", "requests/s", "Requests that ended in a second of the steady window.", gated=True),
    _throughput("input_tokens_per_s", "input tokens/s", "Prompt tokens that were worked off in a second.",
                counts_tokens=True),
    _throughput("output_tokens_per_s", "output tokens/s", "Tokens of answers that came in a second.", gated=True,
                counts_tokens=True),
    _throughput("total_tokens_per_s", "tokens/s", "Tokens of prompts and answers in a second.", gated=True,
                counts_tokens=True),
    Metric("goodput", "goodput", "/s", ("slo", "goodput_rps"), "rate",
           "Good requests in a second: those that ended ok and within the limits of the objectives.", higher=True,
           objective=True, gated=True),
)  # fmt: skip
VALUES: Final = (
    _value("tokens_per_s_per_gpu", "output tokens/s per GPU", "/s", ("derived", "tokens_per_s_per_gpu"),
           "Tokens of answers that came in a second, divided by the number of GPUs.", higher=True, counts_tokens=True),
    _value("tokens_per_s_per_user", "tokens/s per user (1 / TPOT)", "/s", ("derived", "tokens_per_s_per_user"),
           "How fast one user sees tokens come.", higher=True, counts_tokens=True),
    _value("cost.per_million_output", "$ per million output tokens", "$", ("cost", "per_million_output"),
           "The whole bill of the GPUs, divided by the tokens of answers.", gated=True, counts_tokens=True),
    _value("cost.per_million_total", "$ per million tokens", "$", ("cost", "per_million_total"),
           "The whole bill of the GPUs, divided by the tokens of prompts and answers.", gated=True, counts_tokens=True),
    _value("cost.at_slo", "$ per million output tokens at the SLO", "$", ("cost", "per_million_output_at_slo"),
           "The whole bill of the GPUs, divided by the tokens of good requests only.", counts_tokens=True),
    _value("energy.j_per_output_token", "J per output token", "J", ("energy", "j_per_output_token"),
           "The energy of the GPUs, divided by the tokens of answers.", gated=True, counts_tokens=True),
    _value("kv_usage", "KV cache in use, mean share", "", ("server", "kv_usage", "mean"),
           "How full the server's memory for the tokens at work was."),
    _value("power_w", "GPU power", "W", ("gpu", "power_w"), "What all GPUs drew together, on average."),
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

# What else stands over figures, by how a label begins; the figures themselves are explained by their metric.
_TERMS: Final = {
    "mean": "The average. A few slow requests move it, so read the percentiles too.",
    "p50": "The median: half of the values are at most this.",
    "95 % bounds": "With 95 % confidence the true value is not below the first, and as surely not above the second.",
    "p99, 95 % interval": "With 95 % confidence the true 99th percentile lies in it.",
    "offered": "What was due in a second by the plan, whether or not the target kept up.",
    "good/s": "Good requests in a second (goodput).",
    "output, tokens/s": "Tokens of answers that came in a second of the steady window.",
    "validity": "Checks of the measuring itself. If one fails, the figures must not be used.",
    "dispatch lag": "How late the load generator itself was to begin a request.",
    "send lag": "How long after its due time a request was sent: the load generator's lateness and the connection.",
    "receive lag": "How long an answer lay in this machine's kernel before the load generator read it.",
    "turnaround lag": "How late the load generator was to let a user ask again.",
    "preemptions": "Requests that the server put back into the queue, since its KV cache was full.",
    "KV cache": "The server's memory for the tokens of the requests that it works on.",
}
_PERCENTILES: Final = ("90", "95", "99", "99.9")


def _glossary() -> dict[str, str]:
    percentiles = {f"p{q}": f"Of 100 values, {q} are at most this." for q in _PERCENTILES}
    return {metric.label: metric.meaning for metric in METRICS.values()} | percentiles | _TERMS


# What labels of documents begin with, each with a sentence that explains it.
GLOSSARY: Final = _glossary()
