"""What doesn't fit is refused by how much, and what is said to fit fits."""

import re
import shlex
from dataclasses import replace

import pytest

from tailgate.harness.engine.__main__ import parser
from tailgate.harness.engine.config import Settings, as_dict, resolve
from tailgate.workloads.common.errors import UserError


def settings(preset: str, *flags: str) -> Settings:
    given = vars(parser().parse_args(["--preset", preset, *flags]))
    return Settings(**{key: value for key, value in given.items() if key not in ("host", "port", "detach")})


@pytest.mark.parametrize(
    ("preset", "ways"),
    [
        ("l4/llama-3.1-8b", 2),
        ("h100-sxm/llama-3.1-70b", 1),
        ("h100-sxm/gpt-oss-120b", 3),
        ("l4/llama-3.1-70b", 2),
        ("rtx-4090/qwen3-14b", 2),
        ("h100-sxm/qwen3-30b-a3b --gpu-memory-utilization 0.8", 1),
    ],
)
def test_each_way_that_is_said_to_fit_fits(preset: str, ways: int) -> None:
    preset, *flags = shlex.split(preset)
    with pytest.raises(UserError, match=r"\d GiB are missing") as refused:
        resolve(settings(preset, *flags))
    said = re.split("; ", refused.value.remedy.removeprefix("Any of these would do: "))
    assert len(said) >= ways, refused.value
    for way in said:
        resolve(settings(preset, *flags, *shlex.split(re.sub(r" \(or auto\)| with", "", way))))


def test_the_missing_memory_is_what_it_takes() -> None:
    with pytest.raises(UserError) as refused:
        resolve(Settings("l40s/qwen3-32b"))
    missing = float(re.search(r"([\d.]+) GiB are missing", str(refused.value))[1])  # type: ignore[index]
    budget = resolve(Settings("b200/qwen3-32b", max_num_seqs=256, max_num_batched_tokens=2048)).memory
    needed = (budget.weights + budget.activation + budget.non_torch + budget.graphs) / 2**30 + 40_960 * 262_144 / 2**30
    assert missing == pytest.approx(needed - 0.92 * 44.39, abs=0.06)


def test_a_context_as_long_as_fits_can_be_asked_for() -> None:
    with pytest.raises(UserError, match="fewer than one request of 131,072"):
        resolve(Settings("l4/llama-3.1-8b"))
    fitted = resolve(settings("l4/llama-3.1-8b", "--max-model-len", "auto"))
    assert fitted.max_model_len == fitted.num_gpu_blocks * 16 < 131_072
    assert resolve(Settings("h100-sxm/llama-3.1-8b", max_model_len=-1)).max_model_len == 131_072


def test_a_request_of_a_sliding_model_needs_less_than_its_tokens_say() -> None:
    some = Settings("h100-sxm/gpt-oss-120b", max_num_seqs=128)
    resolved = resolve(some)  # vLLM starts it too: half of its layers keep 128 tokens only
    assert resolved.max_model_len == resolved.num_gpu_blocks * 16 < 131_072


def test_the_cache_gets_what_is_left() -> None:
    resolved = resolve(Settings("h100-sxm/llama-3.1-8b"))
    budget = resolved.memory
    left = 0.92 * 79.19 * 2**30 - budget.weights - budget.activation - budget.non_torch - budget.graphs
    assert resolved.num_gpu_blocks == int(left // (131_072 * 16))
    eager = resolve(Settings("h100-sxm/llama-3.1-8b", enforce_eager=True))
    assert eager.num_gpu_blocks - resolved.num_gpu_blocks == pytest.approx(budget.graphs / (131_072 * 16), abs=1)
    two = resolve(Settings("h100-sxm/llama-3.1-8b", tensor_parallel_size=2))
    assert two.num_gpu_blocks == int(two.memory.pool // (131_072 * 16 / 2))


def test_what_was_not_verified_is_said() -> None:
    assert as_dict(resolve(Settings("h100-sxm/llama-3.1-8b")))["simulation"]["memory_unverified"] is None
    vision = as_dict(resolve(Settings("h100-sxm/gemma-3-27b", max_model_len=8192)))
    assert "vision" in vision["simulation"]["memory_unverified"]
    hybrid = as_dict(resolve(Settings("h200-sxm/qwen3.6-27b")))
    assert "linear attention" in hybrid["simulation"]["memory_unverified"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Settings("h200/llama-3.1-8b"), "Did you mean h200-sxm"),
        (Settings("h100-sxm/lama-3.1-8b"), "Did you mean llama-3.1-8b"),
        (Settings("h100-sxm/zzz"), "Known: llama-3.1-8b, "),
        (
            Settings("l4/qwen2.5-7b", max_num_seqs=512, max_num_batched_tokens=256),
            "greater than or equal to max_num_seqs",
        ),
        (Settings("h100-sxm/gpt-oss-20b", quantization="awq"), "does not match the quantization"),
        (Settings("h100-sxm/gemma-2-9b", dtype="float16"), "float16 is not supported"),
        (Settings("h100-sxm/gpt-oss-20b", dtype="half"), "float16 is not supported for weights in mxfp4"),
        (Settings("b200/qwen2.5-7b", quantization="int8"), "can't multiply int8"),
        (Settings("l4/qwen2.5-7b", gpu_memory_utilization=0.99), "free on l4 once CUDA has started"),
        (Settings("h100-sxm/qwen2.5-7b", tensor_parallel_size=8), "attention heads, 28"),
        (Settings("h100-sxm/qwen2.5-7b", tensor_parallel_size=28), "don't divide each other|isn't divisible"),
        (Settings("h100-sxm/llama-3.1-8b", tensor_parallel_size=32, quantization="int4"), "groups of 128"),
        (Settings("l4/qwen2.5-0.5b", num_gpu_blocks_override=10**7), "fewer than 10000000"),
    ],
)
def test_what_vllm_refuses_is_refused(given: Settings, words: str) -> None:
    with pytest.raises(UserError, match=words):
        resolve(given)


def test_defaults_of_the_batch_are_those_of_vllm_for_the_gpu() -> None:
    def batch(given: Settings) -> tuple[int, int]:
        resolved = resolve(replace(given, max_model_len=-1 if given.max_model_len is None else given.max_model_len))
        return resolved.max_num_seqs, resolved.max_num_batched_tokens

    assert batch(Settings("h100-sxm/llama-3.1-8b")) == (1024, 8192)
    assert batch(Settings("a100-sxm/llama-3.1-8b")) == (256, 2048)
    assert batch(Settings("b200/llama-3.1-8b")) == batch(Settings("mi300x/llama-3.1-8b")) == (1024, 16384)
    assert batch(Settings("rtx-4090/llama-3.1-8b")) == (256, 2048)
    assert batch(Settings("h100-sxm/llama-3.1-8b", max_num_batched_tokens=512)) == (512, 512)
    assert batch(Settings("h100-sxm/llama-3.1-8b", max_num_seqs=2, max_model_len=1000)) == (2, 2000)


def test_a_checkpoint_that_is_quantized_stays_so() -> None:
    assert resolve(Settings("h200-sxm/deepseek-v3", tensor_parallel_size=8)).step_time.weights == "fp8"
    assert resolve(Settings("h100-sxm/gpt-oss-20b")).step_time.weights == "mxfp4"
    fp4 = resolve(Settings("b200/deepseek-v3", tensor_parallel_size=8, quantization="fp4"))
    assert fp4.step_time.weights == "fp4"
    awq = resolve(Settings("a100-sxm-40/qwen2.5-32b", quantization="awq", max_model_len=8192))
    assert awq.memory.weights / 2**30 == pytest.approx(18, abs=1)
