"""Seeded random numbers: one independent stream per purpose, named; the same bits on every machine.

A stream is NumPy's Philox counter generator keyed by a SHA-256 of (seed, names), so a new purpose never
changes the numbers of another, and block k of a long sequence can be made without the blocks before it.
Only the raw 64-bit output is NumPy's (its bit streams are guaranteed stable between versions, its
distributions are not); the distributions are here, on the arithmetic of `workloads.exact`.
"""

import hashlib

import numpy as np
import numpy.typing as npt

from workloads import exact
from workloads.exact import Floats

_UNIT = 2.0**-53


class Stream:
    """Random numbers of one purpose, in order. `Stream(seed, "arrivals", "chat", 3)`."""

    def __init__(self, seed: int, *names: str | int) -> None:
        text = "\x1f".join(["tailgate", str(seed), *map(str, names)])
        key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
        self._bits = np.random.Philox(key=key)

    def u64(self, n: int) -> npt.NDArray[np.uint64]:
        """n raw 64-bit integers."""
        return self._bits.random_raw(n)

    def uniform(self, n: int) -> Floats:
        """n numbers in the open interval (0, 1): never 0, never 1, 53 bits."""
        high = (self.u64(n) >> np.uint64(12)).astype(np.float64)
        high += 0.5
        high *= 2.0 * _UNIT
        return high

    def below(self, n: int, bound: int) -> npt.NDArray[np.int64]:
        """n integers in [0, bound), bound <= 2^32 (bias below 2^-20)."""
        return ((self.u64(n) >> np.uint64(11)).astype(np.float64) * _UNIT * bound).astype(np.int64)

    def exponential(self, n: int) -> Floats:
        """n exponential numbers of mean 1."""
        value = exact.log(self.uniform(n))
        np.negative(value, out=value)
        return value

    def normal(self, n: int) -> Floats:
        """n standard normal numbers, by inversion."""
        return exact.normal_quantile(self.uniform(n))

    def gamma(self, shape: float, n: int) -> Floats:
        """n Gamma(shape, scale 1) numbers.

        Marsaglia and Tsang, "A Simple Method for Generating Gamma Variables", ACM TOMS 26 (2000); below
        shape 1 their boost: Gamma(shape + 1) times U^(1/shape).
        """
        boost = shape < 1.0
        d = (shape + 1.0 if boost else shape) - 1.0 / 3.0
        c = 1.0 / np.sqrt(9.0 * d)
        value = np.empty(n)
        todo = np.arange(n)
        while len(todo):
            x, u = self.normal(len(todo)), self.uniform(len(todo))
            v = 1.0 + c * x
            good = v > 0.0
            v = np.where(good, v * v * v, 1.0)
            good &= exact.log(u) < 0.5 * x * x + d - d * v + d * exact.log(v)
            value[todo[good]] = d * v[good]
            todo = todo[~good]
        if boost:
            value *= exact.power(self.uniform(n), 1.0 / shape)
        return value
