"""What is known of arrivals that a read could not tell apart: bounds of each, and of the gaps between them.

`loadgen.records.CENSORED` says what is kept: some arrivals, in order, came in `(after, until]`. From it follow, for
each request, bounds of its first and last arrival and of its longest gap, and for gaps pooled over requests two
multisets between whose percentiles every percentile of the true gaps lies (docs/metrics.md, "The instrument's own
error").
Times are microseconds after the answer's first arrival, and true to one.
"""

from dataclasses import dataclass

import numpy as np

from tailgate.workloads.common.arrays import Ints, Mask


@dataclass(frozen=True)
class Intervals:
    """Intervals of some requests' arrivals, flattened; arrays have one entry per interval.

    An interval's arrivals are the `count` ones from `at` on in the flattened arrivals of the requests.
    """

    at: Ints
    count: Ints
    after_us: Ints
    last_exact: Mask  # whether the last of them came at the interval's end

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True)
class ArrivalBounds:
    """Bounds of flattened arrivals; arrays have one entry per arrival. A request's first arrival has no gap: 0."""

    low_us: Ints
    high_us: Ints
    gap_low_us: Ints
    gap_high_us: Ints


def arrival_bounds(flat_us: Ints, starts: Ints, intervals: Intervals) -> ArrivalBounds:
    """Bounds of arrivals and gaps.

    Args:
        flat_us: best estimates, request by request, each relative to its first; shape (n,).
        starts: where each request's arrivals begin; shape (requests,).
        intervals: what is not exact.
    """
    low, high = flat_us.copy(), flat_us.copy()
    # Each interval's arrivals in turn: which interval, and the how-manieth of it (from 1).
    owner = np.repeat(np.arange(len(intervals)), intervals.count)
    place = np.arange(1, len(owner) + 1) - np.repeat(np.cumsum(intervals.count) - intervals.count, intervals.count)
    member = intervals.at[owner] + place - 1
    last = intervals.at + intervals.count - 1
    until = flat_us[last]
    low[member] = intervals.after_us[owner]
    high[member] = until[owner]
    exact = last[intervals.last_exact]
    low[exact] = flat_us[exact]

    gap_low, gap_high = np.zeros_like(flat_us), np.zeros_like(flat_us)
    gap_low[1:] = np.maximum(low[1:] - high[:-1], 0)
    gap_high[1:] = np.maximum(high[1:] - low[:-1], 0)
    begins = np.zeros(len(flat_us), np.bool_)
    begins[starts] = True
    # Of m gaps that fill a span D no more than D / x can be longer than x: as many as {D, D/2, ..., D/m} has.
    leads = begins[intervals.at]  # no arrival precedes these: they have one gap less
    before = np.maximum(intervals.at - 1, 0)
    span = np.where(leads, until - intervals.after_us, until - low[before])
    parts = place - leads[owner]
    gap_high[member] = np.where(parts > 0, -(-np.maximum(span[owner], 0) // np.maximum(parts, 1)), 0)
    # Of all gaps of an interval only its first, or the longest, is sure to be longer than anything.
    gap_low[member[place > 1]] = 0
    inner = ~leads
    shortest = np.maximum(intervals.after_us - high[before], 0)
    mean = np.where(intervals.last_exact, (until - high[before]) // intervals.count, 0)
    gap_low[intervals.at[inner]] = np.maximum(shortest, mean)[inner]
    gap_low[starts] = gap_high[starts] = 0
    return ArrivalBounds(low, high, gap_low, gap_high)
