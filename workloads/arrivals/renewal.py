"""Gaps between arrivals, independent of each other, of mean 1: the renewal part of an arrival process.

Each law is one class: its formula in the docstring, `gaps` for the gaps after the first arrival, and
`first` for the time from the run's start to the first arrival when the process has been going on for ever
(the residual life, whose law is U times the length-biased gap; Cox, "Renewal Theory", 1962, ch. 5).
The rate and its changes are in `rate_shapes`.
"""

from dataclasses import dataclass

import numpy as np

from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.sampling import portable_math
from tailgate.workloads.sampling.random_streams import RandomStream


@dataclass(frozen=True)
class Constant:
    """Gaps of exactly 1; the first arrival at the start."""

    def first(self, stream: RandomStream) -> float:
        return 0.0

    def gaps(self, stream: RandomStream, n: int) -> Floats:
        return np.ones(n)


@dataclass(frozen=True)
class Poisson:
    """Exponential gaps, P(gap > x) = exp(-x): memoryless, with an index of dispersion of 1 at any window."""

    def first(self, stream: RandomStream) -> float:
        return float(stream.exponential(1)[0])

    def gaps(self, stream: RandomStream, n: int) -> Floats:
        return stream.exponential(n)


@dataclass(frozen=True)
class Gamma:
    """Gamma(shape k, scale 1/k) gaps: coefficient of variation 1/sqrt(k); k < 1 is burstier than Poisson.

    The usual model of LLM traffic (Wang et al., "BurstGPT", KDD 2025; vLLM's `--burstiness`).
    """

    shape: float

    def first(self, stream: RandomStream) -> float:
        """U times a Gamma(k + 1, 1/k) gap."""
        return float(stream.gamma(self.shape + 1.0, 1)[0] * stream.uniform(1)[0]) / self.shape

    def gaps(self, stream: RandomStream, n: int) -> Floats:
        value = stream.gamma(self.shape, n)
        value *= 1.0 / self.shape
        return value


@dataclass(frozen=True)
class Weibull:
    """Weibull(shape k) gaps, P(gap > x) = exp(-(x G)^k) with G = Gamma(1 + 1/k).

    For k < 1 its tail is heavier than Gamma's at the same variation (Xiang et al., "ServeGen", NSDI 2026).
    """

    shape: float

    def first(self, stream: RandomStream) -> float:
        """U times the length-biased gap, whose k-th power is a Gamma(1 + 1/k) number."""
        biased = stream.gamma(1.0 + 1.0 / self.shape, 1)
        return float(portable_math.power(biased, 1.0 / self.shape)[0] * stream.uniform(1)[0]) / self._mean()

    def gaps(self, stream: RandomStream, n: int) -> Floats:
        """By inversion: (-ln U)^(1/k)."""
        value = portable_math.power(stream.exponential(n), 1.0 / self.shape)
        value *= 1.0 / self._mean()
        return value

    def _mean(self) -> float:
        return portable_math.gamma_function(1.0 + 1.0 / self.shape)


Renewal = Constant | Poisson | Gamma | Weibull
