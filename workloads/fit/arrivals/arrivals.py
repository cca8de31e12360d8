"""The arrival process from the times of arrivals: shape of the gaps, slow modulation of the rate, the rate itself.

    shape        of gamma gaps: `gaps`
    modulation   of the rate, from counts in bins: `modulation`; where that can't tell it, the modulation whose
                 dispersion of counts is the log's, without an interval
    rate         arrivals / span; its error is that of a count of clustered arrivals,
                 noise / n + the variance of the mean rate, noise = 1 / shape
                 (Cox and Lewis, "Statistical Analysis of Series of Events", 1966, ch. 4)

Known shapes of the day (`daily`) are taken out of the rate first. What can't be told from stamps on a coarse grid or
from too few arrivals is left out, with the reason.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.fit.arrivals.binned_counts import (
    LoggedArrivals,
    averaged_rate_variance,
    dispersion_of,
    match_dispersion,
    overdispersed,
)
from tailgate.workloads.fit.arrivals.gaps import fit_shape
from tailgate.workloads.fit.arrivals.modulation import fit_modulation
from tailgate.workloads.fit.goodness_of_fit import FittedValue, log_normal, point

LEAST_ARRIVALS: Final = 200
_COUNTS_PER_BIN: Final = 40.0
_COARSE_COUNTS_PER_BIN: Final = 20.0
_COUNTS_TO_MATCH: Final = 5.0
_GAPS_A_CORRELATION: Final = 20.0
_LEAST_NOISE: Final = 0.01
_LEAST_CV: Final = 0.01
_LEAST_BINS: Final = 60
_LEAST_COARSE_BINS: Final = 30
_LEAST_TICKS: Final = 5
_LEAST_CORRELATIONS: Final = 20.0


@dataclass(frozen=True)
class ArrivalFit:
    """Rate per second; shape of gamma gaps; coefficient of variation and correlation time of the rate.

    `shape` is None where stamps can't tell it, `cv` and `correlation_s` where the rate does not vary beyond chance;
    `notes` say what could not be told.
    """

    rate: FittedValue
    shape: FittedValue | None
    cv: FittedValue | None
    correlation_s: FittedValue | None
    notes: tuple[str, ...]


def fit_arrivals(arrivals: LoggedArrivals) -> ArrivalFit:
    n, span_s = len(arrivals.times_s), arrivals.span_s
    if n < LEAST_ARRIVALS:
        raise UserError(f"{n} arrivals are too few to fit their law ({LEAST_ARRIVALS} at least)", where="log")
    rate, gaps = n / span_s, fit_shape(arrivals.times_s, arrivals.tick_s)
    if isinstance(gaps, str):
        return _from_counts(arrivals, rate, gaps)
    noise = 1.0 / gaps.value
    width = _COUNTS_PER_BIN * max(noise, 1.0) / rate
    if span_s / width < _LEAST_BINS:
        note = f"too few arrivals to tell a slow change of the rate ({int(span_s / width)} bins of 40)"
        return ArrivalFit(_rate_of_few(arrivals), gaps, None, None, (note,))
    if not overdispersed(arrivals, width, noise, np.inf):
        return ArrivalFit(_rate(n, span_s, noise), gaps, None, None, ())
    modulation = fit_modulation(arrivals.counts(width, noise))
    if modulation is not None and span_s / modulation[1].value >= _LEAST_CORRELATIONS:
        cv, correlation = modulation
        return ArrivalFit(_rate(n, span_s, noise, cv.value, correlation.value), gaps, cv, correlation, ())
    matched_s = None if modulation is None else span_s / 10.0
    _, matched_cv, matched_s = match_dispersion(arrivals, _COUNTS_TO_MATCH / rate, noise, matched_s)
    return _without_interval(arrivals, gaps, matched_cv, matched_s, "too fast for counts to tell how")


def _from_counts(arrivals: LoggedArrivals, rate: float, reason: str) -> ArrivalFit:
    """Where stamps don't tell gaps: gamma gaps and a modulation whose counts vary as the log's, without intervals."""
    width = max(_COARSE_COUNTS_PER_BIN / rate, _LEAST_TICKS * arrivals.tick_s)
    finest = arrivals.counts(width, 1.0)
    if len(finest.values) < _LEAST_COARSE_BINS:
        note = f"{reason}, and there are too few of them to tell it from counts: the gaps are Poisson's"
        return ArrivalFit(_rate_of_few(arrivals), None, None, None, (note,))
    noise = max(dispersion_of(finest), _LEAST_NOISE)
    note = f"{reason}: the shape is that of gamma gaps whose counts in {width:.3g} s and more vary as the log's do"
    n, span_s = len(arrivals.times_s), arrivals.span_s
    if not overdispersed(arrivals, width, noise, len(finest.values) - 1):
        return ArrivalFit(_rate(n, span_s, noise), point(1.0 / noise), None, None, (note,))
    noise, cv, correlation = match_dispersion(arrivals, width, None, None)
    how = "in a way that coarse stamps don't tell"
    fit = _without_interval(arrivals, point(1.0 / max(noise, _LEAST_NOISE)), cv, correlation, how)
    return replace(fit, notes=(note, *fit.notes))


def _without_interval(
    arrivals: LoggedArrivals, shape: FittedValue, cv: float, correlation_s: float, how: str
) -> ArrivalFit:
    n, span_s = len(arrivals.times_s), arrivals.span_s
    if cv < _LEAST_CV:
        note = "counts vary more than these gaps make them, but not as a slow change of the rate would: it is left out"
        return ArrivalFit(_rate_of_few(arrivals), shape, None, None, (note,))
    slow = span_s / correlation_s < _LEAST_CORRELATIONS
    how = f"too slowly for a log of {span_s:.0f} s to tell how" if slow else how
    note = f"the rate varies {how}: the modulation is one whose dispersion is the log's and has no interval"
    rate = point(n / span_s) if slow else _rate(n, span_s, 1.0 / shape.value, cv, correlation_s)
    if correlation_s * n / span_s < _GAPS_A_CORRELATION:
        shape = point(shape.value)
    return ArrivalFit(rate, shape, point(cv), point(correlation_s), (note,))


def _rate(n: int, span_s: float, noise: float, cv: float = 0.0, correlation_s: float = 1.0) -> FittedValue:
    pieces = span_s / correlation_s
    freedom = max(pieces / 4.0, 3.0) if cv else None
    return log_normal(
        float(np.log(n / span_s)), float(np.sqrt(noise / n + averaged_rate_variance(cv, pieces))), freedom
    )


def _rate_of_few(arrivals: LoggedArrivals) -> FittedValue:
    """The rate, with an error from how much the counts in tenths of the log differ (batch means)."""
    n, tenths = len(arrivals.times_s), arrivals.counts(arrivals.span_s / 10.0, 1.0)
    error = float(np.sqrt(dispersion_of(tenths) / n))
    return log_normal(float(np.log(n / arrivals.span_s)), error, len(tenths.values) - 1)
