"""The resolution of a log's stamps, and the shape of gamma gaps between them, whatever the rate does meanwhile."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tailgate.workloads.common.arrays import Floats, Ints
from tailgate.workloads.fit.goodness_of_fit import FittedValue, log_normal

_LEAST_PAIRS: Final = 50
# A half, because a difference of whole ticks is rounded: 20 ticks and more are 19.5 and more.
_TICKS: Final = 19.5
_LEAST_SHARE: Final = 0.1
_LOWEST: Final = float(np.log(1e-2))
_HIGHEST: Final = float(np.log(1e4))
# A float of seconds since 1970 is good to a quarter of a microsecond.
_FLOAT_NS: Final = 250
_DECADES_NS: Final = (10**9, 10**8, 10**7, 10**6, 10**5, 10**4, 10**3)
_COMMON_TIE: Final = 0.01


def resolution_ns(at_ns: Ints) -> int:
    """The largest tick that all stamps are whole numbers of, a decimal one also where floats have blurred them.

    Where stamps often coincide it is at least the shortest time between two that don't: Mooncake's ticks are 3 s apart
    to a few ms. It is 1 where there is nothing to tell it from.
    """
    times = np.sort(at_ns)
    gaps = np.diff(times)
    positive: npt.NDArray[Any] = gaps[gaps > 0]
    if not len(positive):
        return 1
    since = times - times[0]
    blurred = (tick for tick in _DECADES_NS if _on(since, tick))
    tied = int(positive.min()) if len(positive) < (1.0 - _COMMON_TIE) * len(gaps) else 1
    return max(int(np.gcd.reduce(positive)), next(blurred, 1), tied)


def _on(since_ns: Ints, tick_ns: int) -> bool:
    off = np.abs(since_ns - np.rint(since_ns / tick_ns).astype(np.int64) * tick_ns)
    return bool((off <= min(_FLOAT_NS, tick_ns // 4)).all())


def fit_shape(times_s: Floats, tick_s: float) -> FittedValue | str:
    """Maximum likelihood from the share b = g1 / (g1 + g2) that a gap has of itself and its neighbour.

    b is Beta(k, k) and independent of the sum (Lukacs, "A Characterization of the Gamma Distribution", 1955), so it
    does not depend on the rate, as long as that changes slowly against two gaps, and pairs may be chosen by their sum.
    Of a gap below 20 ticks no more is known than that: its pair counts as P(min(b, 1 - b) < 20 ticks / sum). Pairs of
    less than 40 ticks in all are left out. Where there is no shape, the text says why.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import betainc, betaln

    gaps = np.diff(times_s)
    pairs = gaps[: len(gaps) // 2 * 2].reshape(-1, 2)
    sums, least = pairs.sum(axis=1), _TICKS * tick_s
    informative = sums > 2.0 * least
    if informative.sum() < max(_LEAST_PAIRS, _LEAST_SHARE * len(pairs)):
        gap_s = float(gaps.mean())
        return f"stamps {tick_s:.3g} s apart are too coarse to tell the law of gaps of {gap_s:.3g} s on average"
    sums, smaller = sums[informative], pairs[informative].min(axis=1)
    resolved = smaller >= least
    shares = smaller[resolved] / sums[resolved]
    logs = float(np.sum(np.log(shares) + np.log1p(-shares)))
    bounds = least / sums[~resolved]

    def loss(log_k: float) -> float:
        k = float(np.exp(log_k))
        below = float(np.log(np.maximum(betainc(k, k, bounds), 1e-300)).sum())
        return len(shares) * float(betaln(k, k)) - (k - 1.0) * logs - below

    optimum = minimize_scalar(loss, bounds=(_LOWEST, _HIGHEST), method="bounded", options={"xatol": 1e-7})
    log_k, step = float(optimum.x), 1e-2
    if not _LOWEST + 0.1 < log_k < _HIGHEST - 0.1:
        return "the gaps are all alike, or hardly ever: no gamma law"
    information = (loss(log_k + step) - 2.0 * loss(log_k) + loss(log_k - step)) / step**2
    return log_normal(log_k, 1.0 / float(np.sqrt(information)))
