"""The hit rate of prefix blocks in a cache of a given size, for all sizes at once.

From reuse times and the average footprint (Xiang et al., "HOTL: a Higher Order Theory of Locality", ASPLOS 2013):
the blocks touched in a window of n accesses number fp(n) on average, so a least-recently-used cache of size
fp(n) keeps what comes back within n accesses. It takes one pass and comes within a few points of a simulated LRU.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from tailgate.workloads.common.arrays import Floats


def lru_curve(ids: npt.NDArray[Any], points: int = 60) -> tuple[Floats, Floats]:
    """Cache sizes in blocks (ascending) and the hit rate of each, for a sequence of block ids.

    Both are empty when nothing is accessed twice.
    """
    n = len(ids)
    _, inverse = np.unique(ids, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    same = inverse[order][1:] == inverse[order][:-1]
    reuse = (order[1:] - order[:-1])[same]
    if not len(reuse):
        return np.empty(0), np.empty(0)
    first = order[np.concatenate([[True], ~same])]
    last = n - 1 - order[np.concatenate([~same, [True]])]
    windows = np.unique(np.geomspace(1, n, points).astype(np.int64))
    footprint = np.array([_footprint(int(w), n, len(first), first, last, reuse) for w in windows.tolist()])
    ordered = np.sort(reuse)
    hits = np.searchsorted(ordered, windows, side="right") / n
    return footprint, hits


def _footprint(window: int, n: int, distinct: int, first: Any, last: Any, reuse: Any) -> float:
    """Mean number of distinct blocks in a window: all, less those absent before, after and between accesses."""
    absent = (
        np.clip(first - window + 1, 0, None).sum()
        + np.clip(last - window + 1, 0, None).sum()
        + np.clip(reuse - window, 0, None).sum()
    )
    return float(distinct - absent / (n - window + 1))
