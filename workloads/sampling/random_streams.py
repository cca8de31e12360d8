"""Seeded random numbers: independent for each named purpose; the same bits on every machine.

A `RandomStream` is read in order (gaps between arrivals). A `RandomField` has a value for every (session, turn), which
can be read in any order (lengths, content), so that a plan can be cut into pieces.

A stream is NumPy's Philox counter generator keyed by a SHA-256 of (seed, names), so a new purpose never
changes the numbers of another, and block k of a long sequence can be made without the blocks before it.
Only the raw 64-bit output is NumPy's (its bit streams are guaranteed stable between versions, its
distributions are not); the distributions are here, on the arithmetic of `workloads.sampling.portable_math`.
"""

import hashlib

import numpy as np
import numpy.typing as npt

from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.sampling import portable_math

Words = npt.NDArray[np.uint64]

_UNIT = 2.0**-53
_MASK = (1 << 64) - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SECOND = np.uint64(0xD1B54A32D192ED03)


class RandomStream:
    """Random numbers of one purpose, in order: `RandomStream(seed, "arrivals", "chat", 3)`."""

    def __init__(self, seed: int, *names: str | int) -> None:
        self._bits = np.random.Philox(key=_key(seed, names))

    def u64(self, n: int) -> Words:
        return self._bits.random_raw(n)

    def uniform(self, n: int) -> Floats:
        """n numbers in the open interval (0, 1): never 0, never 1, 53 bits."""
        return _to_unit(self.u64(n))

    def exponential(self, n: int) -> Floats:
        value = portable_math.log(self.uniform(n))
        np.negative(value, out=value)
        return value

    def normal(self, n: int) -> Floats:
        return portable_math.normal_quantile(self.uniform(n))

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
            good &= portable_math.log(u) < 0.5 * x * x + d - d * v + d * portable_math.log(v)
            value[todo[good]] = d * v[good]
            todo = todo[~good]
        if boost:
            value *= portable_math.power(self.uniform(n), 1.0 / shape)
        return value


class RandomField:
    """A random number for every pair of integers (i, j), e.g. session and turn; no order, no state.

    SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014) over i,
    mixed again with j, from a 128-bit key of (seed, names).
    """

    def __init__(self, seed: int, *names: str | int) -> None:
        key = _key(seed, names)
        self._low, self._high = np.uint64(key & (2**64 - 1)), np.uint64(key >> 64)

    def u64(self, i: npt.NDArray[np.integer], j: npt.NDArray[np.integer] | int = 0) -> Words:
        """64-bit integers, of the shape of i."""
        value = mixed(i.astype(np.uint64) * _GOLDEN + self._low)
        value ^= self._high
        value += np.asarray(j).astype(np.uint64) * _SECOND
        return mixed(value)

    def uniform(self, i: npt.NDArray[np.integer], j: npt.NDArray[np.integer] | int = 0) -> Floats:
        return _to_unit(self.u64(i, j))


def mixed(z: Words) -> Words:
    """SplitMix64's finalizer, a bijection of 64-bit integers."""
    z = z + _GOLDEN
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def mixed_int(z: int) -> int:
    """`mixed` of one Python integer."""
    z = (z + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def _to_unit(words: Words) -> Floats:
    value = (words >> np.uint64(12)).astype(np.float64)
    value += 0.5
    value *= 2.0 * _UNIT
    return value


def _key(seed: int, names: tuple[str | int, ...]) -> int:
    text = "\x1f".join(["tailgate", str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
