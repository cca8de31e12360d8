"""What a step has to do, and how long that takes: a law as plain numbers, which the kernel works out to the same bits.

A `StepLaw` is a sum of terms, each the longer of a compute and a memory time, each of these a straight or broken line
over what the step does. `step_time` makes the law of a GPU and a model.
"""

from bisect import bisect_right
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from itertools import pairwise
from math import isfinite

import numpy as np

from tailgate.workloads.common.arrays import Floats


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
