"""Many clients of unequal weight, merged: a few heavy, bursty ones make the bursts of the whole.

Xiang et al., "ServeGen", NSDI 2026, section 4: 29 of 2,412 clients make 90 % of requests, and each client's
own process is what stays the same over time.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from tailgate.workloads.arrivals.process import Process, Superposed
from tailgate.workloads.arrivals.rate_shapes import RandomStreams, Rates, Shape
from tailgate.workloads.arrivals.renewal import Gamma, Renewal, Weibull
from tailgate.workloads.common.arrays import Ints
from tailgate.workloads.sampling import portable_math
from tailgate.workloads.sampling.distributions import ProbabilityDistribution


@dataclass(frozen=True)
class Clients:
    """`count` clients; client k's mean rate is proportional to k^-skew, its gaps of the law and shape given.

    Random rates are each client's own, and have the mean only on average. With `shapes`, each client's shape is drawn
    (and held within 0.02 and 100).
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
        clients = tuple(
            Process(law, Rates(rate, self.modulation, scaled=False)) for law, rate in zip(laws, rates, strict=True)
        )
        return Superposed(clients).times_ns(partial(streams, "clients"), until_s, span_s)

    def scaling(self, streams: RandomStreams, span_s: float) -> float:
        return 1.0  # each client's rate has its mean only on average
