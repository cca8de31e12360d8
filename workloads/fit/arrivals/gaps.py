"""The shape of gamma gaps from stamps of a known resolution, whatever the rate does meanwhile."""

from typing import Final

import numpy as np

from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.fit.estimate import Estimate, log_normal

_LEAST_PAIRS: Final = 50
# A half, because a difference of whole ticks is rounded: 20 ticks and more are 19.5 and more.
_TICKS: Final = 19.5
_LEAST_SHARE: Final = 0.1
_LOWEST: Final = float(np.log(1e-2))
_HIGHEST: Final = float(np.log(1e4))


def fit_shape(times_s: Floats, tick_s: float) -> Estimate | str:
    """Maximum likelihood from the share b = g1 / (g1 + g2) that a gap has of itself and its neighbour.

    b is Beta(k, k) and independent of the sum (Lukacs, "A Characterization of the Gamma Distribution", 1955), so it
    does not depend on the rate, as long as that changes slowly against two gaps, and pairs may be chosen by their sum.
    A gap of less than 20 ticks is known to be one, and no better: its pair counts as P(min(b, 1 - b) < 20 ticks / sum);
    pairs of less than 40 ticks in all say nothing.

    Returns:
        The shape, or why there is none.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import betainc, betaln

    gaps = np.diff(times_s)
    pairs = gaps[: len(gaps) // 2 * 2].reshape(-1, 2)
    sums, least = pairs.sum(axis=1), _TICKS * tick_s
    told = sums > 2.0 * least
    if told.sum() < max(_LEAST_PAIRS, _LEAST_SHARE * len(pairs)):
        gap_s = float(gaps.mean())
        return f"stamps {tick_s:.3g} s apart are too coarse to tell the law of gaps of {gap_s:.3g} s on average"
    sums, smaller = sums[told], pairs[told].min(axis=1)
    seen = smaller >= least
    shares = smaller[seen] / sums[seen]
    logs = float(np.sum(np.log(shares) + np.log1p(-shares)))
    bounds = least / sums[~seen]

    def loss(log_k: float) -> float:
        k = float(np.exp(log_k))
        below = float(np.log(np.maximum(betainc(k, k, bounds), 1e-300)).sum())
        return len(shares) * float(betaln(k, k)) - (k - 1.0) * logs - below

    best = minimize_scalar(loss, bounds=(_LOWEST, _HIGHEST), method="bounded", options={"xatol": 1e-7})
    log_k, step = float(best.x), 1e-2
    if not _LOWEST + 0.1 < log_k < _HIGHEST - 0.1:
        return "the gaps are all alike, or hardly ever: no gamma law"
    information = (loss(log_k + step) - 2.0 * loss(log_k) + loss(log_k - step)) / step**2
    return log_normal(log_k, 1.0 / float(np.sqrt(information)))
