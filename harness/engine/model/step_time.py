"""How long one step of the engine takes: a roofline over what the step computes and reads.

A step runs `T` tokens of several sequences through the model: chunks of prompts (prefill) and one token
of each decoding sequence. With the dense throughput `F`, memory bandwidth `B`, their attainable shares
`mfu`, `mbu`, tensor parallel size `g` and link bandwidth `N`:

    linear    = max( (2 P_layers T + 2 P_head S) / (g F mfu),  W(T) / (g B mbu) )
    attention = max( 4 L H d A / (g F mfu),                    K kv / (g B mbu) )
    links     = 2 L (2 (g-1)/g T h b / N + 10 us)              for g > 1: two all-reduces a layer
    step      = overhead + linear + attention + links

`P_layers` weights of the layers that one token passes, `P_head` those of the output head, `W(T)` the bytes of
all weights that a step of `T` tokens reads (once), `S` sequences that sample a token, `L` layers, `H d` width
of the attention heads, `A` query-key pairs, `K` cached tokens read, `kv` bytes of one token's keys and values on
all GPUs together, `h` hidden width, `b` bytes of an activation. Of a mixture of `E` experts, `k` a token, a step
reads those that its tokens are expected to touch, `E (1 - (1 - k/E)^T)`. MLA's cache is on each GPU, and each reads
it. Layers with a sliding window are taken to read the whole context.

Weights of 8 or 4 bits are multiplied at the rate of their type where the GPU has it; where it has not, and where they
are int4, they are unpacked and multiplied as bf16.

Roofline: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model", CACM 52(4), 2009.
The shares `mfu`, `mbu`, the 10 us of an all-reduce and the `overhead` (scheduling, launch, sampling) are
assumptions, not measurements; they are printed by `/server_info`.
"""

from dataclasses import dataclass

from tailgate.harness.engine.model.memory import weight_bytes
from tailgate.harness.engine.model.model_shape import WEIGHT_BYTES, ModelShape, WeightDtype

ALL_REDUCE_LATENCY_S = 10e-6
ACTIVATION_BYTES = 2


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One accelerator; `source` says where the figures are from. FLOP/s are None where it can't multiply that type.

    `measured`: whether curves of its kernels are known; otherwise its speeds are the datasheet's times a share.
    """

    source: str
    memory_gib: float
    bandwidth_bytes_per_s: float
    bf16_flops: float
    fp8_flops: float | None
    link_bytes_per_s: float
    int8_flops: float | None = None
    fp4_flops: float | None = None
    measured: bool = False

    def dense_flops(self, weights: WeightDtype) -> float:
        """FLOP/s of matrix products with weights of a type."""
        native = {"fp8": self.fp8_flops, "int8": self.int8_flops, "fp4": self.fp4_flops, "mxfp4": self.fp4_flops}
        return native.get(weights) or self.bf16_flops


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
    weights: WeightDtype = "bf16"
    kv_value_bytes: int = 2
    mfu: float = 0.6
    mbu: float = 0.8
    overhead_s: float = 1.0e-3

    @property
    def weight_bytes(self) -> float:
        """Bytes of weights on all GPUs together."""
        return weight_bytes(self.shape, self.weights, self.gpus) * self.gpus

    def weight_bytes_read(self, tokens: int) -> float:
        """Bytes of weights that a step of `tokens` tokens reads, on all GPUs together."""
        shape, size = self.shape, WEIGHT_BYTES[self.weights]
        common = shape.common_parameters * (2 if self.weights == "mxfp4" else size) + 2 * shape.head_parameters
        return common + shape.expert_parameters * size * shape.experts_touched(tokens)

    @property
    def flops(self) -> float:
        """Attainable FLOP/s of all GPUs together, for the matrix products with the weights."""
        return self.gpu.dense_flops(self.weights) * self.mfu * self.gpus

    @property
    def bandwidth(self) -> float:
        return self.gpu.bandwidth_bytes_per_s * self.mbu * self.gpus

    def compute_seconds(self, step: StepShape) -> float:
        """How long the matrix products take by themselves, those of the attention included."""
        return self._linear_compute(step) + self._attention_compute(step)

    def memory_seconds(self, step: StepShape) -> float:
        """How long it takes to read the weights and the cached keys and values once."""
        return self.weight_bytes_read(step.tokens) / self.bandwidth + self._attention_memory(step)

    def _linear_compute(self, step: StepShape) -> float:
        shape = self.shape
        return 2 * (shape.active_layer_parameters * step.tokens + shape.head_parameters * step.sampled) / self.flops

    def _attention_compute(self, step: StepShape) -> float:
        pairs = 4 * (self.shape.layers - self.shape.linear_layers) * self.shape.attention_width * step.attention_pairs
        return pairs / (self.gpu.bf16_flops * self.mfu * self.gpus)

    def _attention_memory(self, step: StepShape) -> float:
        return step.kv_tokens * self.shape.kv_bytes_per_token(self.kv_value_bytes, self.gpus) / self.bandwidth

    def seconds(self, step: StepShape) -> float:
        shape = self.shape
        linear = max(self._linear_compute(step), self.weight_bytes_read(step.tokens) / self.bandwidth)
        attention = max(self._attention_compute(step), self._attention_memory(step))
        links = 0.0
        if self.gpus > 1:
            moved = 2 * (self.gpus - 1) / self.gpus * step.tokens * shape.hidden * ACTIVATION_BYTES
            links = 2 * shape.layers * (moved / self.gpu.link_bytes_per_s + ALL_REDUCE_LATENCY_S)
        return self.overhead_s + linear + attention + links
