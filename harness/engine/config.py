"""The engine's settings, resolved: what a preset and the flags come to, as vLLM resolves its own.

Flags have vLLM's names and meanings. Defaults that vLLM chooses by GPU memory are chosen the same way.
"""

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from tailgate.harness.engine.model.kv_cache import BlockPool
from tailgate.harness.engine.model.memory import GIB, MemoryBudget
from tailgate.harness.engine.model.model_shape import WEIGHT_BYTES, ModelShape, WeightDtype
from tailgate.harness.engine.model.pace import Variation
from tailgate.harness.engine.model.scheduler import Scheduler
from tailgate.harness.engine.model.step_time import Accelerator, StepTime
from tailgate.harness.engine.placement import Placement, refuse_what_cannot_be, refuse_what_does_not_fit
from tailgate.harness.engine.preset import find_preset, power_limits
from tailgate.workloads.common.errors import UserError

_STORED: Final[dict[str, WeightDtype]] = {
    "fp8": "fp8", "fp4": "fp4", "mxfp4": "mxfp4", "int8": "int8", "int4": "int4", "awq": "int4", "gptq": "int4",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be set from outside; None: resolved from the preset. A `max_model_len` of -1: as long as fits.

    `jitter` is the standard deviation of a step's log duration; it and the last five are `pace.Variation`.
    `natural_output_tokens` is the median length of an answer whose end is left to the model (no `ignore_eos`).
    """

    preset: str
    served_model_name: str | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    block_size: int = 16
    num_gpu_blocks_override: int | None = None
    gpu_memory_utilization: float = 0.92
    tensor_parallel_size: int = 1
    dtype: Literal["auto", "bfloat16", "float16", "half"] = "auto"
    quantization: Literal["fp8", "fp4", "mxfp4", "int8", "int4", "awq", "gptq"] | None = None
    kv_cache_dtype: Literal["auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2"] = "auto"
    enforce_eager: bool = False
    enable_prefix_caching: bool = True
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    max_num_queued_reqs: int | None = None
    long_prefill_token_threshold: int = 0
    enable_chunked_prefill: bool = True
    enable_per_request_metrics: bool = False
    enable_prompt_tokens_details: bool = False
    seed: int = 0
    jitter: float = 0.0
    natural_output_tokens: int = 200
    launch_spread: float = 0.0
    drift: float = 0.0
    stall_every: float = 0.0
    stall_seconds: float = 0.0
    slow_start: float = 0.0


@dataclass(frozen=True, slots=True)
class Resolved:
    """Everything that the engine runs with."""

    settings: Settings
    model_name: str
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    num_gpu_blocks: int
    step_time: StepTime
    memory: MemoryBudget
    power_limit_w: float | None = None  # of one GPU; None: not known, and so not simulated


def resolve(settings: Settings) -> Resolved:
    """Fill in what `settings` leaves open. UserError where the model, its cache or a flag can't be had."""
    gpu_name = settings.preset.partition("/")[0]
    gpu, shape = find_preset(settings.preset)
    seqs, batched = _batch(settings, gpu_name, gpu, shape)
    weights = _weights(settings, gpu_name, gpu, shape)
    length = shape.context if settings.max_model_len in (None, -1) else settings.max_model_len
    assert length is not None
    if length > shape.context:
        raise UserError(f"{length} exceeds the model's context of {shape.context}", where="--max-model-len")
    batched = _checked_budget(settings, batched, length)
    kv_value_bytes = 1 if settings.kv_cache_dtype.startswith("fp8") else 2
    placement = Placement(
        gpu_name=gpu_name,
        gpu=gpu,
        shape=shape,
        gpus=settings.tensor_parallel_size,
        weights=weights,
        kv_value_bytes=kv_value_bytes,
        seqs=seqs,
        tokens=batched,
        utilization=settings.gpu_memory_utilization,
        graphs=not settings.enforce_eager,
        length=length if settings.max_model_len != -1 else 0,
        block_size=settings.block_size,
    )
    refuse_what_cannot_be(placement)
    if settings.num_gpu_blocks_override is None:
        refuse_what_does_not_fit(placement)
    blocks = settings.num_gpu_blocks_override or placement.blocks
    room = blocks * settings.block_size
    if blocks > placement.blocks:
        raise UserError(
            f"the memory of the GPU holds {placement.blocks} blocks beside the model, fewer than {blocks}",
            where="--num-gpu-blocks-override",
        )
    if room < placement.length and settings.num_gpu_blocks_override:
        raise UserError(
            f"{blocks} blocks hold {room} tokens, fewer than one request of {length}",
            where="--num-gpu-blocks-override",
            remedy=f"Raise it, or lower --max-model-len to {room} (or auto)",
        )
    return Resolved(
        settings=settings,
        model_name=settings.served_model_name or shape.name,
        max_model_len=min(length, room),  # a sliding model may have less room here: the pool holds all of its layers
        max_num_seqs=seqs,
        max_num_batched_tokens=batched,
        num_gpu_blocks=blocks,
        step_time=StepTime(
            gpu=gpu, shape=shape, gpus=settings.tensor_parallel_size, weights=weights, kv_value_bytes=kv_value_bytes
        ),
        memory=placement.budget,
        power_limit_w=power_limits().get(gpu_name),
    )


def _checked_budget(settings: Settings, batched: int, length: int) -> int:
    """Tokens of a step. Without chunked prefill they must hold a whole prompt, which vLLM's default then does."""
    if settings.long_prefill_token_threshold > length:
        raise UserError(
            f"{settings.long_prefill_token_threshold} exceeds max_model_len ({length})",
            where="--long-prefill-token-threshold",
        )
    if settings.enable_chunked_prefill or batched >= length:
        return batched
    if settings.max_num_batched_tokens is None:
        return length
    raise UserError(
        f"max_num_batched_tokens ({batched}) is smaller than max_model_len ({length}), and prompts are not chunked",
        where="--no-enable-chunked-prefill",
        remedy="Raise --max-num-batched-tokens, lower --max-model-len, or leave chunked prefill on.",
    )


def make_scheduler(resolved: Resolved) -> Scheduler:
    """The scheduler of one replica, with its empty cache."""
    return Scheduler(
        BlockPool(resolved.num_gpu_blocks),
        block_size=resolved.settings.block_size,
        max_num_seqs=resolved.max_num_seqs,
        max_num_batched_tokens=resolved.max_num_batched_tokens,
        by_priority=resolved.settings.scheduling_policy == "priority",
        long_prefill_token_threshold=resolved.settings.long_prefill_token_threshold,
        chunked_prefill=resolved.settings.enable_chunked_prefill,
    )


def variation_of(settings: Settings) -> Variation:
    return Variation(
        settings.jitter, settings.launch_spread, settings.drift, settings.stall_every, settings.stall_seconds,
        settings.slow_start,
    )  # fmt: skip


def as_dict(resolved: Resolved) -> dict[str, Any]:
    """The resolved configuration under the names of vLLM's `/server_info`, and the step model's figures."""
    settings, model = resolved.settings, resolved.step_time
    return {
        "model_config": {
            "model": model.shape.name,
            "served_model_name": resolved.model_name,
            "max_model_len": resolved.max_model_len,
            "dtype": "torch.float16" if settings.dtype in ("float16", "half") else "torch.bfloat16",
            "quantization": settings.quantization,
            "seed": settings.seed,
        },
        "cache_config": {
            "block_size": settings.block_size,
            "num_gpu_blocks": resolved.num_gpu_blocks,
            "kv_cache_size_tokens": resolved.num_gpu_blocks * settings.block_size,
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "cache_dtype": settings.kv_cache_dtype,
            "enable_prefix_caching": settings.enable_prefix_caching,
        },
        "parallel_config": {"tensor_parallel_size": settings.tensor_parallel_size},
        "scheduler_config": {
            "max_num_seqs": resolved.max_num_seqs,
            "max_num_batched_tokens": resolved.max_num_batched_tokens,
            "policy": settings.scheduling_policy,
            "max_num_queued_reqs": settings.max_num_queued_reqs,
            "enable_chunked_prefill": settings.enable_chunked_prefill,
            "long_prefill_token_threshold": settings.long_prefill_token_threshold,
        },
        "simulation": {
            "preset": settings.preset,
            "jitter": settings.jitter,
            "curves": model.gpu.curves,
            "overhead_s": model.overhead_s,
            "per_sequence_s": model.per_sequence_s,
            "gpu": asdict(model.gpu),
            "weights": model.weights,
            "memory_gib_per_gpu": {
                name: round(size / GIB, 3)
                for name, size in {**asdict(resolved.memory), "pool": resolved.memory.pool}.items()
            },
            "memory_unverified": model.shape.unverified,
        },
    }


def _batch(settings: Settings, gpu_name: str, gpu: Accelerator, shape: ModelShape) -> tuple[int, int]:
    """max_num_seqs and max_num_batched_tokens as vLLM 0.32 chooses them for a server, by GPU memory."""
    if gpu.memory_gib >= 160:
        seqs, batched = 1024, 16384
    elif gpu.memory_gib >= 70 and not gpu_name.startswith("a100"):
        seqs, batched = 1024, 8192
    else:
        seqs, batched = 256, 2048
    seqs = settings.max_num_seqs or seqs
    if settings.max_num_batched_tokens is not None:
        batched = settings.max_num_batched_tokens
    else:
        length = settings.max_model_len if settings.max_model_len not in (None, -1) else shape.context
        assert length is not None
        batched = min(batched, seqs * length)
    if settings.max_num_seqs is None:
        seqs = min(seqs, batched)
    if batched < seqs:
        raise UserError(
            f"max_num_batched_tokens ({batched}) must be greater than or equal to max_num_seqs ({seqs})",
            where="--max-num-batched-tokens",
        )
    return seqs, batched


def _weights(settings: Settings, gpu_name: str, gpu: Accelerator, shape: ModelShape) -> WeightDtype:
    """How the weights are stored. UserError for what vLLM refuses: another quantization than the checkpoint's, float16
    for models that overflow in it, int8 where the GPU can't multiply it."""
    half = settings.dtype in ("float16", "half")
    asked = settings.quantization
    given: WeightDtype | None = _STORED[asked] if asked else None
    weights: WeightDtype = given or ("fp16" if half and shape.checkpoint == "bf16" else shape.checkpoint)
    quantized = WEIGHT_BYTES[shape.checkpoint] < WEIGHT_BYTES["bf16"]
    if given and quantized and given not in (shape.checkpoint, *shape.other_checkpoints):
        raise UserError(
            f"quantization method specified in the model config ({shape.checkpoint}) does not match the quantization "
            f"method specified in the `quantization` argument ({asked})",
            where="--quantization",
            remedy="Leave it out",
        )
    if half and (shape.family in ("gemma2", "gemma3") or weights == "mxfp4"):
        what = "weights in mxfp4" if weights == "mxfp4" else f"the model type {shape.family!r}"
        raise UserError(f"float16 is not supported for {what}", where="--dtype", remedy="Use bfloat16")
    if weights == "int8" and gpu.int8_flops is None:
        raise UserError(f"{gpu_name} can't multiply int8", where="--quantization", remedy="Use fp8")
    return weights
