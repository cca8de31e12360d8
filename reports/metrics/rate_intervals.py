"""Rates of the steady window with their bounds: how much they vary from one bin of time to the next.

Batch means (e.g. A. M. Law, Simulation Modeling and Analysis, 2015, ch. 9) over the report's time bins that lie
inside the window, for the mean of what came per bin. The rates themselves are `reports.metrics.throughput`.
"""

from dataclasses import dataclass

import numpy as np

from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.arrivals import padded_sum
from tailgate.reports.metrics.requests import Side
from tailgate.reports.metrics.throughput import (
    answer_began_ns,
    answer_ended_ns,
    output_tokens_inside,
    prompt_tokens_inside,
)
from tailgate.reports.stats.order_statistics import LEVEL, mean_interval, share_bounds
from tailgate.workloads.common.arrays import Floats, Mask

# Fewer events are bounded as a Poisson count is; as the share of so many trials that it makes no difference.
_FEW = 10
_TRIALS = 1_000_000


@dataclass(frozen=True)
class RateInterval:
    """A rate per second with one-sided 95 % bounds; None where the window holds too few bins to tell."""

    value: float
    below: float | None
    above: float | None


def rate(analysis: Analysis, metric: str, rows: Mask, side: Side = "best") -> RateInterval | None:
    """A rate (a key of `reports.metrics.slo.RATES`, or `goodput`) of some rows; None where it isn't known.

    Goodput depends on latencies: `side` says at which end of the client's own error.

    Output tokens have bounds only where all rows are meant: content arrivals per bin tell how they vary.
    """
    run = analysis.run
    if run.duration_s <= 0:
        return None
    first, last = answer_began_ns(run), answer_ended_ns(run)
    match metric:
        case "goodput":
            good = rows & analysis.good_of(side)
            if (rows & analysis.judged & analysis.unknown).any():
                return None
            return _counted(analysis, analysis.begin_ns, good)
        case "requests_per_s":
            return _counted(analysis, last, rows & run.ok & run.inside(last))
        case "input_tokens_per_s":
            prompt = np.where(rows, prompt_tokens_inside(run), 0.0)
            return _weighted(analysis, first, prompt)
        case _:
            return _tokens(analysis, metric, rows)


def _tokens(analysis: Analysis, metric: str, rows: Mask) -> RateInterval | None:
    """Output tokens, and both kinds together."""
    run, scan, seconds = analysis.run, analysis.scan, analysis.run.duration_s
    if not scan.known:
        return None
    output = np.where(rows, output_tokens_inside(run, scan)[0], 0.0)
    prompt = np.where(rows, prompt_tokens_inside(run), 0.0)
    total = float(output.sum()) + (float(prompt.sum()) if metric == "total_tokens_per_s" else 0.0)
    arrivals = float(scan.inside.sum())
    if not rows.all() or not arrivals:
        return RateInterval(total / seconds, None, None)
    low, high = _bins(analysis)
    bins = np.zeros(max(high, len(scan.arrivals_per_bin)))
    bins[: len(scan.arrivals_per_bin)] = scan.arrivals_per_bin * (float(output.sum()) / arrivals)
    if metric == "total_tokens_per_s":
        bins = padded_sum(bins, _per_bin(analysis, answer_began_ns(run), prompt))
    return _bounded(analysis, total / seconds, bins[low:high])


def _counted(analysis: Analysis, times_ns: Floats, rows: Mask) -> RateInterval:
    """Events per second."""
    seconds, n = analysis.run.duration_s, int(np.count_nonzero(rows))
    if n < _FEW:
        low, high = share_bounds(n, _TRIALS)
        return RateInterval(n / seconds, low * _TRIALS / seconds, high * _TRIALS / seconds)
    return _weighted(analysis, times_ns, rows.astype(np.float64))


def _weighted(analysis: Analysis, times_ns: Floats, weights: Floats) -> RateInterval:
    low, high = _bins(analysis)
    return _bounded(
        analysis, float(weights.sum()) / analysis.run.duration_s, _per_bin(analysis, times_ns, weights)[low:high]
    )


def _bounded(analysis: Analysis, value: float, per_bin: Floats) -> RateInterval:
    interval = mean_interval(per_bin, 2 * LEVEL - 1)
    if interval is None:
        return RateInterval(value, None, None)
    bin_s = analysis.scan.bin_ns / 1e9
    half = (interval[1] - interval[0]) / 2 / bin_s
    return RateInterval(value, max(0.0, value - half), value + half)


def _bins(analysis: Analysis) -> tuple[int, int]:
    """First bin that lies wholly inside the window, and the one after the last."""
    start, end = analysis.run.window_ns
    width = analysis.scan.bin_ns
    return -(-start // width), end // width


def _per_bin(analysis: Analysis, times_ns: Floats, weights: Floats) -> Floats:
    wanted = np.isfinite(times_ns) & (weights != 0)
    slots = np.maximum(times_ns[wanted] // analysis.scan.bin_ns, 0).astype(np.int64)
    return np.bincount(slots, weights=weights[wanted], minlength=_bins(analysis)[1]).astype(np.float64)
