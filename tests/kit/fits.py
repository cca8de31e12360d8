"""Arrivals of known law, and whether the intervals of their fits cover the truth."""

from functools import partial

import numpy as np
from scipy import stats

from tailgate.workloads.arrivals.process import Process
from tailgate.workloads.arrivals.rate_shapes import Modulated, Rates
from tailgate.workloads.arrivals.renewal import Gamma
from tailgate.workloads.fit.arrivals.arrivals import ArrivalFit, fit_arrivals
from tailgate.workloads.fit.arrivals.binned_counts import LoggedArrivals
from tailgate.workloads.fit.goodness_of_fit import FittedValue
from tailgate.workloads.sampling.random_streams import RandomStream

HOUR = 3600.0


def times_ns(
    seed: int, rate: float, shape: float, cv: float = 0.0, correlation_s: float = 0.0, span: float = HOUR
) -> np.ndarray:
    shapes = (Modulated(cv, correlation_s),) if cv else ()
    return Process(Gamma(shape), Rates(rate, shapes, scaled=False)).times_ns(
        partial(RandomStream, seed, "fit"), span, span
    )


def fitted(at_ns: np.ndarray, tick_ns: int = 1) -> ArrivalFit:
    return fit_arrivals(LoggedArrivals(at_ns // tick_ns * tick_ns / 1e9, HOUR, tick_ns / 1e9))


def covered(hits: list[bool]) -> bool:
    """Whether so many hits are compatible with a coverage of 95 % (99.9 % of samples are)."""
    return int(stats.binom.ppf(0.0005, len(hits), 0.95)) <= sum(hits)


def holds(estimate: FittedValue | None, truth: float) -> bool:
    return estimate is not None and estimate.known and estimate.low <= truth <= estimate.high
