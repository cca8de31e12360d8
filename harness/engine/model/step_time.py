"""How long one step of the engine takes, on a GPU and with a model: the kernels of its layers, and what is around them.

A step runs `T` tokens of several sequences through the model: chunks of prompts and one token of each decoding
sequence. Each layer multiplies by its weights (`curves.gemm_s`, by `T`), attends (decoding: by all the cached tokens
that are read; prompts: by pairs of query and key), and with several GPUs adds up their parts twice
(`curves.all_reduce_s`). A mixture of experts reads the experts that the step's tokens are expected to choose. The
kernels' times are peak rates of the datasheet times the shares of them that were measured (`curves`); nothing is fitted
to whole servers.

Around the kernels are estimates: what is neither product nor attention (norms, activations, rotary embeddings) is
`_SMALL_KERNELS` launches a layer and its traffic; a step has an `overhead_s` on the host that the GPU waits for, and
each of its sequences `per_sequence_s` (sampling, scheduling, handing out tokens); they are printed by `/server_info`.

Simplified: MLA is its projections, and attention that reads its cache. Layers with a sliding window read it whole even
where a context is shorter. Layers of linear attention cost their projections only.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np

from tailgate.harness.engine.model.curves import Curves, Peak, curves
from tailgate.harness.engine.model.memory import weight_bytes
from tailgate.harness.engine.model.model_shape import WEIGHT_BYTES, ModelShape, WeightDtype
from tailgate.harness.engine.model.step_law import CostCurve, RooflineTerm, StepLaw, StepShape
from tailgate.workloads.common.arrays import Floats

_ACTIVATION_BYTES: Final = 2
_LOGIT_BYTES: Final = 4
_SMALL_KERNELS: Final = 6
_LAUNCH_S: Final = 1.5e-6  # of a kernel inside a CUDA graph
_STREAMED: Final = 0.7  # share of the bandwidth that kernels attain which only move data
_SAMPLER_S: Final = 20e-6
_SAMPLER_PASSES: Final = 3  # over the logits
# Of the peaks, what large products and reads attain: how busy the GPU is, for its power.
_COMPUTED: Final = 0.75
_READ: Final = 0.9
_TOKENS: Final = (
    1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192,
    12288, 16384, 32768,
)  # fmt: skip
_SAMPLED: Final = (1, 8, 32, 64, 128, 256, 512, 1024)
_CACHED: Final = tuple(2**k for k in range(6, 25))
_PROMPTS: Final = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_MOST_AT_ONCE: Final = 64  # sequences that a knot of `_CACHED` is spread over, and
_TYPICAL_LENGTH: Final = 2048  # about how long each then is


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One accelerator; `source` says where the figures are from. FLOP/s are None where it can't multiply that type.

    `curves`: whose measured shares its kernels are taken to attain; `measured`: whether that is its own.
    """

    source: str
    memory_gib: float
    bandwidth_bytes_per_s: float
    bf16_flops: float
    fp8_flops: float | None
    link_bytes_per_s: float
    curves: str
    int8_flops: float | None = None
    fp4_flops: float | None = None
    measured: bool = False

    def dense_flops(self, weights: WeightDtype) -> float:
        """FLOP/s of matrix products with weights of a type."""
        native = {"fp8": self.fp8_flops, "int8": self.int8_flops, "fp4": self.fp4_flops}
        return native.get(weights) or self.bf16_flops

    @property
    def peak(self) -> Peak:
        """Its rates; a type that it can't multiply is unpacked and multiplied as bf16."""
        dtypes: tuple[WeightDtype, ...] = ("bf16", "fp8", "int8", "fp4")
        return Peak(self.bandwidth_bytes_per_s, {dtype: self.dense_flops(dtype) for dtype in dtypes})


@dataclass(frozen=True)
class StepTime:
    """The law of a model on `gpus` GPUs of a kind, which split each layer between them."""

    gpu: Accelerator
    shape: ModelShape
    gpus: int = 1
    weights: WeightDtype = "bf16"
    kv_value_bytes: int = 2
    overhead_s: float = 0.4e-3
    per_sequence_s: float = 4e-6
    kernels: Curves = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernels", curves(self.gpu.curves, self.gpu.peak))

    @property
    def weight_bytes(self) -> float:
        """Bytes of weights on all GPUs together."""
        return weight_bytes(self.shape, self.weights, self.gpus) * self.gpus

    def weight_bytes_read(self, tokens: int) -> float:
        """Bytes of weights that a step of `tokens` tokens reads, on all GPUs together."""
        shape, size = self.shape, WEIGHT_BYTES[self.weights]
        common = shape.common_parameters * (2 if self.weights == "mxfp4" else size) + 2 * shape.head_parameters
        return common + shape.expert_parameters * size * shape.experts_touched(tokens)

    def compute_seconds(self, step: StepShape) -> float:
        """How long a step's products take where nothing else holds them up, those of the attention included."""
        shape, gpu = self.shape, self.gpu
        weights = 2 * (shape.active_layer_parameters * step.tokens + shape.head_parameters * step.sampled)
        pairs = 4 * (shape.layers - shape.linear_layers) * shape.attention_width * step.attention_pairs
        seconds = weights / gpu.dense_flops(self.weights) + pairs / gpu.bf16_flops
        return seconds / (_COMPUTED * self.gpus)

    def memory_seconds(self, step: StepShape) -> float:
        """How long it takes to read the weights and the cached keys and values once."""
        cached = step.kv_tokens * self.shape.kv_bytes_per_token(self.kv_value_bytes, self.gpus)
        read = self.weight_bytes_read(step.tokens) + cached
        return read / (self.gpu.bandwidth_bytes_per_s * _READ * self.gpus)

    def seconds(self, step: StepShape) -> float:
        return self.law.seconds(step)

    @cached_property
    def law(self) -> StepLaw:
        """The sum of all parts of a step."""
        tokens, sampled = (np.array(grid, np.float64) for grid in (_TOKENS, _SAMPLED))
        layers = _Layers(self)
        head = self._head_s(sampled)
        sliding = []
        if self.shape.sliding_layers:
            sliding.append(
                RooflineTerm(CostCurve(decode_sequences=1.0, knots=_knots(sampled, layers.sliding_s(sampled))))
            )
        return StepLaw(
            self.overhead_s,
            (
                RooflineTerm(CostCurve(tokens=1.0, knots=_knots(tokens, layers.products_s(tokens)))),
                RooflineTerm(CostCurve(sampled=1.0, knots=_knots(sampled, head))),
                RooflineTerm(
                    CostCurve(decode_sequences=1.0, knots=_knots(sampled, layers.decode_floor_s(sampled))),
                    CostCurve(decode_kv_tokens=1.0, knots=_knots(*layers.decode_s)),
                ),
                RooflineTerm(
                    CostCurve(attention_pairs=1.0, decode_kv_tokens=-1.0, knots=_knots(*layers.prefill_s)),
                ),
                RooflineTerm(CostCurve(sequences=self.per_sequence_s)),
                *sliding,
            ),
        )

    def _head_s(self, sampled: Floats) -> Floats:
        """The output head, and choosing a token from its logits."""
        columns = self.shape.vocabulary // self.gpus
        logits = sampled * self.shape.vocabulary * _LOGIT_BYTES * _SAMPLER_PASSES / self.gpu.bandwidth_bytes_per_s
        return self.kernels.gemm_s(sampled, self.shape.hidden, columns, "bf16") + logits + _SAMPLER_S


class _Layers:
    """All layers of a model together, on one of its GPUs."""

    def __init__(self, of: StepTime) -> None:
        self.shape, self.gpus, self.kernels = of.shape, of.gpus, of.kernels
        self.weights = of.weights
        # Of MXFP4 checkpoints only the experts are MXFP4.
        self.plain: WeightDtype = "bf16" if of.weights == "mxfp4" else of.weights
        self.cache = "fp8" if of.kv_value_bytes == 1 else "bf16"
        self.bandwidth = of.gpu.bandwidth_bytes_per_s
        self.heads = max(of.shape.heads / of.gpus, 1.0)
        self.kv_heads = max(of.shape.kv_heads / of.gpus, 1.0)
        self.link = of.gpu.link_bytes_per_s
        self._full = of.shape.layers - of.shape.linear_layers - of.shape.sliding_layers

    def products_s(self, tokens: Floats) -> Floats:
        """Everything but the attention itself, by tokens."""
        shape = self.shape
        dense, routed = shape.layers - shape.expert_layers, shape.expert_layers
        total = shape.layers * (self._projections_s(tokens) + self._small_s(tokens))
        if dense:
            total = total + dense * self._feed_forward_s(tokens, shape.feed_forward)
        if routed:
            total = total + routed * self._experts_s(tokens)
        if self.gpus > 1:
            message = tokens * shape.hidden * _ACTIVATION_BYTES
            over_links = 2 * (self.gpus - 1) / self.gpus * message / self.link
            reduced = np.maximum(self.kernels.all_reduce_s(message, self.gpus), over_links)
            total = total + 2 * shape.layers * reduced
        return np.asarray(total)

    def decode_floor_s(self, sequences: Floats) -> Floats:
        """What attention of decoding sequences takes at least, in the layers that read whole contexts."""
        return self._full * self._decode_one_s(sequences, np.full_like(sequences, 16.0))

    def sliding_s(self, sequences: Floats) -> Floats:
        """Attention of decoding sequences in the layers with a window, which is read whole."""
        shape = self.shape
        return shape.sliding_layers * self._decode_one_s(sequences, np.full_like(sequences, float(shape.window)))

    @property
    def decode_s(self) -> tuple[Floats, Floats]:
        """(cached tokens that are read, seconds): the same by what is read, however many sequences share it."""
        cached = np.array(_CACHED, np.float64)
        sequences = np.clip(cached / _TYPICAL_LENGTH, 1, _MOST_AT_ONCE)
        return cached, self._full * self._decode_one_s(sequences, cached / sequences)

    @property
    def prefill_s(self) -> tuple[Floats, Floats]:
        """(pairs of query and key, seconds): the attention of one prompt in all layers."""
        shape = self.shape
        prompt = np.array(_PROMPTS, np.float64)
        pairs = prompt * (prompt + 1) / 2
        width = shape.attention_width / shape.heads
        per_pair = self.kernels.prefill_attention_s_per_pair(prompt, self.heads, int(width))
        seconds = self._full * pairs * per_pair
        if shape.sliding_layers:
            seconds = seconds + shape.sliding_layers * np.minimum(pairs, prompt * shape.window) * per_pair
        return pairs, seconds

    def _decode_one_s(self, sequences: Floats, length: Floats) -> Floats:
        shape = self.shape
        if shape.mla_kv_rank:  # one vector a token stands for keys and values of all heads
            width = (shape.mla_kv_rank + shape.mla_rope) // 2
            return self.kernels.decode_attention_s(sequences, length, 1.0, width, self.cache)
        return self.kernels.decode_attention_s(sequences, length, self.kv_heads, shape.head_dim, self.cache)

    def _projections_s(self, tokens: Floats) -> Floats:
        """The products around the attention."""
        shape, gemm_s = self.shape, self.kernels.gemm_s
        if shape.mla_kv_rank:
            query = shape.mla_nope + shape.mla_rope
            down = shape.mla_q_rank + shape.mla_kv_rank + shape.mla_rope
            return (
                gemm_s(tokens, shape.hidden, down, self.plain)
                + gemm_s(tokens, shape.mla_q_rank or shape.hidden, int(self.heads * query), self.plain)
                + gemm_s(tokens, shape.mla_kv_rank, int(self.heads * (shape.mla_nope + shape.mla_v)), "bf16")
                + gemm_s(tokens, int(self.heads * shape.mla_v), shape.hidden, self.plain)
            )
        columns = int((self.heads + 2 * self.kv_heads) * shape.head_dim)
        back = gemm_s(tokens, int(self.heads * shape.head_dim), shape.hidden, self.plain)
        return gemm_s(tokens, shape.hidden, columns, self.plain) + back

    def _feed_forward_s(self, tokens: Floats, width: int) -> Floats:
        hidden, inner = self.shape.hidden, max(1, width // self.gpus)
        first = (self.shape.feed_forward_matrices - 1) * inner
        gemm_s = self.kernels.gemm_s
        return gemm_s(tokens, hidden, first, self.plain) + gemm_s(tokens, inner, hidden, self.plain)

    def _experts_s(self, tokens: Floats) -> Floats:
        """Router, experts, and the experts that all tokens pass."""
        shape = self.shape
        seconds = self.kernels.gemm_s(tokens, shape.hidden, max(shape.experts, 512), "bf16")
        seconds = seconds + self.kernels.experts_s(
            tokens, shape.hidden, shape.expert_feed_forward / self.gpus, shape.experts, shape.experts_per_token,
            self.weights,
        )  # fmt: skip
        if shape.shared_feed_forward:
            seconds = seconds + self._feed_forward_s(tokens, shape.shared_feed_forward)
        return np.asarray(seconds)

    def _small_s(self, tokens: Floats) -> Floats:
        """What only moves data: norms, rotary embeddings, the activation function."""
        shape = self.shape
        inner = shape.experts_per_token * shape.expert_feed_forward if shape.expert_layers else shape.feed_forward
        heads = (self.heads + 2 * self.kv_heads) * shape.head_dim
        values = tokens * (8 * shape.hidden + 3 * inner / self.gpus + 3 * heads)
        return np.asarray(values * _ACTIVATION_BYTES / (_STREAMED * self.bandwidth) + _SMALL_KERNELS * _LAUNCH_S)


def _knots(x: Floats, seconds: Floats) -> tuple[tuple[float, float], ...]:
    """The broken line through these points and the origin: of nothing, nothing is done.

    Where less was measured to take more time, kernels for more would have done: more takes no less time.
    """
    least = np.minimum.accumulate(seconds[::-1])[::-1]
    return ((0.0, 0.0), *zip(x.tolist(), least.tolist(), strict=True))
