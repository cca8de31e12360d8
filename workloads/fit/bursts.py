"""Traffic that comes in bursts with pauses between."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from workloads.describe import on_off
from workloads.fit.estimate import Estimate, quantile
from workloads.fit.lengths import law_of

_LEAST_PAUSES: Final = 20
_MOST_DUTY: Final = 0.8


@dataclass(frozen=True)
class Bursts:
    """`shape` and `bursts` of a spec's arrivals; medians of bursts and pauses with their intervals."""

    spec: dict[str, Any]
    estimates: dict[str, Estimate]


def fit_bursts(times_s: npt.NDArray[np.float64]) -> Bursts | None:
    """Bursts and pauses, where pauses of at least 30 times the mean gap within bursts take a fifth of the time."""
    gaps = np.diff(times_s)
    threshold = max(30.0 * float(np.quantile(gaps, 0.9)) / 2.3, 30.0 * float(np.median(gaps)))
    found = on_off(times_s, threshold)
    if len(found.off_s) < _LEAST_PAUSES or found.duty > _MOST_DUTY:
        return None
    inside = gaps[(gaps < threshold) & (gaps > 0)]
    medians = {"burst_s.p50": quantile(found.on_s, 0.5), "pause_s.p50": quantile(found.off_s, 0.5)}
    shape = min(max(float(inside.mean() ** 2 / inside.var()), 0.05), 100.0)
    bursts = {"burst": law_of(np.maximum(found.on_s, 1e-3)), "pause": law_of(found.off_s, logarithmic=True)}
    return Bursts(
        {"shape": float(f"{shape:.4g}"), "bursts": bursts},
        {name: median for name, median in medians.items() if median is not None},
    )
