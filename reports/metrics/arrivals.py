"""One pass over `arrivals.parquet`, a row group at a time: gaps, stalls, arrivals inside the window.

Memory stays that of one row group however long the run was: pooled gaps are counted per microsecond,
exactly. What the figures are used for is `reports.metrics.requests` and `reports.metrics.throughput`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tailgate.loadgen.records import CENSORED_COLUMN
from tailgate.reports.metrics.arrival_bounds import Intervals, arrival_bounds
from tailgate.reports.rundir.parquet_files import damaged
from tailgate.reports.rundir.run import Run, keeps_intervals
from tailgate.workloads.common.arrays import Floats, Ints, Mask

T = TypeVar("T", np.int64, np.float64)

_FINE_US: Final = 1 << 18  # gaps below 0.26 s are counted per microsecond, longer ones kept one by one
_SAMPLED_GAPS: Final = 500_000
_AT_ONCE: Final = 1_000_000  # arrivals
_NO_GAPS: Final = np.zeros(0, np.uint32)
_NONE: Final = np.zeros(0, np.int64)
_NO_INTERVALS: Final = Intervals(_NONE, _NONE, _NONE, np.zeros(0, np.bool_))


@dataclass(frozen=True)
class Gaps:
    """Gaps between content arrivals, pooled over requests: an exact multiset of microseconds."""

    counts: Ints  # how many gaps of 0, 1, 2, ... us; shape (_FINE_US,)
    long_us: npt.NDArray[np.uint32]  # the gaps of _FINE_US or more, sorted
    requests: int  # how many requests they come from (with at least one gap each)

    @property
    def size(self) -> int:
        return int(self.counts.sum()) + len(self.long_us)

    @cached_property
    def _below(self) -> Ints:
        """How many gaps are of at most 0, 1, 2, ... us."""
        return np.cumsum(self.counts)

    def sum_us(self) -> int:
        return int(np.dot(self.counts, np.arange(len(self.counts)))) + int(self.long_us.sum(dtype=np.int64))

    def at_rank(self, rank: int) -> float:
        """The `rank`-th smallest gap (from 1), in ms."""
        return float(self.at_ranks(np.array([rank]))[0])

    def at_ranks(self, ranks: Ints) -> Floats:
        """The gaps of several ranks, in ms."""
        below = self._below
        fine = np.searchsorted(below, ranks, side="left").astype(np.float64)
        beyond = ranks > below[-1]
        fine[beyond] = self.long_us[np.minimum(ranks[beyond] - int(below[-1]) - 1, len(self.long_us) - 1)]
        return fine / 1000

    def count_above(self, ms: float) -> int:
        """How many gaps are longer than `ms`."""
        limit = math.floor(ms * 1000)
        fine = int(self.counts[limit + 1 :].sum()) if limit < len(self.counts) else 0
        return fine + len(self.long_us) - int(np.searchsorted(self.long_us, ms * 1000, side="right"))

    def __add__(self, other: "Gaps") -> "Gaps":
        return Gaps(
            self.counts + other.counts,
            np.sort(np.concatenate([self.long_us, other.long_us])),
            self.requests + other.requests,
        )


NO_GAPS: Final = Gaps(np.zeros(_FINE_US, np.int64), _NO_GAPS, 0)


@dataclass(frozen=True)
class Chunk:
    """Some requests' arrivals: `rows` of the request table, and their flattened arrival times."""

    rows: Ints  # positions in the request table; shape (r,)
    starts: Ints  # where each one's arrivals begin in `flat_us`; shape (r,)
    lengths: Ints  # how many arrivals each has, at least 1; shape (r,)
    flat_us: npt.NDArray[np.uint32]  # arrivals in us after the first of the same request
    intervals: Intervals  # what of them is not exact

    @property
    def lasts(self) -> Ints:
        """Where each one's last arrival is in `flat_us`."""
        return self.starts + self.lengths - 1

    def gaps_us(self) -> tuple[npt.NDArray[np.uint32], Mask]:
        """Gap before each arrival, and where it is one (False at each request's first arrival)."""
        gaps = np.empty_like(self.flat_us)
        gaps[:1] = 0
        np.subtract(self.flat_us[1:], self.flat_us[:-1], out=gaps[1:])
        gaps[self.starts] = 0
        inner = np.ones(len(gaps), np.bool_)
        inner[self.starts] = False
        return gaps, inner


def chunks(run: Run) -> Iterator[Chunk]:
    """The arrivals of a run, a row group at a time; nothing if they were not kept."""
    if "arrivals.parquet" in run.problems:
        return
    for table in _parts(run):
        for low in range(0, table.num_rows, step := _rows_at_once(table)):
            yield _chunk(table.slice(low, step), run.index)


def _parts(run: Run) -> Iterator[Any]:
    if run.tables is not None:
        yield run.tables["arrivals.parquet"]
        return
    with pq.ParquetFile(path := run.path / "arrivals.parquet") as file:
        for group in range(file.num_row_groups):
            try:
                yield file.read_row_group(group, use_threads=False)
            except (OSError, pa.ArrowException) as error:
                raise damaged(path, error) from error


def _rows_at_once(table: Any) -> int:
    """So many requests that their arrivals take a few MB."""
    return max(1, int(table.num_rows) * _AT_ONCE // max(1, int(table.nbytes) // 4))


def _chunk(table: Any, index: Ints) -> Chunk:
    wanted = table["index"].to_numpy()
    rows = np.searchsorted(index, wanted)
    usable = index[np.minimum(rows, len(index) - 1)] == wanted if len(index) else np.zeros(len(rows), np.bool_)
    usable &= np.asarray(pc.fill_null(pc.list_value_length(table["arrivals_us"]), 0)) > 0
    if not usable.all():  # someone changed the records; the check of the files says so
        table, rows = table.filter(pa.array(usable)), rows[usable]
    lists = table["arrivals_us"].combine_chunks()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    starts, lengths = offsets[:-1] - offsets[0], np.diff(offsets)
    return Chunk(rows, starts, lengths, lists.flatten().to_numpy(), _intervals(table, starts, lengths))


def _intervals(table: Any, starts: Ints, lengths: Ints) -> Intervals:
    if CENSORED_COLUMN not in table.column_names:
        return _NO_INTERVALS
    lists = table[CENSORED_COLUMN].combine_chunks()
    owner = np.asarray(pc.list_parent_indices(lists).to_numpy(), np.int64)
    kept = lists.flatten()
    first, count, after_us, last_exact = (np.asarray(kept.field(k).to_numpy(False)) for k in range(4))
    count = count.astype(np.int64)
    sound = (count > 0) & (first + count <= lengths[owner])  # else someone changed the records
    at = (starts[owner] + first)[sound]
    return Intervals(at, count[sound], after_us.astype(np.int64)[sound], last_exact.astype(np.bool_)[sound])


@dataclass(frozen=True)
class GapSample:
    """The gaps of every `stride`-th request, at most about _SAMPLED_GAPS of them; arrays of one shape."""

    rows: npt.NDArray[np.int32]  # the request each gap belongs to
    slots: npt.NDArray[np.int32]  # the time bin in which it ended
    us: npt.NDArray[np.uint32]
    low_us: npt.NDArray[np.uint32]  # like `Scan.gaps_low`: not each gap's own bound, but their percentiles'
    high_us: npt.NDArray[np.uint32]
    stride: int  # 1 if it is all of them

    def of(self, wanted: Mask) -> "GapSample":
        mine = wanted[self.rows]
        return GapSample(
            self.rows[mine], self.slots[mine], self.us[mine], self.low_us[mine], self.high_us[mine], self.stride
        )

    def pooled(self) -> tuple[Gaps, Gaps, Gaps]:
        """All of them, and the gaps between whose percentiles theirs lie."""
        requests = len(np.unique(self.rows))
        return _counted(self.us, requests), _counted(self.low_us, requests), _counted(self.high_us, requests)


@dataclass(frozen=True)
class Scan:
    """What one pass over the arrivals tells; arrays have one entry per row of the run."""

    longest_ms: Floats  # longest gap of each request, NaN where it has fewer than two arrivals
    longest_low_ms: Floats  # bounds of that
    longest_high_ms: Floats
    # Bounds of each request's first and last arrival against their best estimates, us: low ones are at most 0.
    first_low_us: Floats
    first_high_us: Floats
    last_low_us: Floats
    last_high_us: Floats
    widest_us: Floats  # the longest interval of each request in which an arrival's own time is not known
    jitter_ms: Floats  # standard deviation of each request's gaps, NaN likewise
    inside: Ints  # content arrivals of each request that fell into the steady window
    first_inside: Mask  # whether the first of them did
    gaps: Gaps  # pooled over the `ok` requests of the measure phase
    gaps_low: Gaps  # every percentile of the true gaps lies between those of these two
    gaps_high: Gaps
    bin_ns: int  # width of a time bin
    arrivals_per_bin: Ints  # content arrivals, all phases, by time since the run's start
    sample: GapSample  # the gaps of some of these requests, for views that need more than their distribution
    kept: dict[int, npt.NDArray[np.uint32]]  # the arrivals of the rows that were asked for, us after the first, by row
    bounded: bool = False  # whether the records say which arrivals are not exact; older ones don't
    known: bool = True  # whether there were arrivals to read; without them all counts here are zero and mean nothing


def scan(run: Run, bin_ns: int = 1_000_000_000, keep: Ints | None = None) -> Scan:
    first_ns = run.column("first_token_ns")
    counted, (start_ns, end_ns) = run.ok & run.measured, run.window_ns
    longest, longest_low, longest_high, jitter = np.full((4, len(run)), np.nan)
    first_low, first_high, last_low, last_high, widest = np.zeros((5, len(run)))
    inside = np.zeros(len(run), np.int64)
    gaps, gaps_low, gaps_high, bins = NO_GAPS, NO_GAPS, NO_GAPS, np.zeros(0, np.int64)
    stride = max(1, -(-int(np.nansum(run.column("chunks"))) // _SAMPLED_GAPS))
    samples: list[GapSample] = []
    of_slowest: dict[int, npt.NDArray[np.uint32]] = {}
    first_us = first_ns / 1000
    for chunk in chunks(run):
        if not len(chunk.rows):
            continue
        between, inner = chunk.gaps_us()
        between_low = between_high = between
        several = chunk.lengths > 1
        if not (exact := not len(chunk.intervals)):
            flat = chunk.flat_us.astype(np.int64)
            bounds = arrival_bounds(flat, chunk.starts, chunk.intervals)
            between_low, between_high = bounds.gap_low_us.astype(np.uint32), bounds.gap_high_us.astype(np.uint32)
            off_low, off_high = bounds.low_us - flat, bounds.high_us - flat
            first_low[chunk.rows], first_high[chunk.rows] = off_low[chunk.starts], off_high[chunk.starts]
            last_low[chunk.rows], last_high[chunk.rows] = off_low[chunk.lasts], off_high[chunk.lasts]
            widest[chunk.rows] = np.maximum.reduceat(off_high - off_low, chunk.starts)
        for values, longest_of in ((between, longest), (between_low, longest_low), (between_high, longest_high)):
            longest_of[chunk.rows] = np.where(several, np.maximum.reduceat(values, chunk.starts), np.nan)
        jitter[chunk.rows] = np.where(several, _deviation(between, chunk), np.nan)
        if not (wanted := counted[chunk.rows]).all():
            inner &= np.repeat(wanted, chunk.lengths)
        requests = int(np.count_nonzero(wanted & several))
        gaps = gaps + (pooled := _counted(between[inner], requests))
        gaps_low = gaps_low + (pooled if exact else _counted(between_low[inner], requests))
        gaps_high = gaps_high + (pooled if exact else _counted(between_high[inner], requests))
        # In place from here on: this is the largest array of the whole report.
        at_us = np.repeat(first_us[chunk.rows], chunk.lengths)
        at_us += chunk.flat_us
        within = (at_us >= start_ns / 1000) & (at_us < end_ns / 1000)
        inside[chunk.rows] = np.add.reduceat(within, chunk.starts, dtype=np.int64)
        at_us /= bin_ns / 1000
        slots = np.maximum(at_us, 0, out=at_us).astype(np.int32)
        bins = padded_sum(bins, np.bincount(slots))
        if stride > 1:
            inner &= np.repeat(run.index[chunk.rows] % stride == 0, chunk.lengths)
        rows = np.repeat(chunk.rows.astype(np.int32), chunk.lengths)
        samples.append(
            GapSample(rows[inner], slots[inner], between[inner], between_low[inner], between_high[inner], stride)
        )
        for place in np.flatnonzero(np.isin(chunk.rows, keep)) if keep is not None else ():
            begin = int(chunk.starts[place])
            of_slowest[int(chunk.rows[place])] = chunk.flat_us[begin : begin + int(chunk.lengths[place])].copy()
    first_inside = (first_ns >= start_ns) & (first_ns < end_ns)
    return Scan(
        longest / 1000, longest_low / 1000, longest_high / 1000, first_low, first_high, last_low, last_high, widest,
        jitter / 1000, inside, first_inside, gaps, gaps_low, gaps_high, bin_ns, bins, _together(samples, stride),
        of_slowest, keeps_intervals(run), "arrivals.parquet" not in run.problems,
    )  # fmt: skip


def _deviation(between: npt.NDArray[np.uint32], chunk: Chunk) -> Floats:
    """Standard deviation of each request's gaps, us (of all of them: they are no sample)."""
    values = between.astype(np.float64)
    n = np.maximum(chunk.lengths - 1, 1)
    mean = np.add.reduceat(values, chunk.starts) / n
    np.square(values, out=values)
    return np.sqrt(np.maximum(np.add.reduceat(values, chunk.starts) / n - mean * mean, 0.0))


def _together(samples: list[GapSample], stride: int) -> GapSample:
    none = np.zeros(0, np.int32)
    return GapSample(
        np.concatenate([none, *(sample.rows for sample in samples)]),
        np.concatenate([none, *(sample.slots for sample in samples)]),
        np.concatenate([_NO_GAPS, *(sample.us for sample in samples)]),
        np.concatenate([_NO_GAPS, *(sample.low_us for sample in samples)]),
        np.concatenate([_NO_GAPS, *(sample.high_us for sample in samples)]),
        stride,
    )


def _counted(gaps_us: npt.NDArray[np.uint32], requests: int) -> Gaps:
    fine = gaps_us < _FINE_US
    counts = np.bincount(gaps_us[fine], minlength=_FINE_US).astype(np.int64)
    return Gaps(counts, np.sort(gaps_us[~fine]), requests)


def padded_sum(a: npt.NDArray[T], b: npt.NDArray[T]) -> npt.NDArray[T]:
    """Element-wise sum of arrays of unequal length."""
    total = np.zeros(max(len(a), len(b)), np.result_type(a, b))
    total[: len(a)] += a
    total[: len(b)] += b
    return total
