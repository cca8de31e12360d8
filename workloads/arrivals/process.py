"""An arrival process is a renewal law run on a clock that a rate function speeds up and slows down.

With unit-mean gaps whose running sum is S_1 < S_2 < ..., and the cumulative rate L(t) (arrivals expected
in [0, t]), arrivals are at t_i = L^-1(S_i) (the time change of Cinlar, "Introduction to Stochastic
Processes", 1975, ch. 4.7). So any law of gaps combines with any shape of the rate, and the law is kept at
scales shorter than the rate's changes. The rate's shapes are in `rate_shapes`, the laws in `renewal`.
"""

from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from tailgate.workloads.arrivals.rate_shapes import RandomStreams, Rates, Shape
from tailgate.workloads.arrivals.renewal import Gamma, Renewal, Weibull
from tailgate.workloads.common.arrays import Floats, Ints
from tailgate.workloads.sampling import portable_math
from tailgate.workloads.sampling.distributions import ProbabilityDistribution

_FIRST_CHUNK, _LAST_CHUNK = 1 << 8, 1 << 16


class Arrivals(Protocol):
    """Arrival times of requests or sessions."""

    def times_ns(self, streams: RandomStreams, until_s: float, span_s: float) -> Ints:
        """Arrival times in [0, until_s), ascending, ns.

        `span_s` is the time over which the asked mean rate is to hold (warm-up and measured part): a random
        rate is scaled to it. For a given span, a longer `until_s` only appends.
        """

    def scaling(self, streams: RandomStreams, span_s: float) -> float:
        """What a random rate is multiplied by to have its mean over the span."""


@dataclass(frozen=True)
class Process:
    """One renewal law on one rate."""

    law: Renewal
    rates: Rates

    def times_ns(self, streams: RandomStreams, until_s: float, span_s: float) -> Ints:
        edges, expected, rates = self.rates.cumulative(streams, until_s, span_s)
        gaps, total = streams("gaps"), float(expected[-1])
        position, chunk = self.law.first(gaps), _FIRST_CHUNK
        parts: list[Ints] = []
        while position < total:
            # Chunks double up to a bound whatever the total is, so that a longer run only appends.
            steps = self.law.gaps(gaps, chunk)
            chunk = min(2 * chunk, _LAST_CHUNK)
            positions = np.cumsum(np.concatenate([[position], steps]))
            position = float(positions[-1])
            reached = positions[:-1][positions[:-1] < total]
            parts.append(np.rint(_when(reached, edges, expected, rates) * 1e9).astype(np.int64))
        if not parts:
            return np.empty(0, np.int64)
        times = np.concatenate(parts)
        return times[times < round(until_s * 1e9)]

    def scaling(self, streams: RandomStreams, span_s: float) -> float:
        return self.rates.scaling(streams, span_s)


def _when(positions: Floats, edges: Floats, expected: Floats, rates: Floats) -> Floats:
    """Where the cumulative rate reaches the positions; within a cell by its rate, since the last cell is cut short."""
    cell = np.clip(np.searchsorted(expected, positions, side="right") - 1, 0, len(rates) - 1)
    since = np.divide(positions - expected[cell], rates[cell], out=np.zeros_like(positions), where=rates[cell] > 0)
    return np.minimum(edges[cell] + since, edges[cell + 1])


@dataclass(frozen=True)
class Clients:
    """The merged arrivals of `count` clients; client k's mean rate is proportional to k^-skew, its gaps are of the law.

    Few heavy, bursty clients make the bursts of the whole: 29 of 2,412 make 90 % of requests, and each one's own
    process is what stays the same over time (Xiang et al., "ServeGen", NSDI 2026, section 4). Random rates are each
    client's own. With `shapes`, each client's shape is drawn (and held within 0.02 and 100).
    """

    count: int
    skew: float
    rate: float
    law: Renewal
    shapes: ProbabilityDistribution | None
    modulation: tuple[Shape, ...]

    def times_ns(self, streams: RandomStreams, until_s: float, span_s: float) -> Ints:
        weights = portable_math.power(np.arange(1.0, self.count + 1.0), -self.skew)
        rates = (self.rate * weights / float(np.cumsum(weights)[-1])).tolist()
        laws = [self.law] * self.count
        if self.shapes is not None:
            law_class = Gamma if isinstance(self.law, Gamma) else Weibull
            drawn = np.clip(self.shapes.numbers(streams("shapes"), self.count), 0.02, 100.0)
            laws = [law_class(shape) for shape in drawn.tolist()]
        parts = [
            Process(law, Rates(rate, self.modulation, scaled=False)).times_ns(
                partial(streams, "clients", "client", k), until_s, span_s
            )
            for k, (law, rate) in enumerate(zip(laws, rates, strict=True))
        ]
        return np.sort(np.concatenate(parts), kind="stable")

    def scaling(self, streams: RandomStreams, span_s: float) -> float:
        return 1.0  # each client's rate has its mean only on average
