"""The engine's figures under vLLM's names: plain counts, cheap to add to, rendered by prometheus_client."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tailgate.harness.engine.config import Resolved, as_dict
from tailgate.harness.engine.model.scheduler import EngineSequence, EngineStep, Scheduler, StepOutcome

# Bucket bounds of vLLM 0.32.
_TTFT = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
)  # fmt: skip
_ITL = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_REQUEST = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
_ITERATION = tuple(float(2**k) for k in (0, *range(3, 15)))
_LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
_LATENESS = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)

# Of the requests' latencies (`vllm:NAME_seconds`).
LATENCY_BUCKETS = {
    "time_to_first_token": _TTFT,
    **dict.fromkeys(
        (
            "e2e_request_latency", "request_queue_time", "request_prefill_time", "request_decode_time",
            "request_inference_time",
        ),
        _REQUEST,
    ),
}  # fmt: skip


class EngineHistogram:
    """Counts per bucket (the last one open-ended) and the sum of what was observed."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts, as Prometheus expects them."""
        names = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self.counts)), strict=True))


class EngineMetrics(Collector):
    """Counts every step and every ended request; `/metrics` reads the counts."""

    def __init__(self, resolved: Resolved, scheduler: Scheduler) -> None:
        self._resolved = resolved
        self._scheduler = scheduler
        self._labels = {"engine": "0", "model_name": resolved.model_name}
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generation_tokens = 0
        self.rejected = 0
        self.overruns = 0
        self.success = dict.fromkeys(("stop", "length", "abort", "error"), 0)
        self.iteration = EngineHistogram(_ITERATION)
        self.ttft = EngineHistogram(_TTFT)
        self.itl = EngineHistogram(_ITL)
        self.e2e = EngineHistogram(_REQUEST)
        self.queue = EngineHistogram(_REQUEST)
        self.prefill = EngineHistogram(_REQUEST)
        self.decode = EngineHistogram(_REQUEST)
        self.inference = EngineHistogram(_REQUEST)
        self.request_prompt = EngineHistogram(_LENGTHS)
        self.request_generation = EngineHistogram(_LENGTHS)
        self.lateness = EngineHistogram(_LATENESS)

    def stepped(self, step: EngineStep, outcome: StepOutcome, now_s: float) -> None:
        """Record a step that ended at `now_s`, and set its sequences' token times."""
        self.iteration.observe(step.shape.tokens)
        self.generation_tokens += len(outcome.emitted)
        observe_gap = self.itl.observe
        for sequence in outcome.emitted:
            last = sequence.last_token_s
            sequence.last_token_s = now_s
            if last is not None:
                observe_gap(now_s - last)
                continue
            sequence.first_token_s = now_s
            self.ttft.observe(now_s - sequence.arrival_s)
            self.prompt_tokens += sequence.prompt_tokens
            self.cached_tokens += sequence.cached_tokens

    def ended(self, sequence: EngineSequence, reason: str) -> None:
        """Record a request that ended. Of aborted ones only the count is kept, as in vLLM."""
        self.success[reason] += 1
        first, last, scheduled = sequence.first_token_s, sequence.last_token_s, sequence.scheduled_s
        if reason == "abort" or first is None or last is None or scheduled is None:
            return
        self.e2e.observe(last - sequence.arrival_s)
        self.queue.observe(scheduled - sequence.arrival_s)
        self.prefill.observe(first - scheduled)
        self.decode.observe(last - first)
        self.inference.observe(last - scheduled)
        self.request_prompt.observe(sequence.prompt_tokens)
        self.request_generation.observe(sequence.generated)

    def collect(self) -> Iterator[Metric]:
        scheduler, counters = self._scheduler, self._scheduler.counters
        yield self._gauge("vllm:num_requests_running", "Requests in the running batch", len(scheduler.running))
        yield self._gauge("vllm:num_requests_waiting", "Requests in the queue", scheduler.waiting_count)
        yield self._split(
            GaugeMetricFamily(
                "vllm:num_requests_waiting_by_reason",
                "Requests in the queue, by reason",
                labels=[*self._labels, "reason"],
            ),
            {"capacity": scheduler.waiting_count, "deferred": 0},
        )
        yield self._gauge("vllm:kv_cache_usage_perc", "KV blocks in use, 1 is all", scheduler.pool.usage)
        for name, text, value in (
            ("vllm:prefix_cache_queries", "Tokens looked up in the prefix cache", counters.prefix_queries),
            ("vllm:prefix_cache_hits", "Tokens found in the prefix cache", counters.prefix_hits),
            ("vllm:num_preemptions", "Preemptions", counters.preemptions),
            ("vllm:prompt_tokens", "Prompt tokens of requests that got their first token", self.prompt_tokens),
            ("vllm:prompt_tokens_cached", "Those of them found in the prefix cache", self.cached_tokens),
            ("vllm:generation_tokens", "Tokens generated", self.generation_tokens),
            (
                "tailgate_engine_step_overruns",
                "Steps after which the schedule was given up and begun anew",
                self.overruns,
            ),
        ):
            family = CounterMetricFamily(name, text, labels=list(self._labels))
            family.add_metric(list(self._labels.values()), value)
            yield family
        yield self._split(
            CounterMetricFamily(
                "vllm:request_success", "Requests that ended", labels=[*self._labels, "finished_reason"]
            ),
            self.success,
        )
        rejections = CounterMetricFamily(
            "vllm:admission_rejections", "Requests refused by a queue limit", labels=["model_name", "reason"]
        )
        rejections.add_metric([self._resolved.model_name, "max_num_queued_reqs"], self.rejected)
        yield rejections
        for name, text, histogram in (
            ("vllm:iteration_tokens_total", "Tokens per step", self.iteration),
            ("vllm:time_to_first_token_seconds", "Time to first token", self.ttft),
            ("vllm:inter_token_latency_seconds", "Gap between tokens", self.itl),
            ("vllm:e2e_request_latency_seconds", "Arrival to last token", self.e2e),
            ("vllm:request_queue_time_seconds", "Arrival to first step", self.queue),
            ("vllm:request_prefill_time_seconds", "First step to first token", self.prefill),
            ("vllm:request_decode_time_seconds", "First token to last token", self.decode),
            ("vllm:request_inference_time_seconds", "First step to last token", self.inference),
            ("vllm:request_prompt_tokens", "Prompt tokens per request", self.request_prompt),
            ("vllm:request_generation_tokens", "Generated tokens per request", self.request_generation),
            (
                "tailgate_engine_step_lateness_seconds",
                "How late a step's tokens left: the simulation's own error",
                self.lateness,
            ),
        ):
            family_h = HistogramMetricFamily(name, text, labels=list(self._labels))
            family_h.add_metric(list(self._labels.values()), histogram.buckets(), histogram.sum)
            yield family_h
        yield self._cache_config()

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, text, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family

    def _split(self, family: GaugeMetricFamily | CounterMetricFamily, values: dict[str, int]) -> Metric:
        for label, value in values.items():
            family.add_metric([*self._labels.values(), label], value)
        return family

    def _cache_config(self) -> Metric:
        labels = {name: str(value) for name, value in as_dict(self._resolved)["cache_config"].items()}
        family = GaugeMetricFamily("vllm:cache_config_info", "The cache's configuration", labels=[*labels, "engine"])
        family.add_metric([*labels.values(), "0"], 1)
        return family
