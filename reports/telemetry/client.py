"""The load generator's record of itself, `client.parquet`: its columns, lags, and how busy injectors were.

Figures only; which of them spoils a run is `reports.validity.client`.
"""

from typing import Any, Final

import numpy as np

from tailgate.loadgen.records import LAG_EDGES_NS
from tailgate.reports.rundir.run import Run
from tailgate.workloads.common.arrays import Floats, Mask

# Shorter intervals than this are no second: the last one of a run may be of a millisecond, all of it work.
_LEAST_NS: Final = 500_000_000

# Being kept from running for less than this within a second explains nothing.
_LEAST_HOLD_S: Final = 0.05
_HELD_UP: Final = (
    ("steal_ns", "the hypervisor took this machine's cores away for {seconds:.2g} s in the second from {at:.0f} s on"),
    (
        "run_delay_ns",
        "other processes kept the load generator from running for {seconds:.2g} s in the second from {at:.0f} s on",
    ),
)


def client_column(run: Run, name: str) -> Floats:
    return np.asarray(run.client[name].to_numpy(), np.float64)


def in_window(run: Run) -> Mask:
    """Intervals of `client.parquet` that touch the steady window."""
    start, end = run.window_ns
    t_ns, length = client_column(run, "t_ns"), client_column(run, "dur_ns")
    return (t_ns < end) & (t_ns + length > start)


def busiest_second(run: Run) -> float | None:
    """Largest share of a second of the steady window in which an injector's thread was computing."""
    seconds = in_window(run) & (client_column(run, "dur_ns") >= _LEAST_NS)
    share = client_column(run, "cpu_fraction")[seconds]
    return float(share.max()) if len(share) else None


def kept_from_running(run: Run) -> str:
    """What held the injector up most within one second of the steady window, in words; empty if nothing did much."""
    if "client.parquet" in run.problems:
        return ""
    inside = in_window(run)
    at_s = client_column(run, "t_ns")[inside] / 1e9
    longest = {
        name: client_column(run, name)[inside] / 1e9 if name in run.client.column_names else np.full(len(at_s), np.nan)
        for name in ("steal_ns", "run_delay_ns")
    }
    for name, says in _HELD_UP:
        seconds = np.nan_to_num(longest[name])
        if len(seconds) and seconds.max() >= _LEAST_HOLD_S:
            k = int(seconds.argmax())
            return says.format(seconds=seconds[k], at=at_s[k])
    return ""


def lag_percentile(run: Run, name: str, q: float) -> float | None:
    """A percentile of a lag histogram over the steady window, ms: its bucket's upper edge (within 4.5 %)."""
    counts = lag_counts(run, name, in_window(run))
    if not counts.sum():
        return None
    slot = int(np.searchsorted(np.cumsum(counts), q / 100 * counts.sum()))
    return float(LAG_EDGES_NS[min(slot + 1, len(LAG_EDGES_NS) - 1)]) / 1e6


def lag_counts(run: Run, name: str, intervals: Mask) -> Floats:
    """A lag histogram summed over intervals; shape (buckets,), zeros where an older tailgate kept none."""
    if name not in run.client.column_names:
        return np.zeros(len(LAG_EDGES_NS))
    return np.asarray(_matrix(run.client[name])[intervals].sum(axis=0), np.float64)


def lag_sum_ns(counts: Floats) -> float:
    """The sum of all lags of a histogram, by the middles of its buckets (within 2.5 %)."""
    upper = np.append(LAG_EDGES_NS[1:], LAG_EDGES_NS[-1])
    return float(np.dot(counts, (LAG_EDGES_NS + upper) / 2))


def _matrix(column: Any) -> Floats:
    """Histogram rows as a matrix; shape (intervals, buckets)."""
    flat = column.combine_chunks().flatten().to_numpy()
    return np.asarray(flat, np.float64).reshape(-1, len(LAG_EDGES_NS))
