"""Profiles have the laws of the traces they are fitted to (bounds as promised in docs/workloads.md)."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tailgate.workloads.arrivals.spec import build
from tailgate.workloads.config.workload import WorkloadSpec
from tailgate.workloads.plan.plan import Plan, make_plan
from tailgate.workloads.sampling.random_streams import RandomStream
from tailgate.workloads.statistics.arrivals import dispersion, ks_distance, on_off, peak_to_mean
from tailgate.workloads.statistics.prefix_reuse import implied_reuse

SEEDS = range(20)


def trace(path: Path, **more: Any) -> Plan:
    return make_plan(WorkloadSpec.model_validate({"trace": {"file": path} | more}), 1)


def azure(traces: Path, name: str) -> Plan:
    return trace(traces / "azure-2023" / f"AzureLLMInferenceTrace_{name}.csv", format="azure")


def times_s(plan: Plan) -> np.ndarray:
    return plan.table["at_ns"].to_numpy() / 1e9


def arrivals(profile: str, span: float, rate: float) -> list[np.ndarray]:
    spec = WorkloadSpec.model_validate({"profile": profile, "arrivals": {"rate": rate}}).resolved(Path())
    assert spec.arrivals is not None
    process = build(spec.arrivals)
    return [process.times_ns(partial(RandomStream, seed, "arrivals", "shared"), span, span) / 1e9 for seed in SEEDS]


@pytest.mark.parametrize(("profile", "name"), [("chat-gateway", "conv"), ("code-completion", "code")])
def test_lengths_are_within_a_ks_distance_of_two_hundredths(traces: Path, profile: str, name: str) -> None:
    recorded = azure(traces, name).table
    drawn = make_plan(WorkloadSpec(profile=profile, requests=50_000), 1).table
    for column in ("prompt_tokens", "output_tokens"):
        assert ks_distance(drawn[column].to_numpy(), recorded[column].to_numpy()) <= 0.02


def test_chat_gateway_has_the_traces_dispersion(traces: Path) -> None:
    recorded = times_s(azure(traces, "conv"))
    span = float(recorded[-1])
    drawn = arrivals("chat-gateway", span, len(recorded) / span)
    for window, bound in ((1.0, 0.25), (10.0, 0.25), (60.0, 0.35)):
        wanted = dispersion(recorded, window, span).value
        got = np.mean([dispersion(times, window, span).value or 0 for times in drawn])
        assert got == pytest.approx(wanted, rel=bound)


def test_code_completion_has_the_traces_bursts_pauses_and_peak(traces: Path) -> None:
    recorded = times_s(azure(traces, "code"))
    span = float(recorded[-1])
    wanted = on_off(recorded)
    drawn = arrivals("code-completion", span, len(recorded) / span)
    got = [on_off(times) for times in drawn]
    assert np.mean([one.duty for one in got]) == pytest.approx(wanted.duty, rel=0.2)
    assert np.mean([np.median(one.on_s) for one in got]) == pytest.approx(np.median(wanted.on_s), rel=0.2)
    assert np.mean([np.median(one.off_s) for one in got]) == pytest.approx(np.median(wanted.off_s), rel=0.2)
    peaks = [peak_to_mean(times, 10.0, span) or 0 for times in drawn]
    assert np.mean(peaks) == pytest.approx(peak_to_mean(recorded, 10.0, span), rel=0.35)


def test_chat_long_shares_what_the_trace_shares(traces: Path) -> None:
    recorded = trace(traces / "mooncake" / "conversation_trace.jsonl.gz", format="mooncake")
    wanted = implied_reuse(recorded.table, recorded.block_tokens).token_share
    drawn = make_plan(WorkloadSpec(profile="chat-long", duration=3600), 1)
    assert implied_reuse(drawn.table, drawn.block_tokens).token_share == pytest.approx(wanted, abs=0.03)
    assert (drawn.table["turn"].to_numpy() > 0).mean() == pytest.approx(0.333, abs=0.05)
    for column, bound in (("prompt_tokens", 0.05), ("output_tokens", 0.03)):
        assert ks_distance(drawn.table[column].to_numpy(), recorded.table[column].to_numpy()) < bound


def test_rag_shares_what_the_trace_shares(traces: Path) -> None:
    recorded = trace(traces / "ragpulse" / "0_trace.jsonl.gz", format="ragpulse")
    wanted = implied_reuse(recorded.table, recorded.block_tokens).token_share
    drawn = make_plan(WorkloadSpec(profile="rag", requests=5000), 1)
    assert implied_reuse(drawn.table, drawn.block_tokens).token_share == pytest.approx(wanted, abs=0.02)
    assert ks_distance(drawn.table["prompt_tokens"].to_numpy(), recorded.table["prompt_tokens"].to_numpy()) < 0.03


@pytest.mark.parametrize("name", ["agentic-coding", "reasoning", "chat-long", "summarize-batch"])
def test_a_long_profile_scales_to_a_small_context(name: str) -> None:
    plan = make_plan(WorkloadSpec(profile=name, max_context=4096, requests=300, duration=None), 1)
    total = plan.table["prompt_tokens"].to_numpy() + plan.table["output_tokens"].to_numpy()
    assert total.max() <= 4096
    assert np.median(total) > 200


@pytest.mark.parametrize("context", [4096, 32_768])
def test_scaled_to_a_small_context_chat_long_shares_as_much(context: int) -> None:
    def share(max_context: int) -> float:
        made = make_plan(WorkloadSpec(profile="chat-long", max_context=max_context, duration=3600), 1)
        return implied_reuse(made.table, made.block_tokens).token_share

    assert share(context) == pytest.approx(share(131_072), abs=0.02)


def test_a_closed_loop_scales_its_blocks_too() -> None:
    made = make_plan(WorkloadSpec(profile="chat-long", users=4, requests=2000, max_context=4096), 1)
    assert 16 <= made.block_tokens < 32  # of 512, by 4,096 over the 99th percentile
