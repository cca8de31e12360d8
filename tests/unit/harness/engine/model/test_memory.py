"""The memory model against start-up logs of real servers, and against figures worked out by hand."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.kit.memory_logs import EXCERPT, SHARED, agreement, read_logs

from tailgate.harness.engine.model.memory import (
    GIB,
    activation_bytes,
    graph_bytes,
    memory_rules,
    non_torch_bytes,
    weight_bytes,
)
from tailgate.harness.engine.preset import presets

MODELS = presets()[1]
LLAMA, DEEPSEEK, GPT_OSS = MODELS["llama-3.1-8b"], MODELS["deepseek-v3"], MODELS["gpt-oss-120b"]
LOGS = [
    pytest.param(EXCERPT, 20, id="excerpt"),
    pytest.param(
        SHARED, 40, id="all", marks=pytest.mark.skipif(not SHARED.exists(), reason="../shared/engine is not here")
    ),
]


@pytest.mark.parametrize(("file", "least"), LOGS)
@pytest.mark.parametrize(
    ("figure", "median", "p90"), [("weights", 0.01, 0.02), ("cache", 0.002, 0.002), ("pool", 0.15, 0.6)]
)
def test_the_model_agrees_with_servers_of_verified_families(
    file: Path, least: int, figure: str, median: float, p90: float
) -> None:
    logs = [log for log in read_logs(file) if log.is_v1 and log.shape and not log.shape.unverified]
    found = agreement(logs, figure)
    assert found is not None and found.n >= least - 10
    assert len(logs) >= least
    assert found.median <= median
    assert found.p90 <= p90


@pytest.mark.parametrize(("file", "least"), LOGS)
def test_each_verified_family_agrees_by_itself(file: Path, least: int) -> None:
    logs = [log for log in read_logs(file) if log.is_v1 and log.shape and not log.shape.unverified]
    families = {log.family for log in logs}
    pools = {family: agreement([log for log in logs if log.family == family], "pool") for family in families}
    assert {family: found.median for family, found in pools.items() if found and found.median > 0.15} == {}


def test_weights_are_those_of_the_shape() -> None:
    """Llama 3.1 8B: 8,030,261,248 weights of two bytes, and 131,072 positions of rotary embeddings."""
    assert weight_bytes(LLAMA, "bf16") == 2 * 8_030_261_248 + 131_072 * 128 * 2 - 2 * 4096  # but for the last norm
    assert weight_bytes(LLAMA, "fp16") == weight_bytes(LLAMA, "bf16")
    plain = 2 * (2 * 128_256 * 4096 + 65 * 4096)
    assert weight_bytes(LLAMA, "fp8") == pytest.approx((8_030_261_248 - plain / 2) + plain + 131_072 * 256, rel=1e-5)


def test_what_tensor_parallelism_does_not_split_stays_whole() -> None:
    many = replace(LLAMA, vocabulary=128_000)
    assert weight_bytes(many, "bf16", 16) * 16 > weight_bytes(many, "bf16", 8) * 8  # 8 heads of keys on 16 GPUs
    assert LLAMA.kv_bytes_per_token(2, 8) == LLAMA.kv_bytes_per_token(2)
    assert LLAMA.kv_bytes_per_token(2, 16) == 2 * LLAMA.kv_bytes_per_token(2)
    assert DEEPSEEK.kv_bytes_per_token(2, 8) == 8 * DEEPSEEK.kv_bytes_per_token(2) == 8 * 61 * 576 * 2


def test_sliding_layers_are_cached_in_groups() -> None:
    gemma = MODELS["gemma-3-27b"]
    assert (gemma.cache_slots.full, gemma.cache_slots.sliding) == (10, 60)  # 52 sliding ones in six groups of ten
    assert gemma.kv_bytes_per_token(2) == 2 * 70 * 16 * 128 * 2
    assert GPT_OSS.kv_bytes_per_token(2) == 73_728


def test_mxfp4_experts_are_padded() -> None:
    one, two, four = (weight_bytes(GPT_OSS, "mxfp4", gpus) for gpus in (1, 2, 4))
    assert one / GIB == pytest.approx(65.97, rel=0.01)  # the log of vLLM's issue 23278
    assert two > 0.5 * one
    assert four > 0.25 * one


def test_the_sampler_or_the_forward_pass_makes_the_peak() -> None:
    rules = memory_rules(32)
    many = activation_bytes(LLAMA, "bf16", rules, seqs=1024, tokens=8192)
    assert many == pytest.approx(3.655 * 4 * 1024 * 128_256 + 1.54 * 2 * 8192 * 4096)
    few = activation_bytes(LLAMA, "bf16", rules, seqs=16, tokens=8192)
    assert few == 2 * 8192 * (3 * 14_336 + 4 * 4096)
    assert activation_bytes(LLAMA, "bf16", memory_rules(16), seqs=1024, tokens=8192) > 2 * many


def test_versions_differ_in_what_they_reserve() -> None:
    assert not memory_rules(20).graphs_reserved and memory_rules(21).graphs_reserved
    rules = memory_rules(32)
    assert non_torch_bytes(LLAMA, rules) == 0.25 * GIB
    assert non_torch_bytes(LLAMA, rules, 4) == 2.1 * GIB
    assert graph_bytes(LLAMA, 8) < graph_bytes(LLAMA, 256) == graph_bytes(LLAMA, 1024)
