"""Is the deployment falling behind? In flight grows beyond sampling error over the steady window.

Such a run's latencies grow with its duration, so they certify nothing; its goodput does.
"""

from dataclasses import dataclass

import numpy as np

from tailgate.reports.rundir.run import Run
from tailgate.reports.stats.order_statistics import t_quantile
from tailgate.workloads.common.arrays import Floats

_BATCHES = 12


@dataclass(frozen=True)
class InFlight:
    """Requests in flight over the steady window."""

    mean: float  # time-weighted
    max: float
    growth: float  # fitted change from the window's begin to its end


def in_flight_at(run: Run, edges_ns: Floats) -> Floats:
    """Time-weighted requests in flight between successive edges; shape (len(edges) - 1,)."""
    begin, end = run.column("dispatched_ns"), run.column("end_ns")
    whole = np.isfinite(begin) & np.isfinite(end)
    return (_area(begin[whole], edges_ns) - _area(end[whole], edges_ns)) / np.diff(edges_ns)


def _area(events_ns: Floats, edges_ns: Floats) -> Floats:
    """Integral of the number of events so far, over each interval."""
    ordered = np.sort(events_ns)
    summed = np.concatenate([[0.0], np.cumsum(ordered)])
    before = np.searchsorted(ordered, edges_ns)
    return np.asarray(np.diff(before * edges_ns - summed[before]))


def in_flight(run: Run) -> tuple[InFlight | None, bool]:
    """The steady window's in-flight count, None if the window has no length; and whether it grew beyond chance."""
    start, end = run.window_ns
    if end <= start:
        return None, False
    mean = float(in_flight_at(run, np.array([start, end], np.float64))[0])
    most = _most(run, start, end)
    # From an empty system the count climbs for about one residence: that is no overload.
    residence = (run.column("end_ns") - run.column("dispatched_ns"))[run.ok]
    settle = float(np.percentile(residence, 90)) if len(residence) else 0.0
    begin = start + (min(settle, (end - start) / 2) if run.manifest.warmup_ns == 0 else 0.0)
    edges = np.linspace(begin, end, _BATCHES + 1)
    batches = in_flight_at(run, edges)
    x = np.linspace(-0.5, 0.5, _BATCHES)
    slope = float(np.dot(x, batches) / np.dot(x, x))
    rest = batches - batches.mean() - slope * x
    error = float(np.sqrt((rest**2).sum() / (_BATCHES - 2) / np.dot(x, x)))
    # Beyond sampling error of the fit, and of a Poisson count.
    beyond = slope > t_quantile(0.999, _BATCHES - 2) * error and slope > 3 * np.sqrt(max(mean, 1.0))
    open_loop = run.manifest.loop == "open"
    return InFlight(mean, most, slope), bool(open_loop and beyond)


def _most(run: Run, start: float, end: float) -> float:
    begun, ended = run.column("dispatched_ns"), run.column("end_ns")
    whole = np.isfinite(begun) & np.isfinite(ended) & (begun < end) & (ended > start)
    if not whole.any():
        return 0.0
    times = np.concatenate([np.maximum(begun[whole], start), ended[whole]])
    steps = np.concatenate([np.ones(whole.sum()), -np.ones(whole.sum())])
    # At one instant an end counts before a begin.
    return float(np.cumsum(steps[np.lexsort((steps, times))]).max())
