"""Whether a trace's stamps lie on a coarse grid, as those of a recorder with a slow clock do."""

from typing import Final

import numpy as np

from tailgate.workloads.common.arrays import Floats, Ints

_COARSE_NS: Final = 500_000_000
_TICKS: Final = 20  # fewer may be bursts that really came at regular distances
_NEARLY_ALL: Final = 0.95
_OFF: Final = 0.02  # of a tick: Mooncake's are 3 s apart to a few ms
_DIVISORS: Final = 240  # sparse stamps: the smallest gap may be so many ticks


def grid_of(at_ns: Ints, known: int | None = None) -> int | None:
    """The tick, in ns, of which nearly all distances between different stamps are whole multiples; None without one.

    Equal stamps prove nothing, since requests do come at once. A `known` tick needs no number of stamps to prove it.
    """
    gaps = np.diff(np.unique(at_ns)).astype(np.float64)
    if known is not None and len(gaps) and _share_on(gaps, known) >= _NEARLY_ALL:
        return known
    if len(gaps) + 1 < _TICKS:
        return None
    smallest = float(
        np.quantile(gaps, 1 - _NEARLY_ALL, method="lower")
    )  # of those that may count: a few stamps may be off the grid
    for divisor in range(1, min(int(smallest / _COARSE_NS), _DIVISORS) + 1):
        about = smallest / divisor
        multiples = np.rint(gaps / about)
        tick = float(np.median(gaps[multiples > 0] / multiples[multiples > 0]))
        if tick >= _COARSE_NS and _share_on(gaps, tick) >= _NEARLY_ALL:
            return round(tick)
    return None


def _share_on(gaps: Floats, tick: float) -> float:
    multiples = gaps / tick
    return float(np.mean((np.abs(multiples - np.rint(multiples)) <= _OFF) & (multiples > 1 - _OFF)))
