"""The step-time formula against figures worked out by hand, and the presets against published ones."""

from dataclasses import replace

import pytest

from tailgate.harness.engine.config import Settings, as_dict, presets, resolve
from tailgate.harness.engine.model.step_time import CostCurve, RooflineTerm, StepLaw, StepShape, StepTime
from tailgate.workloads.common.errors import UserError

GPUS, MODELS = presets()
H100_8B = StepTime(GPUS["h100-sxm"], MODELS["llama-3.1-8b"], mfu=1.0, mbu=1.0, overhead_s=0.0)


def test_parameter_counts_are_the_published_ones():
    published = {
        "llama-3.1-8b": 8.03e9,
        "llama-3.1-70b": 70.6e9,
        "qwen2.5-7b": 7.62e9,
        "qwen2.5-0.5b": 0.494e9,
    }
    for name, count in published.items():
        assert MODELS[name].parameters == pytest.approx(count, rel=0.005)


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


def test_defaults_follow_the_gpu_and_the_cache_fills_its_memory():
    h100 = resolve(Settings("h100-sxm/llama-3.1-8b"))
    assert (h100.max_num_seqs, h100.max_num_batched_tokens, h100.max_model_len) == (1024, 8192, 131072)
    free_gib = 79.6 * 0.92 - 1.5 - h100.step_time.weight_bytes / 2**30
    assert h100.num_gpu_blocks == pytest.approx(free_gib * 2**30 / (131072 * 16), abs=1)
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
        (Settings("l4/llama-3.1-70b"), "does not fit"),
        (Settings("a100-sxm/llama-3.1-8b", quantization="fp8"), "no fp8 throughput"),
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


def test_without_chunked_prefill_the_budget_holds_a_whole_prompt() -> None:
    whole = Settings("h100-sxm/llama-3.1-8b", enable_chunked_prefill=False)
    assert resolve(whole).max_num_batched_tokens == 131_072
    with pytest.raises(UserError, match="smaller than max_model_len"):
        resolve(replace(whole, max_num_batched_tokens=2048))
    with pytest.raises(UserError, match="exceeds max_model_len"):
        resolve(replace(whole, max_model_len=100, long_prefill_token_threshold=101))


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
