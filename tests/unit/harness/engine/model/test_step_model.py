"""The step-time formula against figures worked out by hand, and the presets against published ones."""

from dataclasses import replace

import pytest

from tailgate.harness.engine.config import Settings, as_dict, resolve
from tailgate.harness.engine.model.step_time import StepShape, StepTime
from tailgate.harness.engine.preset import presets
from tailgate.workloads.common.errors import UserError

GPUS, MODELS = presets()
H100_8B = StepTime(GPUS["h100-sxm"], MODELS["llama-3.1-8b"], mfu=1.0, mbu=1.0, overhead_s=0.0)


def test_parameter_counts_are_the_published_ones():
    published = {
        "llama-3.1-8b": 8.03e9,
        "llama-3.1-70b": 70.6e9,
        "qwen2.5-7b": 7.62e9,
        "qwen2.5-0.5b": 0.494e9,
        "llama-3.1-405b": 405.9e9,
        "qwen2.5-3b": 3.09e9,
        "qwen2.5-14b": 14.77e9,
        "qwen2.5-32b": 32.76e9,
        "qwen2.5-72b": 72.7e9,
        "qwen3-8b": 8.19e9,
        "qwen3-32b": 32.76e9,
        "qwen3-30b-a3b": 30.53e9,
        "qwen3-235b-a22b": 235.1e9,
        "mistral-7b": 7.25e9,
        "mixtral-8x7b": 46.7e9,
        "deepseek-v3": 671.0e9,
        "gpt-oss-20b": 20.9e9,
        "gpt-oss-120b": 116.8e9,
        "gemma-3-27b": 27.0e9,
    }
    for name, count in published.items():
        assert MODELS[name].parameters == pytest.approx(count, rel=0.005), name


def test_a_token_passes_the_experts_that_it_is_routed_to():
    active = {"qwen3-30b-a3b": 3.0e9, "qwen3-235b-a22b": 22e9, "deepseek-v3": 37e9, "gpt-oss-120b": 5.1e9}
    for name, count in active.items():
        shape = MODELS[name]
        assert shape.active_layer_parameters + shape.head_parameters == pytest.approx(count, rel=0.06), name


def test_a_step_reads_the_experts_that_its_tokens_touch():
    shape = MODELS["qwen3-30b-a3b"]
    model = replace(H100_8B, shape=shape)
    assert shape.experts_touched(1) == 8 / 128
    assert shape.experts_touched(16) == pytest.approx(1 - (120 / 128) ** 16)
    common = 2 * (shape.common_parameters + shape.head_parameters)
    assert model.weight_bytes_read(1) == common + 2 * shape.expert_parameters / 16
    assert model.weight_bytes_read(10_000) == pytest.approx(common + 2 * shape.expert_parameters)
    one, many = (StepShape(decode_sequences=n, sampled=n, attention_pairs=n, kv_tokens=n) for n in (1, 64))
    assert model.seconds(many) > 5 * model.seconds(one)


def test_the_latent_cache_is_read_by_each_gpu():
    shape = MODELS["deepseek-v3"]
    one = replace(H100_8B, shape=shape, weights="fp8")
    context = StepShape(decode_sequences=64, sampled=64, attention_pairs=64, kv_tokens=64 * 100_000)
    short = StepShape(decode_sequences=64, sampled=64, attention_pairs=64, kv_tokens=0)
    eight = replace(one, gpus=8)
    cache = 64 * 100_000 * 70_272 / 3.35e12
    assert one.seconds(context) - one.seconds(short) == pytest.approx(cache, rel=0.01)
    assert eight.seconds(context) - eight.seconds(short) == pytest.approx(cache, rel=0.01)


def test_quantized_weights_are_multiplied_at_their_rate_where_the_gpu_has_one():
    assert GPUS["h100-sxm"].dense_flops("fp8") == 1979e12
    assert GPUS["a100-sxm"].dense_flops("fp8") == GPUS["a100-sxm"].dense_flops("int4") == 312e12  # unpacked to bf16
    assert GPUS["b200"].dense_flops("fp4") == 9000e12
    assert GPUS["h100-sxm"].dense_flops("mxfp4") == 989.5e12


def test_a_lone_decode_reads_all_weights_once():
    layers_and_head = 32 * (4096 * 128 * 80 + 3 * 4096 * 14336) + 128256 * 4096
    expected = 2 * layers_and_head / 3.35e12 + 1000 * 131072 / 3.35e12
    step = StepShape(decode_sequences=1, sampled=1, attention_pairs=1000, kv_tokens=1000)
    assert H100_8B.seconds(step) == pytest.approx(expected)


def test_a_large_prefill_is_bound_by_compute():
    tokens = 8192
    step = StepShape(prefill_tokens=tokens, sampled=1, attention_pairs=tokens * (tokens + 1) // 2, kv_tokens=tokens)
    linear = 2 * (H100_8B.shape.layer_parameters * tokens + 128256 * 4096) / 989.5e12
    attention = 4 * 32 * 4096 * tokens * (tokens + 1) / 2 / 989.5e12
    assert H100_8B.seconds(step) == pytest.approx(linear + attention)


def test_overhead_and_links_are_added():
    step = StepShape(decode_sequences=8, sampled=8, attention_pairs=800, kv_tokens=800)
    slow = replace(H100_8B, overhead_s=0.002)
    assert slow.seconds(step) == pytest.approx(H100_8B.seconds(step) + 0.002)
    two = replace(H100_8B, gpus=2)
    links = 2 * 32 * (8 * 4096 * 2 / 450e9 + 10e-6)
    assert two.seconds(step) == pytest.approx(H100_8B.seconds(step) / 2 + links)


def test_more_work_never_takes_less_time():
    base = StepShape(prefill_tokens=512, decode_sequences=32, sampled=33, attention_pairs=40_000, kv_tokens=9_000)
    for name in ("prefill_tokens", "decode_sequences", "sampled", "attention_pairs", "kv_tokens"):
        more = replace(base, **{name: getattr(base, name) * 3})
        assert H100_8B.seconds(more) >= H100_8B.seconds(base)


def test_defaults_follow_the_gpu_and_narrow_values_take_half_the_cache():
    h100 = resolve(Settings("h100-sxm/llama-3.1-8b"))
    assert (h100.max_num_seqs, h100.max_num_batched_tokens, h100.max_model_len) == (1024, 8192, 131072)
    l4 = resolve(Settings("l4/qwen2.5-7b"))
    assert (l4.max_num_seqs, l4.max_num_batched_tokens) == (256, 2048)
    fp8 = resolve(Settings("h100-sxm/llama-3.1-8b", kv_cache_dtype="fp8"))
    assert fp8.num_gpu_blocks == pytest.approx(2 * h100.num_gpu_blocks, abs=1)


def test_flags_win_over_the_preset_and_show_in_the_resolved_configuration():
    resolved = resolve(Settings("l40s/llama-3.1-8b", max_num_seqs=3, max_model_len=2048, served_model_name="m"))
    shown = as_dict(resolved)
    assert shown["scheduler_config"]["max_num_seqs"] == 3
    assert shown["model_config"]["served_model_name"] == "m"
    assert shown["model_config"]["max_model_len"] == 2048


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings("h100/llama"), "no preset 'h100/llama'"),
        (Settings("l4/llama-3.1-70b"), "doesn't fit"),
        (Settings("l4/qwen2.5-0.5b", max_model_len=99999), "exceeds the model's context"),
        (
            Settings("l4/qwen2.5-0.5b", max_model_len=4096, num_gpu_blocks_override=10),
            "fewer than one request",
        ),
        (Settings("h100-sxm/llama-3.1-8b", tensor_parallel_size=3), "can't be split 3 ways"),
    ],
)
def test_what_cannot_be_simulated_is_said(settings: Settings, words: str):
    with pytest.raises(UserError, match=words):
        resolve(settings)
