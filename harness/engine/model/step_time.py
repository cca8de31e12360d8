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

A `StepLaw` is such a formula as plain numbers: a sum of terms, each the longer of a compute and a memory time, each of
these a straight or broken line over what the step does. `StepTime.law` is the one above; measured curves are others.
"""

from bisect import bisect_right
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from itertools import pairwise
from math import isfinite
from typing import Literal

import numpy as np

from tailgate.workloads.common.arrays import Floats

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
    sequences: int = 0
    decode_kv_tokens: int = 0  # those of `kv_tokens` that decoding sequences read; their pairs are as many

    @property
    def tokens(self) -> int:
        return self.prefill_tokens + self.decode_sequences


@dataclass(frozen=True, slots=True)
class CostCurve:
    """Seconds as a function of one weighted sum over a step's quantities.

    The sum x is `constant` plus each quantity times its weight, in the order in which they stand here. Without `knots`
    x itself is the seconds; with them, pairs (x, seconds) with ascending x, the broken line through them, which goes on
    beyond both ends as it goes at them. ValueError where the knots make no line.
    """

    constant: float = 0.0
    tokens: float = 0.0
    sampled: float = 0.0
    attention_pairs: float = 0.0
    kv_tokens: float = 0.0
    sequences: float = 0.0
    decode_sequences: float = 0.0
    decode_kv_tokens: float = 0.0
    knots: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if len(self.knots) == 1 or any(left[0] >= right[0] for left, right in pairwise(self.knots)):
            raise ValueError("knots are at least two points with ascending x")
        if not all(map(isfinite, self.flat())):
            raise ValueError("a cost curve's numbers are finite")

    @property
    def weights(self) -> tuple[float, ...]:
        """The weights of the quantities, in order."""
        return astuple(self)[1:-1]

    def flat(self) -> list[float]:
        """The curve as the kernel reads it: constant, weights, number of knots, and each knot's x and seconds."""
        points = [number for knot in self.knots for number in knot]
        return [self.constant, *self.weights, float(len(self.knots)), *points]


@dataclass(frozen=True, slots=True)
class RooflineTerm:
    """A part of a step that takes as long as the slower of its arithmetic and its memory traffic (None: no bound)."""

    compute: CostCurve
    memory: CostCurve | None = None


@dataclass(frozen=True)
class StepLaw:
    """The seconds of a step: `constant_s` and the terms, added in their order.

    Worked out with + - * / and comparisons only, in one order, so that the kernel (`virtual/_kernel.c`) gets the same
    bits: the weighted sum from left to right without the weights that are 0; on a broken line, y + (x - x_k) * slope
    with slope = (y_k+1 - y_k) / (x_k+1 - x_k), for the last knot k that isn't beyond x, the last of all left out.
    """

    constant_s: float
    terms: tuple[RooflineTerm, ...] = ()

    def seconds(self, step: StepShape) -> float:
        total = self.constant_s
        for compute, memory in self._sides:
            seconds = _on(compute, step)
            if memory is not None:
                seconds = max(seconds, _on(memory, step))
            total += seconds
        return total

    def flat(self) -> Floats:
        """The law as the kernel reads it: constant, number of terms; of each the number of its curves, and these."""
        numbers = [self.constant_s, float(len(self.terms))]
        for term in self.terms:
            curves = [term.compute] if term.memory is None else [term.compute, term.memory]
            numbers.append(float(len(curves)))
            for curve in curves:
                numbers += curve.flat()
        return np.array(numbers)

    @cached_property
    def _sides(self) -> list[tuple["_Line", "_Line | None"]]:
        return [(_line(term.compute), None if term.memory is None else _line(term.memory)) for term in self.terms]


_QUANTITIES = tuple(field.name for field in fields(CostCurve))[1:-1]
_Line = tuple[float, list[tuple[str, float]], list[float], list[tuple[float, float, float]]]


def _line(curve: CostCurve) -> _Line:
    """A curve made ready: constant, weights by name without the zeros, where pieces begin, and their (x, y, slope)."""
    pieces = [(x, y, (y1 - y) / (x1 - x)) for (x, y), (x1, y1) in pairwise(curve.knots)]
    weights = [(name, weight) for name, weight in zip(_QUANTITIES, curve.weights, strict=True) if weight]
    return curve.constant, weights, [piece[0] for piece in pieces], pieces


def _on(line: _Line, step: StepShape) -> float:
    x, weights, begins, pieces = line
    for name, weight in weights:
        x += weight * getattr(step, name)
    if not pieces:
        return x
    begin, y, slope = pieces[max(bisect_right(begins, x) - 1, 0)]
    return y + (x - begin) * slope


@dataclass(frozen=True)
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

    @cached_property
    def law(self) -> StepLaw:
        """The formula as a law."""
        shape, flops, bandwidth = self.shape, self.flops, self.bandwidth
        read = (shape.layer_parameters + shape.head_parameters) * (1 if self.weights == "fp8" else 2)
        linear = RooflineTerm(
            CostCurve(tokens=2 * shape.layer_parameters / flops, sampled=2 * shape.head_parameters / flops),
            CostCurve(constant=read / bandwidth),
        )
        width = shape.layers * shape.heads * shape.head_dim
        attention = RooflineTerm(
            CostCurve(attention_pairs=4 * width / (self.gpu.bf16_flops * self.mfu * self.gpus)),
            CostCurve(kv_tokens=shape.kv_bytes_per_token(self.kv_value_bytes) / bandwidth),
        )
        if self.gpus == 1:
            return StepLaw(self.overhead_s, (linear, attention))
        moved = 2 * (self.gpus - 1) / self.gpus * shape.hidden * ACTIVATION_BYTES  # by each token, in an all-reduce
        reduces = 2 * shape.layers
        links = CostCurve(reduces * ALL_REDUCE_LATENCY_S, tokens=reduces * moved / self.gpu.link_bytes_per_s)
        return StepLaw(self.overhead_s, (linear, attention, RooflineTerm(links)))

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
        return self.law.seconds(step)
