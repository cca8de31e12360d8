"""The engine's settings, resolved: what a preset and the flags come to, as vLLM resolves its own.

Flags have vLLM's names and meanings. Defaults that vLLM chooses by GPU memory are chosen the same way.
"""

from dataclasses import dataclass, fields
from importlib import resources
from typing import Any, Literal

import yaml

from tailgate.harness.engine.model.step_time import Accelerator, ModelShape, StepTime
from tailgate.workloads.common.errors import UserError

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be set from outside; None: resolved from the preset.

    `jitter` is the standard deviation of a step's log duration. `natural_output_tokens` is the median length
    of an answer whose end is left to the model (no `ignore_eos`).
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
    quantization: Literal["fp8"] | None = None
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    enable_prefix_caching: bool = True
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    max_num_queued_reqs: int | None = None
    enable_per_request_metrics: bool = False
    enable_prompt_tokens_details: bool = False
    seed: int = 0
    jitter: float = 0.0
    natural_output_tokens: int = 200


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
    power_limit_w: float | None = None  # of one GPU; None: not known, and so not simulated


def presets() -> tuple[dict[str, Accelerator], dict[str, ModelShape]]:
    return (
        {name: Accelerator(**_numbers(entry)) for name, entry in _read("gpus.yaml").items()},
        {name: ModelShape(**entry) for name, entry in _read("models.yaml").items()},
    )


def resolve(settings: Settings) -> Resolved:
    """Fill in what `settings` leaves open. UserError where the model, its cache or a flag can't be had."""
    gpus, models = presets()
    gpu_name, _, model_name = settings.preset.partition("/")
    if gpu_name not in gpus or model_name not in models:
        raise UserError(
            f"no preset {settings.preset!r}",
            where="--preset",
            remedy=f"It is GPU/MODEL with GPU one of {', '.join(gpus)} and MODEL one of {', '.join(models)}",
        )
    gpu, shape = gpus[gpu_name], models[model_name]
    if settings.quantization == "fp8" and gpu.fp8_flops is None:
        raise UserError(f"{gpu_name} has no fp8 throughput", where="--quantization")
    if shape.heads % settings.tensor_parallel_size:
        raise UserError(
            f"{shape.heads} attention heads can't be split {settings.tensor_parallel_size} ways",
            where="--tensor-parallel-size",
        )
    step_time = StepTime(
        gpu=gpu,
        shape=shape,
        gpus=settings.tensor_parallel_size,
        weights=settings.quantization or "bf16",
        kv_value_bytes=1 if settings.kv_cache_dtype == "fp8" else 2,
    )
    seqs, batched = _defaults_by_memory(gpu.memory_gib)
    length = settings.max_model_len or shape.context
    if length > shape.context:
        raise UserError(f"{length} exceeds the model's context of {shape.context}", where="--max-model-len")
    blocks = settings.num_gpu_blocks_override or _blocks_in_memory(settings, step_time)
    room = blocks * settings.block_size
    if room < length:
        if settings.max_model_len or settings.num_gpu_blocks_override:
            raise UserError(
                f"the KV cache holds {room} tokens, fewer than one request of {length}",
                where="--max-model-len",
                remedy="Lower it, or give more GPUs or blocks",
            )
        if room <= 0:
            raise UserError(
                f"{shape.name} does not fit into {settings.tensor_parallel_size} x {gpu_name}",
                where="--preset",
                remedy="Raise --tensor-parallel-size",
            )
        length = room
    return Resolved(
        settings=settings,
        model_name=settings.served_model_name or shape.name,
        max_model_len=length,
        max_num_seqs=settings.max_num_seqs or seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens or batched,
        num_gpu_blocks=blocks,
        step_time=step_time,
        power_limit_w=_power_limits().get(gpu_name),
    )


def as_dict(resolved: Resolved) -> dict[str, Any]:
    """The resolved configuration under the names of vLLM's `/server_info`, and the step model's figures."""
    settings, model = resolved.settings, resolved.step_time
    return {
        "model_config": {
            "model": model.shape.name,
            "served_model_name": resolved.model_name,
            "max_model_len": resolved.max_model_len,
            "dtype": "torch.bfloat16",
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
            "enable_chunked_prefill": True,
        },
        "simulation": {
            "preset": settings.preset,
            "jitter": settings.jitter,
            "mfu": model.mfu,
            "mbu": model.mbu,
            "overhead_s": model.overhead_s,
            "gpu": {f.name: getattr(model.gpu, f.name) for f in fields(model.gpu)},
        },
    }


def _defaults_by_memory(memory_gib: float) -> tuple[int, int]:
    """vLLM 0.32's max_num_seqs and max_num_batched_tokens for a server, by GPU memory."""
    if memory_gib >= 160:
        return 1024, 16384
    if memory_gib >= 70:
        return 1024, 8192
    return 256, 2048


def _blocks_in_memory(settings: Settings, model: StepTime) -> int:
    """Blocks in what weights and activations (an assumed 1.5 GiB per GPU) leave of the granted memory."""
    granted = (model.gpu.memory_gib * settings.gpu_memory_utilization - 1.5) * GIB * model.gpus
    block = model.shape.kv_bytes_per_token(model.kv_value_bytes) * settings.block_size
    return int((granted - model.weight_bytes) // block)


def _read(name: str) -> dict[str, dict[str, Any]]:
    text = resources.files("tailgate.harness.engine").joinpath("presets", name).read_text(encoding="utf-8")
    read: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return read


def _power_limits() -> dict[str, float]:
    text = resources.files("tailgate.harness.engine").joinpath("presets", "power.yaml").read_text(encoding="utf-8")
    limits: dict[str, float] = yaml.safe_load(text)
    return limits


def _numbers(entry: dict[str, Any]) -> dict[str, Any]:
    """YAML 1.1 reads `3.35e12` as text: an exponent needs its sign there."""
    return {k: v if k == "source" or v is None else float(v) for k, v in entry.items()}
