"""The shape of a day in a log of two days and more."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from tailgate.workloads.arrivals.rate_shapes import Daily
from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.fit.goodness_of_fit import FittedValue, point
from tailgate.workloads.sampling.random_streams import RandomStream

_DAY_S: Final = 86400.0


@dataclass(frozen=True)
class Days:
    """24 factors from the log's first arrival on, and the mean rate per second."""

    factors: tuple[float, ...]
    rate: FittedValue

    def over(self, span_s: float) -> Floats:
        """The factors at equal steps of [0, span), as the generator draws them."""
        edges, levels = Daily(self.factors, (1.0,) * 7).cells(RandomStream(0), span_s)
        steps = round(span_s / (edges[1] - edges[0]))
        return levels[:steps]


def fit_days(times_s: Floats, span_s: float) -> Days | None:
    """The mean of whole days, or None below two.

    The interval of the rate takes days as the sample; below four days there is none.
    """
    days = int(span_s // _DAY_S)
    if days < 2:
        return None
    hours = np.bincount((times_s / 3600.0).astype(np.int64), minlength=24 * days)[: 24 * days].reshape(days, 24)
    rates = hours.sum(axis=1) / _DAY_S
    mean = float(rates.mean())
    factors = tuple(float(f"{factor:.3g}") for factor in _at_mid_hours(hours.mean(axis=0) / 3600.0 / mean).tolist())
    if days < 4:
        return Days(factors, point(mean))
    from scipy.stats import t

    error = float(t.ppf(0.975, days - 1)) * float(rates.std(ddof=1)) / float(np.sqrt(days))
    return Days(factors, FittedValue(mean, max(mean - error, 0.0), mean + error))


def _at_mid_hours(means: Floats) -> Floats:
    """Levels at mid-hours whose straight lines have these means over the hours (1/8 of an hour from either side)."""
    around = np.eye(24) * 0.75 + np.roll(np.eye(24), 1, axis=0) / 8.0 + np.roll(np.eye(24), -1, axis=0) / 8.0
    return np.asarray(np.maximum(np.linalg.solve(around, means), 0.0))
