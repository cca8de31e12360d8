"""How long one step of the engine takes: a roofline over what the step computes and reads.

A step runs `T` tokens of several sequences through the model: chunks of prompts (prefill) and one token
of each decoding sequence. With the dense throughput `F`, memory bandwidth `B`, their attainable shares
`mfu`, `mbu`, tensor parallel size `g` and link bandwidth `N`:

    linear    = max( (2 P_layers T + 2 P_head S) / (g F mfu),  W / (g B mbu) )
    attention = max( 4 L H d A / (g F mfu),                    K kv / (g B mbu) )
    links     = 2 L (2 (g-1)/g T h b / N + 10 us)              for g > 1: two all-reduces a layer
    step      = overhead + linear + attention + links

`P_layers`, `P_head` weights of the layers and of the output head, `W` their bytes (read once a step), `S`
sequences that sample a token, `L` layers, `H d` width of the attention heads, `A` query-key pairs, `K`
cached tokens read, `kv` bytes of one token's keys and values, `h` hidden width, `b` bytes of an activation.

Roofline: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model", CACM 52(4), 2009.
The shares `mfu`, `mbu`, the 10 us of an all-reduce and the `overhead` (scheduling, launch, sampling) are
assumptions, not measurements; they are printed by `/server_info`.
"""

from dataclasses import dataclass
from typing import Literal

ALL_REDUCE_LATENCY_S = 10e-6
ACTIVATION_BYTES = 2


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One accelerator; `source` says where the figures are from. `fp8_flops` is None where it has none."""

    source: str
    memory_gib: float
    bandwidth_bytes_per_s: float
    bf16_flops: float
    fp8_flops: float | None
    link_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A dense decoder with grouped-query attention and a gated feed-forward."""

    source: str
    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocabulary: int
    tied_embeddings: bool
    context: int

    @property
    def layer_parameters(self) -> int:
        """Weights of all layers: attention projections and the three feed-forward matrices."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.feed_forward)

    @property
    def head_parameters(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All weights, embeddings included (norms and biases, under 0.01 %, left out)."""
        return self.layer_parameters + self.head_parameters * (1 if self.tied_embeddings else 2)

    def kv_bytes_per_token(self, bytes_per_value: int) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_per_value


@dataclass(slots=True)
class StepShape:
    """What a step has to do, summed over its sequences."""

    prefill_tokens: int = 0
    decode_sequences: int = 0
    sampled: int = 0
    attention_pairs: int = 0
    kv_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.prefill_tokens + self.decode_sequences


@dataclass(frozen=True, slots=True)
class StepTime:
    """The formula of this module with a machine and a model put in."""

    gpu: Accelerator
    shape: ModelShape
    gpus: int = 1
    weights: Literal["bf16", "fp8"] = "bf16"
    kv_value_bytes: int = 2
    mfu: float = 0.6
    mbu: float = 0.8
    overhead_s: float = 1.0e-3

    @property
    def weight_bytes(self) -> int:
        return self.shape.parameters * (1 if self.weights == "fp8" else 2)

    @property
    def flops(self) -> float:
        """Attainable FLOP/s of all GPUs together, for the matrix products with the weights."""
        dense = self.gpu.fp8_flops if self.weights == "fp8" else self.gpu.bf16_flops
        if dense is None:
            raise ValueError("this GPU has no fp8 throughput")
        return dense * self.mfu * self.gpus

    @property
    def bandwidth(self) -> float:
        return self.gpu.bandwidth_bytes_per_s * self.mbu * self.gpus

    def compute_seconds(self, step: StepShape) -> float:
        """How long the matrix products take by themselves, those of the attention included."""
        shape = self.shape
        weights = 2 * (shape.layer_parameters * step.tokens + shape.head_parameters * step.sampled) / self.flops
        pairs = 4 * shape.layers * shape.heads * shape.head_dim * step.attention_pairs
        return weights + pairs / (self.gpu.bf16_flops * self.mfu * self.gpus)

    def memory_seconds(self, step: StepShape) -> float:
        """How long it takes to read the weights and the cached keys and values once."""
        cached = step.kv_tokens * self.shape.kv_bytes_per_token(self.kv_value_bytes)
        return (self.weight_bytes + cached) / self.bandwidth

    def seconds(self, step: StepShape) -> float:
        shape = self.shape
        weight_size = 1 if self.weights == "fp8" else 2
        linear = max(
            2 * (shape.layer_parameters * step.tokens + shape.head_parameters * step.sampled) / self.flops,
            weight_size * (shape.layer_parameters + shape.head_parameters) / self.bandwidth,
        )
        attention = max(
            4
            * shape.layers
            * shape.heads
            * shape.head_dim
            * step.attention_pairs
            / (self.gpu.bf16_flops * self.mfu * self.gpus),
            step.kv_tokens * shape.kv_bytes_per_token(self.kv_value_bytes) / self.bandwidth,
        )
        links = 0.0
        if self.gpus > 1:
            moved = 2 * (self.gpus - 1) / self.gpus * step.tokens * shape.hidden * ACTIVATION_BYTES
            links = 2 * shape.layers * (moved / self.gpu.link_bytes_per_s + ALL_REDUCE_LATENCY_S)
        return self.overhead_s + linear + attention + links
