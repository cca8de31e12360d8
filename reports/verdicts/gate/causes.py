"""Where to look first when one side is slower: what the server says of itself on both sides, put side by side.

Queue, prefill, decode, cache, preemptions, throttling: each by the figures of the runs' summaries. Without a
server that tells, nothing is guessed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tailgate.reports.compare.runs import StoredRun
from tailgate.reports.verdicts.gate.runs import mean_of_known
from tailgate.workloads.common.formatting import plain

Place = Literal["queue", "preemption", "prefill", "decode", "cache", "throttle"]
# A change of less than a twentieth is not worth a look.
_WORTH: Final = 0.05


@dataclass(frozen=True)
class Cause:
    """One place to look."""

    place: Place
    says: str  # what changed
    figures: dict[str, tuple[float, float]]  # by name with unit, baseline and candidate
    remedy: str
    weight_ms: float  # how many ms of a request it explains; the largest comes first


def causes(baseline: Sequence[StoredRun], candidate: Sequence[StoredRun]) -> list[Cause]:
    """The places to look, most important first; of one point's runs."""
    sides = (baseline, candidate)
    places = [*_queue(sides), *_phase(sides, "prefill"), *_phase(sides, "decode"), *_rest(sides)]
    return sorted(places, key=lambda cause: -cause.weight_ms)


def _both(sides: Sequence[Sequence[StoredRun]], *path: str) -> tuple[float, float] | None:
    a, b = (mean_of_known(run.summary.value(("server", *path)) for run in runs) for runs in sides)
    return None if a is None or b is None else (a, b)


def _queue(sides: Sequence[Sequence[StoredRun]]) -> Iterator[Cause]:
    times = _both(sides, "phases", "queue", "mean_ms")
    waiting = _both(sides, "waiting", "mean")
    more_ms = times[1] - times[0] if times else 0.0
    more_wait = waiting[1] - waiting[0] if waiting else 0.0
    if not (times and more_ms > max(_WORTH * times[0], 0.5)) and not (times is None and more_wait > 0.5):
        return
    figures: dict[str, tuple[float, float]] = {}
    if times:
        figures["queue_mean_ms"] = times
    if waiting:
        figures["waiting_mean"] = waiting
    if limit := _both(sides, "max_num_seqs"):
        figures["max_num_seqs"] = limit
    if running := _both(sides, "running", "mean"):
        figures["running_mean"] = running
    says = "Requests wait longer in the server's queue" + (
        f": {plain(times[0])} → {plain(times[1])} ms on average" if times else ""
    )
    remedy = "Look at what limits the batch (max-num-seqs, max-num-batched-tokens, KV cache room) on the slower side."
    if limit and limit[1] < limit[0]:
        says += f"; the batch has room for {limit[1]:g} instead of {limit[0]:g} sequences (max_num_seqs)"
    elif (kv := _both(sides, "kv_usage", "mean")) and kv[1] > 0.9 > kv[0]:
        figures["kv_usage_mean"] = kv
        says += f"; its KV cache is {100 * kv[1]:.0f} % full"
    yield Cause("queue", f"{says}.", figures, remedy, more_ms if times else 1.0)


def _phase(sides: Sequence[Sequence[StoredRun]], name: Literal["prefill", "decode"]) -> Iterator[Cause]:
    times = _both(sides, "phases", name, "mean_ms")
    if times is None or times[1] - times[0] <= max(_WORTH * times[0], 0.5):
        return
    figures = {f"{name}_mean_ms": times}
    says = f"{name.capitalize()} takes longer: {plain(times[0])} → {plain(times[1])} ms a request on average"
    if steps := _both(sides, "steps_per_s"):
        figures["steps_per_s"] = steps
    remedy = {
        "prefill": "Look at attention and prefill kernels, chunked prefill, max-num-batched-tokens, the prefix cache.",
        "decode": "Look at decode kernels, CUDA graphs, quantization, speculative decoding, the batch size.",
    }[name]
    yield Cause(name, f"{says}.", figures, remedy, times[1] - times[0])


def _rest(sides: Sequence[Sequence[StoredRun]]) -> Iterator[Cause]:
    hits = _both(sides, "prefix_hit_share")
    if hits and hits[0] - hits[1] > 0.02:
        says = f"Fewer prompt tokens come from the prefix cache: {100 * hits[0]:.0f} → {100 * hits[1]:.0f} %."
        remedy = "Look at enable-prefix-caching, the cache's size, and what is evicted."
        yield Cause("cache", says, {"prefix_hit_share": hits}, remedy, _extra_prefill(sides))
    thrown = _both(sides, "preemptions")
    if thrown and thrown[1] > thrown[0] + 1:
        says = f"Requests are thrown out of the batch more often: {thrown[0]:.0f} → {thrown[1]:.0f} times a run."
        remedy = "Look at the KV cache's room: max-num-seqs, gpu-memory-utilization, cache dtype."
        yield Cause("preemption", says, {"preemptions": thrown}, remedy, 1.0)
    clocks = [
        mean_of_known(gpu.sm_clock_mhz for run in runs if run.summary.gpu for gpu in run.summary.gpu.gpus)
        for runs in sides
    ]
    if clocks[0] and clocks[1] and clocks[1] < (1 - _WORTH) * clocks[0]:
        says = f"The GPUs' clocks are lower: {clocks[0]:.0f} → {clocks[1]:.0f} MHz."
        figures = {"sm_clock_mhz": (clocks[0], clocks[1])}
        yield Cause("throttle", says, figures, "Look at power limits, temperature and clock policy.", 1.0)


def _extra_prefill(sides: Sequence[Sequence[StoredRun]]) -> float:
    times = _both(sides, "phases", "prefill", "mean_ms")
    # It explains the longer prefill, so it goes before it.
    return 1.01 * max(times[1] - times[0], 0.0) if times else 0.5
