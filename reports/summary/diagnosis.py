"""What held this deployment back? Typed findings, each with the figures it rests on and what to try.

No finding without a figure: where the server or the GPU doesn't tell, nothing is guessed. None on what the deployment
carries without answers: a few, or samples of a moment, tell how a load begins. The thresholds are rules of thumb,
written beside each rule; figures come from the views (`server`, `gpu`, `workload`).
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

import numpy as np

from tailgate.reports.rundir.run import Run
from tailgate.reports.stats.order_statistics import share_bounds
from tailgate.reports.summary.findings import Evidence, Finding, FindingKind

# The least that a finding on the load rests on: answers; where gauges alone tell, seconds; and those of a slowdown.
ANSWERS: Final = 20
_GAUGES_S: Final = 5.0
_SLOWDOWN_S: Final = 1.0


def diagnose(evidence: Evidence) -> list[Finding]:
    """All findings, those that spoil the measurement first, then by the way of a request."""
    run = evidence.analysis.run
    answers = int(np.count_nonzero(run.ok & run.measured))
    rules = (
        _client, _changed, _warming, _throttled, _overloaded, _shed, _queue, _preemptions, _prefill, _decode, _cache,
        _stalls, _gateway, _imbalance, _idle, _under_used, _lengths,
    )  # fmt: skip
    on_load = (_queue, _preemptions, _prefill, _decode, _cache, _stalls, _imbalance, _under_used)
    enough = [rule for rule in rules if answers >= ANSWERS or rule not in on_load]
    return [finding for rule in enough for finding in rule(evidence)]


def _client(e: Evidence) -> Iterator[Finding]:
    names = (
        "dispatch_lag", "offered_load", "turnaround_lag", "receive_lag", "injector_busy", "coalesced_arrivals",
        "coalesced_first_tokens",
    )  # fmt: skip
    bad = [c for c in e.checks if c.name in names and c.status in ("fail", "noted") and c.value is not None]
    spoiled = any(c.status == "fail" and c.name in (*names, "own_error") for c in e.checks)
    if bad and spoiled:
        figures = {f"{c.name}_{c.unit.replace('%', 'percent')}": float(c.value or 0.0) for c in bad}
        says = "The load generator itself was too slow; the target may be faster than it looks."
        yield Finding(FindingKind.CLIENT_BOUND, says, figures, bad[0].remedy)


def _changed(e: Evidence) -> Iterator[Finding]:
    start, end = e.analysis.run.window_ns
    changes = [x for x in e.events if x.kind in ("scale", "restart", "cold-start") and start <= x.t_ns < end]
    if changes:
        counts = Counter(change.kind for change in changes)
        more = f" ({', '.join(f'{kind}: {n}' for kind, n in counts.items())})" if len(changes) > 1 else ""
        says = f"The deployment changed while it was measured: {changes[0].text or changes[0].kind}{more}."
        figures = {"changes": float(len(changes)), "first_at_s": changes[0].t_ns / 1e9}
        yield Finding(
            FindingKind.CHANGED_IN_WINDOW, says, figures, "Measure again without scaling, or longer after it."
        )


def _warming(e: Evidence) -> Iterator[Finding]:
    check = next((c for c in e.checks if c.name == "warmth" and c.status == "fail"), None)
    if check is not None and check.value is not None:
        says = f"The first tenth of the requests had a TPOT {check.value:.2f} times the rest's: still warming up."
        yield Finding(FindingKind.NOT_WARM, says, {"tpot_first_tenth_over_rest": check.value}, check.remedy)


def _throttled(e: Evidence) -> Iterator[Finding]:
    for gpu in e.gpus:
        hard, mild = gpu.slowdown_share or 0.0, gpu.mild_slowdown_share or 0.0
        if hard + mild > 0.01 and (hard + mild) * e.analysis.run.duration_s >= _SLOWDOWN_S:
            reasons = ", ".join(gpu.slowdown_reasons)
            says = f"{gpu.gpu} was slowed down for {100 * (hard + mild):.1f} % of the window: {reasons}"
            figures = {"slowdown_share": hard, "mild_slowdown_share": mild}
            if gpu.sm_clock_mhz is not None:
                figures["sm_clock_mhz"] = gpu.sm_clock_mhz
            yield Finding(
                FindingKind.THROTTLED_GPU, f"{says}.", figures, "Check cooling and power supply of this host."
            )


def _overloaded(e: Evidence) -> Iterator[Finding]:
    if e.flight is not None and e.overloaded:
        says = f"Requests in flight grew by {e.flight.growth:.0f} over the window: more comes in than is served."
        figures = {"in_flight_growth": e.flight.growth, "in_flight_mean": e.flight.mean}
        yield Finding(
            FindingKind.OVERLOADED,
            says,
            figures,
            "Lower the rate, or give the deployment more room: it can't carry this load.",
        )


def _shed(e: Evidence) -> Iterator[Finding]:
    run = e.analysis.run
    offered = int(np.count_nonzero(e.analysis.judged))
    rejected = int(np.count_nonzero(e.analysis.judged & run.is_text("status", "rejected")))
    if rejected:
        says = f"{100 * rejected / offered:.2f} % of requests were turned away (429 or 503)."
        figures = {"rejected": float(rejected), "rejected_share": rejected / offered}
        yield Finding(FindingKind.SHED, says, figures, "Raise the queue cap or the rate limit, or add capacity.")


def _queue(e: Evidence) -> Iterator[Finding]:
    """At least one request waits on average, and queueing is a third of the server's time to first token."""
    server = e.server
    if server is None or server.waiting is None or server.waiting.mean < 1:
        return
    queue, ttft = server.phases.get("queue"), server.phases.get("ttft")
    if (queue is None or queue.n < ANSWERS) and e.analysis.run.duration_s < _GAUGES_S:
        return
    share = queue.mean_ms / ttft.mean_ms if queue and ttft and ttft.mean_ms else None
    if share is not None and share < 1 / 3:
        return
    figures = {"waiting_mean": server.waiting.mean}
    if share is not None and queue is not None:
        figures |= {"queue_mean_ms": queue.mean_ms, "queue_share_of_ttft": share}
    figures |= {f"waiting_{reason}_mean": mean for reason, mean in server.waiting_by_reason.items() if reason}
    kv, running, limit = server.kv_usage, server.running, server.max_num_seqs
    if kv is not None and (kv.mean > 0.9 or kv.max > 0.98):
        says = f"Requests wait for KV cache: {100 * kv.mean:.0f} % of it in use on average."
        figures |= {"kv_usage_mean": kv.mean, "kv_usage_max": kv.max}
        remedy = "More KV room: kv-cache-dtype fp8, a larger gpu-memory-utilization, shorter contexts, another GPU."
        yield Finding(FindingKind.QUEUE_BOUND_KV, says, figures, remedy)
    elif running is not None and limit and running.mean > 0.9 * limit:
        says = f"Requests wait for a place in the batch: {running.mean:.1f} of max_num_seqs {limit:.0f} run."
        figures |= {"running_mean": running.mean, "max_num_seqs": limit}
        yield Finding(
            FindingKind.QUEUE_BOUND_SEQS, says, figures, "Raise max-num-seqs while KV cache and TPOT allow it."
        )
    elif (deferred := server.waiting_by_reason.get("deferred", 0.0)) > server.waiting.mean / 2:
        says = f"Requests wait for something other than room: {deferred:.1f} of {server.waiting.mean:.1f} are deferred."
        remedy = "Look at what they depend on: a KV transfer, a grammar that is compiled, an adapter that is loaded."
        yield Finding(FindingKind.QUEUE_DEFERRED, says, figures, remedy)
    else:
        says = f"Requests wait in the server's queue: {server.waiting.mean:.1f} on average."
        yield Finding(FindingKind.QUEUE_BOUND, says, figures, "Add capacity, or look at what fills the batch.")


def _preemptions(e: Evidence) -> Iterator[Finding]:
    """More than one preemption in twenty requests that ended in the window, whatever their phase."""
    if e.server is None or not e.server.preemptions:
        return
    rates = e.analysis.throughput
    done = max(1.0, rates.requests_per_s * e.analysis.run.duration_s if rates else 0.0)
    if (each := e.server.preemptions / done) > 0.05:
        says = f"Requests were thrown out of the batch {e.server.preemptions:.0f} times and computed again."
        figures = {"preemptions": e.server.preemptions, "preemptions_per_request": each}
        remedy = "Lower max-num-seqs, or give the KV cache more room: recomputing costs more than waiting."
        yield Finding(FindingKind.PREEMPTION_THRASH, says, figures, remedy)


def _prefill(e: Evidence) -> Iterator[Finding]:
    """Prefill takes more than half of the time in which requests are worked on."""
    if e.server is None:
        return
    prefill, decode = e.server.phases.get("prefill"), e.server.phases.get("decode")
    if not prefill or not decode or prefill.n < ANSWERS or prefill.mean_ms + decode.mean_ms == 0:
        return
    share = prefill.mean_ms / (prefill.mean_ms + decode.mean_ms)
    if share > 0.5:
        says = f"Prefill takes {100 * share:.0f} % of a request's time on the server."
        figures = {"prefill_share": share, "prefill_mean_ms": prefill.mean_ms, "decode_mean_ms": decode.mean_ms}
        if e.server.tokens_per_step is not None and e.server.max_num_batched_tokens:
            figures["step_fill"] = e.server.tokens_per_step / e.server.max_num_batched_tokens
        remedy = "Prefix caching, a larger max-num-batched-tokens, more tensor parallelism, or separate prefill."
        yield Finding(FindingKind.PREFILL_BOUND, says, figures, remedy)


def _decode(e: Evidence) -> Iterator[Finding]:
    """Decoding takes over four fifths of the time and nobody waits; a step's fill says what to try.

    Steps read all weights whatever their batch: one that is less than half full would carry more load for little
    more time, a fuller one has to become faster.
    """
    server = e.server
    if server is None or server.running is None or (server.waiting is not None and server.waiting.mean >= 1):
        return
    prefill, decode, running = server.phases.get("prefill"), server.phases.get("decode"), server.running.mean
    if not prefill or not decode or decode.n < ANSWERS or running < 2:
        return
    if not server.max_num_seqs and not server.tokens_per_step:
        return
    share = decode.mean_ms / (prefill.mean_ms + decode.mean_ms)
    if share <= 0.8:
        return
    figures = {"decode_share": share, "running_mean": running}
    steps = f"{running:.1f} sequences share a step"
    if server.max_num_seqs:
        figures["batch_fill"] = running / server.max_num_seqs
        steps += f" with room for {server.max_num_seqs:.0f}"
    if server.tokens_per_step and server.steps_per_s:
        figures |= {"tokens_per_step": server.tokens_per_step, "step_ms": 1000 / server.steps_per_s}
        steps += f"; one takes {1000 / server.steps_per_s:.1f} ms and works on {server.tokens_per_step:.1f} tokens"
    remedy = "Faster steps: quantised weights, speculative decoding, more tensor parallelism."
    if figures.get("batch_fill", 1.0) < 0.5:
        remedy = f"More load: steps that are half empty carry it for little more time. {remedy}"
    says = f"Decoding takes {100 * share:.0f} % of a request's time; {steps}."
    yield Finding(FindingKind.DECODE_BOUND, says, figures, remedy)


def _cache(e: Evidence) -> Iterator[Finding]:
    """The plan repeats a tenth of its prompt tokens or more, and less than half of that was found in the cache."""
    planned = e.workload.planned_reuse if e.workload else None
    hit_share = e.server.prefix_hit_share if e.server else None
    if hit_share is None and e.workload is not None:
        hit_share = e.workload.cached_share
    if planned is not None and planned >= 0.1 and hit_share is not None and hit_share < planned / 2:
        says = f"The prompts repeat {100 * planned:.0f} % of their tokens, "
        says += f"but only {100 * hit_share:.0f} % came from the prefix cache."
        figures = {"planned_reuse": planned, "prefix_hit_share": hit_share}
        remedy = (
            "Check that prefix caching is on, that the cache is large enough, and that sessions stick to an endpoint."
        )
        yield Finding(FindingKind.CACHE_COLD, says, figures, remedy)


def _stalls(e: Evidence) -> Iterator[Finding]:
    """One request in a hundred pauses for over ten median gaps and a fifth of a second, with 95 % confidence."""
    analysis = e.analysis
    itl = analysis.latencies["itl"].at(50.0).value
    stall = analysis.figures.ms["stall"][analysis.run.ok & analysis.run.measured]
    stall = stall[np.isfinite(stall)]
    if itl is None or not len(stall):
        return
    limit = max(10 * itl, 200.0)
    paused = int(np.count_nonzero(stall > limit))
    share = paused / len(stall)
    if share_bounds(paused, len(stall))[0] > 0.01:
        says = f"{100 * share:.1f} % of answers paused for over {limit:.0f} ms, where the median gap is {itl:.1f} ms."
        figures = {"stalled_share": share, "stall_limit_ms": limit, "longest_ms": float(stall.max())}
        remedy = "Long prefills between decode steps, or preemptions: a smaller max-num-batched-tokens shortens them."
        yield Finding(FindingKind.STALLS, says, figures, remedy)


def _gateway(e: Evidence) -> Iterator[Finding]:
    """Most arrivals came in one read with others although the client was not late."""
    run = e.analysis.run
    chunks = run.column("chunks")[run.measured].sum()
    merged = run.column("server_coalesced")[run.measured].sum()
    if chunks and merged / chunks > 0.5:
        says = f"{100 * merged / chunks:.0f} % of tokens came bundled: a gateway or the server sends them together."
        remedy = "Judge TPOT and stall, not ITL; turn off buffering in the proxy (proxy_buffering, flush interval)."
        yield Finding(FindingKind.GATEWAY_COALESCED, says, {"bundled_share": float(merged / chunks)}, remedy)


def _imbalance(e: Evidence) -> Iterator[Finding]:
    """The busiest endpoint runs at least half as many again as the idlest, and one request more."""
    if e.server is None or e.analysis.run.duration_s < _GAUGES_S:
        return
    running = [(x.running, x.url) for x in e.server.endpoints if x.running is not None]
    if len(running) < 2:
        return
    (least, idle), (most, busy) = min(running), max(running)
    if most > max(1.5 * least, least + 1):
        says = f"{busy} runs {most:.1f} requests on average, {idle} only {least:.1f}."
        figures = {"most_running": most, "least_running": least}
        yield Finding(FindingKind.IMBALANCE, says, figures, "Check the load balancing (--balance least-in-flight).")


def _idle(e: Evidence) -> Iterator[Finding]:
    """The stated demand leaves more than two fifths of the stated capacity idle."""
    if e.cost is not None and e.cost.idle_share is not None and e.cost.idle_share > 0.4:
        says = f"At the stated demand {100 * e.cost.idle_share:.0f} % of the capacity is idle."
        figures = {"idle_share": e.cost.idle_share}
        yield Finding(FindingKind.UNDER_USED, says, figures, "A smaller GPU, fewer of them, or more load.")


def _under_used(e: Evidence) -> Iterator[Finding]:
    """No kernel ran for more than two fifths of the time, where no demand is stated."""
    if e.cost is not None and (e.cost.idle_share or 0.0) > 0.4:
        return
    used = [gpu.utilization for gpu in e.gpus if gpu.utilization is not None]
    if used and (share := 1 - sum(used) / len(used)) > 0.4:
        says = f"No kernel ran in {100 * share:.0f} % of the time."
        yield Finding(FindingKind.UNDER_USED, says, {"idle_share": share}, "A smaller GPU or more load.")


def _answers_sent_again(run: Run) -> bool:
    """Whether prompts hold the model's own answers: their lengths are the plan's only about."""
    workload = run.manifest.spec.get("workload") or {}
    kinds = [workload, *(workload.get("classes") or {}).values()]
    return any((kind.get("sessions") or {}).get("history") == "answers" for kind in kinds)


def _lengths(e: Evidence) -> Iterator[Finding]:
    """More than one prompt in a hundred, or one answer where its length was forced, is not as long as planned."""
    run = e.analysis.run
    done = int(np.count_nonzero(run.ok & run.measured))
    if e.workload is not None and done and e.workload.prompt_mismatched > 0.01 * done and not _answers_sent_again(run):
        share = e.workload.prompt_mismatched / done
        says = f"{100 * share:.1f} % of prompts are not of the planned length."
        figures = {"prompt_mismatched": float(e.workload.prompt_mismatched), "prompt_mismatched_share": share}
        remedy = "A chat template longer than the prompt, or another tokenizer than the prompts were made for."
        yield Finding(FindingKind.PROMPTS_DIFFER, says, figures, remedy)
    forced = run.manifest.spec.get("output", "forced") == "forced"
    if e.workload is not None and forced and done and e.workload.mismatched > 0.01 * done:
        share = e.workload.mismatched / done
        says = f"{100 * share:.1f} % of answers are not of the planned length."
        figures = {"mismatched": float(e.workload.mismatched), "mismatched_share": share}
        remedy = "The server ignores min_tokens or ignore_eos: the workload is not the one that was asked for."
        if {"min_tokens", "ignore_eos"} & set(run.manifest.target.requests.get("omitted", ())):
            remedy = (
                "Requests had no min_tokens and no ignore_eos, which not every server knows: the model ended its "
                "answers itself. If the server knows them, use --fields vllm."
            )
        yield Finding(FindingKind.LENGTHS_DIFFER, says, figures, remedy)
