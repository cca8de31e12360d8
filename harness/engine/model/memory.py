"""The memory of one GPU as vLLM divides it at its start: weights, activations, CUDA, graphs, the rest for the cache.

    pool = utilization * reported - weights - activation - non_torch - graphs

With `S` sequences, `T` tokens a step, vocabulary `V`, hidden width `h`, feed-forward width `F`, `k` experts a token of
width `f`, and tensor parallel size `g`:

    sampler    = a 4 S V + b 2 T h          vLLM samples the largest batch when it measures its peak
    experts    = T k (2 h + 4 f / g)        not where they are MXFP4, whose kernel needs no such space
    forward    = 2 T (3 F / g + 4 h)
    activation = max(sampler + experts, forward + experts) + 2 T h for models that see (their encoder's output)

What vLLM measures depends on its version: `MemoryRules`. `a`, `b` and the constants were fitted on the start-up logs of
111 servers, of vLLM 0.10 to 0.27, most of them on one H100; docs/engine-memory.md shows how well they fit.
"""

from dataclasses import dataclass
from typing import Final

from tailgate.harness.engine.model.model_shape import WEIGHT_BYTES, ModelShape, WeightDtype

GIB: Final[int] = 2**30
_VOCABULARY_MULTIPLE: Final = 64
_PLAIN_BYTES: Final = 2  # of embeddings, the output head, norms, routers, activations
_LOGIT_BYTES: Final = 4
_GRAPH_SIZES: Final = 51  # sizes of batches that the logged servers captured
_GRANITE_NON_TORCH_GIB: Final = 0.21  # more than others', in each log; why isn't known


@dataclass(frozen=True, slots=True)
class MemoryRules:
    """What a version of vLLM needs beside the weights. `sampler` and `hidden` are `a` and `b` of the formula above."""

    sampler: float
    hidden: float
    non_torch_gib: float
    non_torch_parallel_gib: float  # with tensor parallelism: buffers of the all-reduce
    graphs_reserved: bool  # whether an estimate of the CUDA graphs is taken from the cache's share


def memory_rules(minor: int) -> MemoryRules:
    """The rules of vLLM 0.`minor`. 0.17 has a sampler of its own; 0.21 begins to reserve the graphs."""
    return MemoryRules(
        sampler=3.655 if minor >= 17 else 9.55,
        hidden=1.54 if minor >= 17 else 1.36,
        non_torch_gib=0.25 if minor >= 18 else 0.13,
        non_torch_parallel_gib=2.1 if minor >= 18 else 0.55,
        graphs_reserved=minor >= 21,
    )


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """What is where on each GPU, bytes. `pool` is what the cache gets; below 0, the model doesn't fit."""

    granted: float
    weights: float
    activation: float
    non_torch: float
    graphs: float

    @property
    def pool(self) -> float:
        return self.granted - self.weights - self.activation - self.non_torch - self.graphs


def weight_bytes(shape: ModelShape, dtype: WeightDtype, gpus: int = 1) -> float:
    """Bytes of weights on each of `gpus` GPUs.

    Embeddings, output head, norms and routers stay 2 bytes wide; routers, MLA's projections down, keys and values of
    fewer heads than GPUs, and the table of rotary embeddings are on each GPU. MLA keeps bf16 copies of the projections
    up, which it multiplies into queries and outputs. Of MXFP4 checkpoints only the experts are MXFP4.
    """
    size = WEIGHT_BYTES["bf16" if dtype == "mxfp4" else dtype]
    vocabulary = -(-shape.vocabulary // _VOCABULARY_MULTIPLE) * _VOCABULARY_MULTIPLE
    embeddings = vocabulary * shape.hidden * (1 if shape.tied_embeddings else 2) / gpus
    if shape.mla_kv_rank:
        attention = shape.mla_split_parameters / gpus + shape.mla_replicated_parameters
        copies = shape.layers * shape.mla_up_parameters / gpus
    else:
        kv_heads = max(shape.kv_heads / gpus, 1)
        attention = shape.hidden * shape.head_dim * (2 * shape.heads / gpus + 2 * kv_heads)
        copies = 0.0
    quantized = shape.layers * attention + shape.feed_forward_parameters / gpus
    norms = 2 * shape.layers * shape.hidden
    plain = embeddings + copies + norms + shape.router_parameters + shape.vision_parameters / gpus
    return quantized * size + _expert_bytes(shape, dtype, gpus) + plain * _PLAIN_BYTES + _rope_bytes(shape)


def activation_bytes(
    shape: ModelShape, dtype: WeightDtype, rules: MemoryRules, *, seqs: int, tokens: int, gpus: int = 1
) -> float:
    """Peak of one GPU's activations with `seqs` sequences and `tokens` tokens a step."""
    hidden = _PLAIN_BYTES * tokens * shape.hidden
    sampler = rules.sampler * _LOGIT_BYTES * seqs * shape.vocabulary + rules.hidden * hidden
    width = shape.feed_forward if shape.expert_layers < shape.layers else shape.shared_feed_forward
    forward = _PLAIN_BYTES * tokens * 3 * width / gpus + 4 * hidden
    experts = 0.0
    if shape.experts and dtype != "mxfp4":
        experts = tokens * shape.experts_per_token * (2 * shape.hidden + 4 * shape.expert_feed_forward / gpus)
    return max(sampler, forward) + experts + (hidden if shape.vision_parameters else 0)


def non_torch_bytes(shape: ModelShape, rules: MemoryRules, gpus: int = 1) -> float:
    """What CUDA, its libraries and the communication between GPUs hold on each GPU."""
    more = _GRANITE_NON_TORCH_GIB if shape.family == "granite" else 0.0
    return (more + (rules.non_torch_gib if gpus == 1 else rules.non_torch_parallel_gib)) * GIB


def graph_bytes(shape: ModelShape, seqs: int) -> float:
    """vLLM's estimate of its CUDA graphs, by how many sizes of batches it captures: up to twice `seqs`, at most 512."""
    sizes: int = sum(size <= 2 * seqs for size in (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)))
    whole = 0.40 + 0.015 * shape.layers + (0.42 if shape.experts else 0.0)
    return whole * GIB * sizes / _GRAPH_SIZES


def context_bytes(gpus: int) -> float:
    """What CUDA takes on each GPU before vLLM looks at how much is free."""
    return (0.5 if gpus == 1 else 1.5) * GIB


def _expert_bytes(shape: ModelShape, dtype: WeightDtype, gpus: int) -> float:
    """Routed experts on each GPU. MXFP4's kernel pads the hidden width to 256 and each GPU's share to 128 or 64; the
    models that come in MXFP4 have biases."""
    size = WEIGHT_BYTES[dtype]
    if dtype != "mxfp4":
        return shape.expert_parameters * size / gpus
    multiple = 128 if gpus <= 2 else 64
    width = -(-shape.expert_feed_forward // (multiple * gpus)) * multiple
    hidden = -(-shape.hidden // 256) * 256
    each = 3 * hidden * width * size + (2 * width + hidden) * _PLAIN_BYTES
    return shape.expert_layers * shape.experts * each


def _rope_bytes(shape: ModelShape) -> int:
    """The table of sines and cosines for each position."""
    return (shape.rope_positions or shape.context) * (shape.mla_rope or shape.head_dim) * _PLAIN_BYTES
