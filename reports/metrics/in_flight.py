"""How many requests were in flight, and is the deployment falling behind?

In a run that falls behind latencies grow with its duration, so they certify nothing; its goodput does.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from tailgate.reports.metrics.throughput import answer_ended_ns
from tailgate.reports.rundir.run import Run
from tailgate.reports.stats.order_statistics import t_quantile
from tailgate.workloads.common.arrays import Floats, Mask

_BATCHES = 12
# So many answers tell how long an answer takes while nothing has piled up yet, and how that changes.
_ANSWERS: Final = 30
# A window of fewer answers' lengths shows how a server fills, and not what it carries.
_LENGTHS: Final = 3
# Ranks of answers' durations against time: beyond this, chance explains it once in 740 runs.
_SIGMAS: Final = 3.0


@dataclass(frozen=True)
class InFlight:
    """Requests in flight over the steady window."""

    mean: float  # time-weighted
    max: float
    growth: float  # fitted change from the window's begin to its end, of requests that wait for their answer


def in_flight_at(run: Run, edges_ns: Floats) -> Floats:
    """Time-weighted requests in flight between successive edges; shape (len(edges) - 1,)."""
    return _mean_between(run.column("dispatched_ns"), run.column("end_ns"), edges_ns)


def _mean_between(begin: Floats, end: Floats, edges_ns: Floats) -> Floats:
    whole = np.isfinite(begin) & np.isfinite(end)
    return (_area(begin[whole], edges_ns) - _area(end[whole], edges_ns)) / np.diff(edges_ns)


def _area(events_ns: Floats, edges_ns: Floats) -> Floats:
    """Integral of the number of events so far, over each interval."""
    ordered = np.sort(events_ns)
    summed = np.concatenate([[0.0], np.cumsum(ordered)])
    before = np.searchsorted(ordered, edges_ns)
    return np.asarray(np.diff(before * edges_ns - summed[before]))


def in_flight(run: Run) -> tuple[InFlight | None, bool | None]:
    """The steady window's in-flight count, None if the window has no length; and whether the deployment falls behind.

    It does where, in an open loop, requests that wait for their answer grow in number beyond sampling error, more by
    answers that take longer than by requests that come faster, and answers do take longer and longer. None where that
    can't be told: too few answers, or a window that is hardly longer than an answer.
    """
    start, end = run.window_ns
    if end <= start:
        return None, None
    mean = float(in_flight_at(run, np.array([start, end], np.float64))[0])
    most = _most(run, start, end)
    # A stream may be kept open when its answer is there, by which nobody waits.
    begun, gone = run.column("dispatched_ns"), np.where(run.ok, answer_ended_ns(run), run.column("end_ns"))
    took = gone - begun
    answered = run.ok & np.isfinite(took) & (gone >= start) & (gone < end)
    # From an empty system the count climbs for about the length of an answer: that is no overload.
    settled = float(np.percentile(took[answered], 90)) if answered.any() else 0.0
    begin = max(start, min(settled, (start + end) / 2))
    edges = np.linspace(begin, end, _BATCHES + 1)
    growth, error = _growth(_mean_between(begun, gone, edges))
    flight = InFlight(mean, most, growth)
    if run.manifest.loop != "open":
        return flight, False
    first = np.flatnonzero(run.ok & np.isfinite(took) & (begun >= start))
    first = first[np.argsort(begun[first], kind="stable")][:_ANSWERS]
    few = len(first) < _ANSWERS or np.count_nonzero(answered) < _ANSWERS
    if few or _LENGTHS * np.median(took[first]) > end - start:
        return flight, None
    # Beyond sampling error of the fit, and of a Poisson count.
    beyond = growth > t_quantile(0.999, _BATCHES - 2) * error and growth > 3 * np.sqrt(max(mean, 1.0))
    # What would have been in flight had every answer taken as long as one of the first.
    by_arrivals, _ = _growth(_mean_between(begun, begun + np.resize(took[first], len(run)), edges))
    by_length = growth - by_arrivals > max(by_arrivals, 0.0)
    # In the order of the sends, and of the ends: where little is served, few of the later ones are ever answered. Who
    # ended before a server had filled can only have been quick.
    filled = np.percentile(took[first], 90)
    ways = ((begun, run.ok & np.isfinite(took) & (begun < end)), (gone, answered))
    longer = any(_take_longer(when, took, rows & (when >= max(start, filled))) for when, rows in ways)
    return flight, bool(beyond and by_length and longer)


def _growth(batches: Floats) -> tuple[float, float]:
    """(change from the first to the last batch by a straight line, its standard error)."""
    x = np.linspace(-0.5, 0.5, len(batches))
    slope = float(np.dot(x, batches) / np.dot(x, x))
    rest = batches - batches.mean() - slope * x
    return slope, float(np.sqrt((rest**2).sum() / (len(batches) - 2) / np.dot(x, x)))


def _take_longer(when: Floats, took: Floats, rows: Mask) -> bool:
    """Whether durations rise with time, by Spearman's rank correlation (normal approximation)."""
    a, b = _ranks(when[rows]), _ranks(took[rows])
    spread = float(np.sqrt(np.dot(a, a) * np.dot(b, b)))
    return len(a) >= _ANSWERS and spread > 0 and float(np.dot(a, b)) / spread * np.sqrt(len(a) - 1) > _SIGMAS


def _ranks(values: Floats) -> Floats:
    """Ranks around their mean; equal values share theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - counts / 2)[place] - len(values) / 2


def _most(run: Run, start: float, end: float) -> float:
    begun, ended = run.column("dispatched_ns"), run.column("end_ns")
    whole = np.isfinite(begun) & np.isfinite(ended) & (begun < end) & (ended > start)
    if not whole.any():
        return 0.0
    times = np.concatenate([np.maximum(begun[whole], start), ended[whole]])
    steps = np.concatenate([np.ones(whole.sum()), -np.ones(whole.sum())])
    # At one instant an end counts before a begin.
    return float(np.cumsum(steps[np.lexsort((steps, times))]).max())
