"""The step-time formula against figures worked out by hand, and the presets against published ones."""

from dataclasses import replace

import pytest

from tailgate.harness.engine.config import Settings, as_dict, resolve
from tailgate.harness.engine.model.step_law import CostCurve, RooflineTerm, StepLaw, StepShape
from tailgate.harness.engine.model.step_time import StepTime
from tailgate.harness.engine.preset import presets
from tailgate.workloads.common.errors import UserError

GPUS, MODELS = presets()
H100_8B = StepTime(GPUS["h100-sxm"], MODELS["llama-3.1-8b"], overhead_s=0.0, per_sequence_s=0.0)


def decoding(sequences: int, length: int) -> StepShape:
    """A step in which each of `sequences` that are `length` tokens long gets its next token."""
    read = sequences * length
    return StepShape(0, sequences, sequences, read, read, sequences, read)


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
    one, many = (decoding(n, 1) for n in (1, 64))
    assert model.seconds(many) > 2 * model.seconds(one)


def test_the_latent_cache_is_read_by_each_gpu():
    one = replace(H100_8B, shape=MODELS["deepseek-v3"], weights="fp8")
    for model in (one, replace(one, gpus=8)):
        read = model.seconds(decoding(64, 100_000)) - model.seconds(decoding(64, 1000))
        peak = 64 * 99_000 * 70_272 / 3.35e12
        assert peak < read < 1.3 * peak


def test_quantized_weights_are_multiplied_at_their_rate_where_the_gpu_has_one():
    assert GPUS["h100-sxm"].dense_flops("fp8") == 1979e12
    assert GPUS["a100-sxm"].dense_flops("fp8") == GPUS["a100-sxm"].dense_flops("int4") == 312e12  # unpacked to bf16
    assert GPUS["b200"].dense_flops("fp4") == 9000e12
    assert GPUS["h100-sxm"].dense_flops("mxfp4") == 989.5e12


def test_a_lone_decode_reads_all_weights_once():
    layers_and_head = 32 * (4096 * 128 * 80 + 3 * 4096 * 14336) + 128256 * 4096
    peak = 2 * layers_and_head / 3.35e12 + 1000 * 131072 / 3.35e12
    assert 1.15 * peak < H100_8B.seconds(decoding(1, 1000)) < 1.5 * peak


def test_a_large_prefill_is_bound_by_compute():
    tokens = 8192
    pairs = tokens * (tokens + 1) // 2
    step = StepShape(prefill_tokens=tokens, sampled=1, attention_pairs=pairs, kv_tokens=tokens, sequences=1)
    linear = 2 * (H100_8B.shape.layer_parameters * tokens + 128256 * 4096) / 989.5e12
    attention = 4 * 32 * 4096 * pairs / 989.5e12
    assert 1.2 * (linear + attention) < H100_8B.seconds(step) < 1.7 * (linear + attention)


def test_what_the_host_takes_is_added():
    slow = replace(H100_8B, overhead_s=0.002, per_sequence_s=1e-5)
    assert slow.seconds(decoding(8, 100)) == pytest.approx(H100_8B.seconds(decoding(8, 100)) + 0.002 + 8e-5)


def test_two_gpus_are_faster_than_one_and_less_than_twice_as_fast():
    one, two = (replace(H100_8B, gpus=gpus).seconds(decoding(8, 100)) for gpus in (1, 2))
    assert one / 2 < two < one


def test_more_work_never_takes_less_time():
    base = StepShape(512, 32, 33, attention_pairs=80_000, kv_tokens=9_000, sequences=33, decode_kv_tokens=8_000)
    for name in ("prefill_tokens", "decode_sequences", "sampled", "attention_pairs", "kv_tokens", "sequences"):
        more = replace(base, **{name: getattr(base, name) * 3})
        assert H100_8B.seconds(more) >= H100_8B.seconds(base)


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_a_law_on_every_gpu(gpu: str, model: str):
    law = StepTime(GPUS[gpu], MODELS[model], 8, MODELS[model].checkpoint)
    short, long = (law.seconds(decoding(n, 500)) for n in (1, 256))
    assert 0.4e-3 < short < long


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


def test_a_law_adds_the_longer_side_of_each_term():
    step = StepShape(prefill_tokens=6, decode_sequences=2, sampled=3, kv_tokens=50, sequences=3)
    compute, memory = CostCurve(tokens=0.5, sampled=1.0), CostCurve(2.0, kv_tokens=0.1)
    assert StepLaw(1.0, (RooflineTerm(compute),)).seconds(step) == 1.0 + 7.0
    assert StepLaw(1.0, (RooflineTerm(compute, memory),)).seconds(step) == 1.0 + 7.0
    assert StepLaw(1.0, (RooflineTerm(compute, memory), RooflineTerm(memory))).seconds(step) == 1.0 + 7.0 + 7.0
    assert StepLaw(1.0, (RooflineTerm(compute, CostCurve(8.0)),)).seconds(step) == 9.0


@pytest.mark.parametrize(("tokens", "seconds"), [(0, -1.0), (1, 0.0), (2, 1.0), (3, 2.0), (4, 2.5), (7, 4.0), (9, 5.0)])
def test_a_table_is_a_broken_line_that_goes_on_beyond_its_ends(tokens: int, seconds: float):
    law = StepLaw(0.0, (RooflineTerm(CostCurve(tokens=1.0, knots=((1, 0.0), (3, 2.0), (7, 4.0)))),))
    assert law.seconds(StepShape(prefill_tokens=tokens)) == seconds


@pytest.mark.parametrize("knots", [((1.0, 2.0),), ((1.0, 2.0), (1.0, 3.0)), ((0.0, 1.0), (1.0, float("nan")))])
def test_knots_that_make_no_line_are_refused(knots: tuple[tuple[float, float], ...]):
    with pytest.raises(ValueError, match=r"knots|finite"):
        CostCurve(tokens=1.0, knots=knots)


def test_without_chunked_prefill_the_budget_holds_a_whole_prompt() -> None:
    whole = Settings("h100-sxm/llama-3.1-8b", enable_chunked_prefill=False)
    assert resolve(whole).max_num_batched_tokens == 131_072
    with pytest.raises(UserError, match="smaller than max_model_len"):
        resolve(replace(whole, max_num_batched_tokens=2048))
    with pytest.raises(UserError, match="exceeds max_model_len"):
        resolve(replace(whole, max_model_len=100, long_prefill_token_threshold=101))
