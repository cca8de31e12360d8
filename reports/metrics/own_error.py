"""The instrument's own error: what the client itself may have done to a figure.

Every latency lies between a least and a most value that agree with all that was observed: arrivals that one read could
not tell apart (`arrival_bounds`), and requests that were sent late. docs/metrics.md defines them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from tailgate.reports.metrics.arrivals import Gaps, Scan
from tailgate.reports.rundir.run import Run
from tailgate.workloads.common.arrays import Floats

# Sending later than this moves other requests' answers too; less is within what a figure is certified to.
LATE_NS: Final = 1e6
# A figure is certified where half of its interval is no wider than the larger of these.
CERTIFIED_MS: Final = 1.0
CERTIFIED_SHARE: Final = 0.02
# The least and the most of a figure, ms.
Ends = tuple[float, float]


def certified(value: float, error: Ends) -> bool:
    """Whether the client's own error is too small to matter, ms."""
    half = (error[1] - error[0]) / 2
    return math.isinf(value) or half <= max(CERTIFIED_MS, CERTIFIED_SHARE * value)


def of_series(low: Floats, high: Floats, percentiles: Sequence[float]) -> Mapping[str, Ends]:
    """The ends of each percentile and of the mean, from those of each request, ms."""
    if not len(low):
        return {}
    low, high = np.sort(low), np.sort(high)
    found = {f"p{q:g}": (float(low[k]), float(high[k])) for q in percentiles for k in [rank(q, len(low)) - 1]}
    return found | {"mean": (float(low.mean()), float(high.mean()))}


def of_gaps(low: Gaps, high: Gaps, percentiles: Sequence[float]) -> Mapping[str, Ends]:
    """The ends of each percentile and of the mean of pooled gaps, ms."""
    size = low.size
    if not size:
        return {}
    found = {f"p{q:g}": (low.at_rank(k), high.at_rank(k)) for q in percentiles for k in [rank(q, size)]}
    return found | {"mean": (low.sum_us() / size / 1000, high.sum_us() / size / 1000)}


def rank(q: float, n: int) -> int:
    """The rank (from 1) of the q-th percentile among n values: the nearest."""
    return max(1, math.ceil(q / 100 * n - 1e-9))


def ends(
    run: Run, scan: Scan, ns: dict[str, Floats], after_first: Floats
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """The least and the most of each figure of `ns`, in ns; jitter is taken for exact.

    A request that was sent late was late for its user and not for the server, so in an open loop a figure that counts
    from the planned time lies between that without our lateness and that from the plan. Requests that were due while
    another one's lateness lasted met another queue than planned: by that lateness and one step of the server.
    """
    if not scan.bounded:
        return dict(ns), dict(ns)
    first, last = run.column("first_token_ns"), run.column("last_token_ns")
    late = _own_lateness(run)
    moved = _moved_by_others(run, scan, late)
    first_low, first_high = 1e3 * scan.first_low_us, 1e3 * scan.first_high_us
    last_low, last_high = 1e3 * scan.last_low_us, 1e3 * scan.last_high_us
    widest, output = 1e3 * scan.widest_us, run.output_tokens
    with np.errstate(invalid="ignore", divide="ignore"):
        tpot = ns["tpot"]
        low = {
            "ttft": ns["ttft"] - late - moved + first_low,
            "ttft_from_send": ns["ttft_from_send"] - moved + first_low,
            "ttfa": ns["ttfa"] - late - moved - widest,
            "tpot": np.where(np.isnan(tpot), np.nan, (last + last_low - first - first_high) / after_first),
            "stall": 1e6 * scan.longest_low_ms,
            "e2e": ns["e2e"] - late - moved + last_low,
            "normalized_e2e": ns["normalized_e2e"] + (last_low - late - moved) / output,
        }
        high = {
            "ttft": ns["ttft"] + moved + first_high,
            "ttft_from_send": ns["ttft_from_send"] + moved + first_high,
            "ttfa": ns["ttfa"] + moved + widest,
            "tpot": np.where(np.isnan(tpot), np.nan, (last + last_high - first - first_low) / after_first),
            "stall": 1e6 * scan.longest_high_ms,
            "e2e": ns["e2e"] + moved + last_high,
            "normalized_e2e": ns["normalized_e2e"] + (last_high + moved) / output,
        }
    return ({**ns, **{name: np.maximum(values, 0.0) for name, values in low.items()}}, {**ns, **high})


def _own_lateness(run: Run) -> Floats:
    """How late we sent each request, ns; what a new connection takes is the network's and the server's."""
    if run.manifest.loop != "open":
        return np.zeros(len(run))
    set_up = np.nan_to_num(run.column("connected_ns") - run.column("connect_start_ns"))
    late = run.column("sent_ns") - run.column("scheduled_ns") - np.maximum(set_up, 0.0)
    return np.maximum(np.nan_to_num(late), 0.0)


def _moved_by_others(run: Run, scan: Scan, late_ns: Floats) -> Floats:
    """By how much each request's answer may have been moved by others' late sending, ns."""
    moved = np.zeros(len(run))
    late = np.flatnonzero(late_ns > LATE_NS)
    if not len(late):
        return moved
    due = run.column("scheduled_ns")
    late = late[np.argsort(due[late])]
    begin, end = due[late], due[late] + 2 * late_ns[late]
    # Latenesses that overlap count as one, with the largest of them.
    reach = np.maximum.accumulate(end)
    heads = np.flatnonzero(np.concatenate([[True], begin[1:] > reach[:-1]]))
    most = np.maximum.reduceat(late_ns[late], heads)
    tails = np.concatenate([heads[1:], [len(late)]]) - 1
    slot = np.searchsorted(begin[heads], due, side="right") - 1
    inside = (slot >= 0) & (due <= reach[tails][np.maximum(slot, 0)])
    step = 1e6 * scan.gaps.at_rank(scan.gaps.size // 2 + 1) if scan.gaps.size else 0.0
    moved[inside] = most[slot[inside]] + step
    return moved
