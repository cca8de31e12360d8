"""Traffic that comes in bursts with pauses between."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.fit.goodness_of_fit import FittedValue, quantile
from tailgate.workloads.fit.lengths import expression_of
from tailgate.workloads.statistics.arrivals import on_off

_LEAST_PAUSES: Final = 20
_MOST_DUTY: Final = 0.8
_PAUSE_GAPS: Final = 30.0
_PAUSE_TICKS: Final = 5.0
_TICKS_A_GAP: Final = 20.0


@dataclass(frozen=True)
class Bursts:
    """`process` and `bursts` of a spec's arrivals; medians of bursts and pauses with their intervals."""

    spec: dict[str, Any]
    estimates: dict[str, FittedValue]


def fit_bursts(times_s: Floats, tick_s: float = 1e-9) -> Bursts | None:
    """Bursts and pauses, where pauses of at least 30 times the mean gap within bursts take a fifth of the time.

    A pause lasts at least five ticks of the stamps. Gaps within bursts are taken as Poisson's where they are shorter
    than 20 ticks on average.
    """
    gaps = np.diff(times_s)
    mean_s = max(float(np.quantile(gaps, 0.9)) / 2.3, float(np.median(gaps)))
    threshold = max(_PAUSE_GAPS * mean_s, _PAUSE_TICKS * tick_s)
    periods = on_off(times_s, threshold)
    if len(periods.off_s) < _LEAST_PAUSES or periods.duty > _MOST_DUTY:
        return None
    medians = {"burst_s.p50": quantile(periods.on_s, 0.5), "pause_s.p50": quantile(periods.off_s, 0.5)}
    bursts = {
        "burst": expression_of(np.maximum(periods.on_s, 1e-3)),
        "pause": expression_of(periods.off_s, logarithmic=True),
    }
    return Bursts(
        _process(gaps[gaps < threshold], tick_s) | {"bursts": bursts},
        {name: median for name, median in medians.items() if median is not None},
    )


def _process(gaps: Floats, tick_s: float) -> dict[str, Any]:
    gaps = gaps[gaps > 0]
    if len(gaps) < 2 or gaps.var() == 0 or gaps.mean() < _TICKS_A_GAP * tick_s:
        return {"process": "poisson"}
    shape = min(max(float(gaps.mean() ** 2 / gaps.var()), 0.05), 100.0)
    return {"process": "gamma", "shape": float(f"{shape:.4g}")}
