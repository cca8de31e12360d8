"""Lengths of a log as a quantile grid, with intervals of its quantiles and of the rank correlation."""

from typing import Any

import numpy as np
import numpy.typing as npt

from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.fit.goodness_of_fit import Z95, FittedValue
from tailgate.workloads.statistics.arrivals import spearman

_SHARES = (
    0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, *(round(0.1 + 0.025 * k, 3) for k in range(33)), 0.925, 0.95, 0.96,
    0.97, 0.98, 0.99, 0.995, 0.999, 1.0,
)  # fmt: skip


def expression_of(values: npt.NDArray[Any], *, logarithmic: bool = False) -> str:
    """The values' own quantiles as an expression of the grammar; fewer points where there are few values."""
    ordered = np.sort(values).astype(np.float64)
    if ordered[0] == ordered[-1]:
        return f"{ordered[0]:.6g}"
    step = max(1, len(_SHARES) * 4 // max(len(ordered), 4))
    shares = sorted({*_SHARES[::step], 0.0, 0.5, 1.0})
    shares = _with_jumps(ordered, shares)
    quantiles = np.quantile(ordered, shares)
    points = ", ".join(f"{share:g}: {value:.6g}" for share, value in zip(shares, quantiles.tolist(), strict=True))
    return f"{'log' if logarithmic else ''}quantiles({points})"


def _with_jumps(ordered: Floats, shares: list[float]) -> list[float]:
    """The shares with more points where one value is so frequent (2 % and more) that lines would smear it."""
    values, counts = np.unique(ordered, return_counts=True)
    n = len(ordered)
    ends = np.cumsum(counts)
    extra = {float(f"{share:.6g}") for k in np.flatnonzero(counts >= 0.02 * n).tolist()
             for share in ((ends[k] - counts[k]) / (n - 1), (ends[k] - 1) / (n - 1))}  # fmt: skip
    return sorted({share for share in {*shares, *extra} if 0.0 <= share <= 1.0}) if len(values) > 1 else shares


def correlation(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> FittedValue:
    """Spearman's rank correlation with its interval (Bonett and Wright, Psychometrika 65, 2000)."""
    rho = spearman(a, b)
    error = Z95 * float(np.sqrt((1.0 + rho * rho / 2.0) / max(len(a) - 3, 1)))
    z = float(np.arctanh(np.clip(rho, -0.999999, 0.999999)))
    return FittedValue(rho, float(np.tanh(z - error)), float(np.tanh(z + error)))
