"""Whether a model and its cache fit on their GPUs, how much is missing where they don't, and what would fit."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from tailgate.harness.engine.model import memory
from tailgate.harness.engine.model.memory import GIB, MemoryBudget
from tailgate.harness.engine.model.model_shape import ModelShape, WeightDtype
from tailgate.harness.engine.model.step_time import Accelerator
from tailgate.workloads.common.errors import UserError

_VLLM_MINOR: Final = 32  # the version whose memory is modelled, 0.32
_GPUS: Final = (1, 2, 4, 8)  # of one machine
_TWO_MACHINES: Final = 16
_SEQS: Final = (512, 256, 128, 64, 32, 16)
_LEAST_CONTEXT: Final = 1024  # a shorter one is no help
_SMALLER: Final[dict[WeightDtype, tuple[WeightDtype, ...]]] = {"bf16": ("fp8", "int4"), "fp16": ("fp8", "int4")}


@dataclass(frozen=True)
class Placement:
    """A model on `gpus` GPUs of a kind. `length`: the tokens that one request may have; 0: as many as fit."""

    gpu_name: str
    gpu: Accelerator
    shape: ModelShape
    gpus: int
    weights: WeightDtype
    kv_value_bytes: int
    seqs: int
    tokens: int
    utilization: float
    graphs: bool
    length: int
    block_size: int

    @cached_property
    def budget(self) -> MemoryBudget:
        """What is where on each GPU."""
        rules = memory.memory_rules(_VLLM_MINOR)
        return MemoryBudget(
            granted=self.utilization * self.gpu.memory_gib * GIB,
            weights=memory.weight_bytes(self.shape, self.weights, self.gpus),
            activation=memory.activation_bytes(
                self.shape, self.weights, rules, seqs=self.seqs, tokens=self.tokens, gpus=self.gpus
            ),
            non_torch=memory.non_torch_bytes(self.shape, rules, self.gpus),
            graphs=memory.graph_bytes(self.shape, self.seqs) if self.graphs else 0.0,
        )

    @property
    def block_bytes(self) -> float:
        """A block of cache on each GPU."""
        return self.block_size * self.shape.kv_bytes_per_token(self.kv_value_bytes, self.gpus) / self.gpus

    @property
    def blocks(self) -> int:
        """Blocks that the memory for the cache holds; 0 where there is none."""
        return max(0, int(self.budget.pool // self.block_bytes))

    @property
    def missing(self) -> float:
        """Bytes that are missing on each GPU for one request of `length` tokens."""
        return max(0.0, self._request_bytes(max(self.length, 1)) - self.budget.pool)

    def _request_bytes(self, length: int) -> float:
        """Cache of one request of `length` tokens on each GPU; in sliding layers, of a window and a step's tokens."""
        shape, size = self.shape, self.block_size
        slots = shape.cache_slots
        within = min(length, shape.window - 1 + self.tokens) if shape.window else length
        blocks = slots.full * -(-length // size) + slots.sliding * -(-within // size)
        return blocks * self.block_bytes / (slots.full + slots.sliding)


def refuse_what_cannot_be(placement: Placement) -> None:
    """UserError where vLLM refuses so much memory, or so many GPUs for this model."""
    gpus, shape = placement.gpus, placement.shape
    if why := _indivisible(placement):
        raise UserError(f"{shape.name} can't be split {gpus} ways: {why}", where="--tensor-parallel-size")
    free = placement.gpu.memory_gib - memory.context_bytes(gpus) / GIB
    if placement.utilization * placement.gpu.memory_gib > free:
        raise UserError(
            f"{placement.utilization:g} of {placement.gpu.memory_gib:g} GiB is more than the {free:.1f} GiB that are "
            f"free on {placement.gpu_name} once CUDA has started",
            where="--gpu-memory-utilization",
            remedy=f"At most {free / placement.gpu.memory_gib:.2f} can be had",
        )


def refuse_what_does_not_fit(placement: Placement) -> None:
    """UserError that says how much memory is missing, and what would fit."""
    if not placement.missing:
        return
    budget, length, shape = placement.budget, placement.length, placement.shape
    parts = ", ".join(
        f"{name} {size / GIB:.1f}"
        for name, size in (
            ("weights", budget.weights),
            ("activations", budget.activation),
            ("CUDA and communication", budget.non_torch),
            ("graphs", budget.graphs),
        )
    )
    on = f"{placement.gpus} x {placement.gpu_name}" if placement.gpus > 1 else f"one {placement.gpu_name}"
    each = "on each GPU " if placement.gpus > 1 else ""
    if budget.pool <= 0:
        what = f"{shape.name} doesn't fit on {on}: {placement.missing / GIB:.1f} GiB are missing {each}"
        what += f"for the weights and a cache for one request of {length:,} tokens" if length else "for the weights"
    else:
        what = f"the KV cache of {shape.name} on {on} holds {placement.blocks * placement.block_size:,} tokens, fewer "
        what += f"than one request of {length:,}: {placement.missing / GIB:.1f} GiB are missing {each}".rstrip()
    granted = f"({budget.granted / GIB:.1f} GiB are granted; {parts})"
    ways = what_would_fit(placement)
    remedy = (
        f"Any of these would do: {'; '.join(ways)}" if ways else "No change of the flags would do; take larger GPUs"
    )
    raise UserError(f"{what.rstrip()} {granted}", where="--preset", remedy=remedy)


def what_would_fit(placement: Placement) -> list[str]:
    """Changes of the flags after which everything fits: single ones, or else more GPUs with smaller weights."""
    more = [replace(placement, gpus=gpus) for gpus in _GPUS if gpus > placement.gpus]
    fewer = [replace(placement, seqs=seqs) for seqs in _SEQS if seqs < placement.seqs]
    smaller = [replace(placement, weights=weights) for weights in _SMALLER.get(placement.weights, ())]
    narrow = [replace(placement, kv_value_bytes=1)] if placement.kv_value_bytes > 1 and placement.length else []
    short = replace(placement, length=placement.blocks * placement.block_size)
    found = [
        (_first(more), "--tensor-parallel-size {0.gpus}"),
        (_first(fewer), "--max-num-seqs {0.seqs}"),
        (_first(smaller), "--quantization {0.weights}"),
        (_first(narrow), "--kv-cache-dtype fp8"),
        (_first([short]) if short.length >= _LEAST_CONTEXT else None, "--max-model-len {0.length} (or auto)"),
    ]
    ways = [words.format(fitting) for fitting, words in found if fitting]
    if not ways:
        both = [replace(each, weights=one.weights) for one in smaller for each in more]
        if fitting := _first(both):
            ways.append(f"--tensor-parallel-size {fitting.gpus} with --quantization {fitting.weights}")
        if fitting := _first([replace(placement, gpus=_TWO_MACHINES)]):
            ways.append(f"--tensor-parallel-size {fitting.gpus}")
    return ways


def _first(placements: list[Placement]) -> Placement | None:
    return next((each for each in placements if not _indivisible(each) and not each.missing), None)


def _indivisible(placement: Placement) -> str | None:
    """Why a model can't be split over so many GPUs; None where it can."""
    gpus, shape = placement.gpus, placement.shape
    if shape.heads % gpus:
        return f"the number of attention heads, {shape.heads}, isn't divisible by it"
    if shape.kv_heads and shape.kv_heads % gpus and gpus % shape.kv_heads:
        return f"the number of key-value heads, {shape.kv_heads}, and it don't divide each other"
    if placement.weights == "mxfp4":  # its kernel pads
        return None
    for width in (shape.feed_forward, shape.expert_feed_forward):
        if width % gpus:
            return f"the feed-forward width, {width}, isn't divisible by it"
        if placement.weights == "int4" and width // gpus % 128:
            return (
                f"a share of the feed-forward width, {width // gpus}, is no whole number of groups of 128 int4 weights"
            )
    return None
