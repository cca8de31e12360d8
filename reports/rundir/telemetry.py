"""The time series beside the traffic: schemas and readers of `server`, `host` and `gpu.parquet`.

`harness.telemetry` samples and writes them. All `t_ns` are nanoseconds from the run's start. The readers
turn counters into rates, histograms into differences over a window; what follows from them is elsewhere.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tailgate.reports.rundir.parquet_files import read_table
from tailgate.workloads.common.arrays import Floats, Ints

# The columns that tell sources apart.
SOURCES: Final = {"server": ("endpoint", "labels"), "gpu": ("gpu",)}
# A source's last sample holds for this many of its usual intervals.
_HOLD: Final = 3.0

# One row per sample of the server's /metrics, names as the server gives them (`vllm:num_requests_running`).
SERVER_SCHEMA: Final = pa.schema(
    [
        pa.field("t_ns", pa.int64(), nullable=False),
        pa.field("endpoint", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("labels", pa.string(), nullable=False),  # a JSON object, keys sorted
        pa.field("value", pa.float64(), nullable=False),
    ]
)

# Tidy as well: names below, one row per sample. `process` is a role: injector, locust, cli, server, machine.
HOST_SCHEMA: Final = pa.schema(
    [
        pa.field("t_ns", pa.int64(), nullable=False),
        pa.field("process", pa.string(), nullable=False),
        pa.field("pid", pa.int64()),  # null for the machine as a whole
        # cpu_fraction (1.0 = one core), rss_bytes, net_sent_bytes, net_received_bytes, load1
        pa.field("name", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
    ]
)

# `gpu` is a UUID (a MIG instance has its own). Names: power_w, energy_j (a counter), sm_clock_mhz,
# mem_clock_mhz, throttle_reasons (NVML's bit mask), utilization, mem_utilization (fractions), mem_used_bytes,
# mem_free_bytes, mem_reserved_bytes, temperature_c, ecc_errors, pcie_rx_bytes_per_s, pcie_tx_bytes_per_s.
GPU_SCHEMA: Final = pa.schema(
    [
        pa.field("t_ns", pa.int64(), nullable=False),
        pa.field("gpu", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Series:
    """One sampled quantity of one source: times (ns, rising) and values, same shape."""

    key: tuple[str, str]  # server: (endpoint, labels); gpu: (uuid, ""); host: (process, pid)
    t_ns: Ints
    values: Floats

    def before(self, t_ns: float) -> float | None:
        at = int(np.searchsorted(self.t_ns, t_ns, side="right"))
        return float(self.values[at - 1]) if at else None

    def growth(self) -> Floats:
        """A counter's increase up to each sample; a restart (a fall) counts from zero again."""
        steps = np.diff(self.values, prepend=self.values[:1])
        return np.cumsum(np.where(steps < 0, self.values, steps))

    def delta(self, start_ns: float | None = None, end_ns: float | None = None) -> float:
        """A counter's increase from `start_ns` to `end_ns` (default: first to last sample), interpolated."""
        grown = self.growth()
        low = grown[0] if start_ns is None else np.interp(start_ns, self.t_ns, grown)
        high = grown[-1] if end_ns is None else np.interp(end_ns, self.t_ns, grown)
        return float(high - low)

    def mean(self, start_ns: float, end_ns: float) -> float | None:
        """A gauge's time-weighted mean over a window, each sample holding until the next.

        The last one holds for `_HOLD` usual intervals: what a source was that is gone, it is no longer.
        """
        usual = float(np.median(np.diff(self.t_ns))) if len(self.t_ns) > 1 else np.inf
        until = min(end_ns, self.t_ns[-1] + _HOLD * usual)
        edges = np.clip(np.append(self.t_ns, max(until, self.t_ns[-1])), start_ns, end_ns)
        weight = np.diff(edges).astype(np.float64)
        if self.t_ns[0] > start_ns:
            weight[0] += min(self.t_ns[0], end_ns) - start_ns
        return float(np.dot(weight, self.values) / weight.sum()) if weight.sum() > 0 else None

    def most(self, start_ns: float, end_ns: float) -> float | None:
        inside = self.values[(self.t_ns >= start_ns) & (self.t_ns <= end_ns)]
        return float(inside.max()) if len(inside) else None


@dataclass(frozen=True)
class Telemetry:
    """One tidy table of samples; `source` are the columns that tell sources apart."""

    table: Any
    source: tuple[str, ...]

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(pc.unique(self.table["name"]).to_pylist())

    @cached_property
    def times_ns(self) -> Ints:
        """Times at which anything was sampled, rising."""
        return np.unique(self.table["t_ns"].to_numpy())

    @cached_property
    def _places(self) -> dict[str, Ints]:
        """The rows of each name."""
        if not self.table.num_rows:
            return {}
        names = self.table["name"].combine_chunks().dictionary_encode()
        codes = names.indices.to_numpy()
        order = np.argsort(codes, kind="stable")
        parts = np.split(order, np.searchsorted(codes[order], np.arange(1, len(names.dictionary))))
        return dict(zip(names.dictionary.to_pylist(), parts, strict=True))

    @cached_property
    def _known(self) -> dict[str, list[Series]]:
        return {}

    def series(self, name: str) -> list[Series]:
        if name not in self._known:
            places = self._places.get(name)
            self._known[name] = [] if places is None else self._split(self.table.take(pa.array(places)))
        return self._known[name]

    def _split(self, rows: Any) -> list[Series]:
        """Rows of one name, apart by source, each in time order."""
        codes = np.zeros(rows.num_rows, np.int64)
        texts: list[list[str]] = []
        for column in self.source:
            encoded = pc.fill_null(rows[column].cast(pa.string()), "").combine_chunks().dictionary_encode()
            codes = codes * len(encoded.dictionary) + encoded.indices.to_numpy()
            texts.append(encoded.dictionary.to_pylist())
        t_ns, values = rows["t_ns"].to_numpy(), rows["value"].to_numpy()
        order = np.lexsort((t_ns, codes))
        series = []
        for part in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
            key, code = ["", ""], int(codes[part[0]])
            for place in reversed(range(len(texts))):
                code, at = divmod(code, len(texts[place]))
                key[place] = texts[place][at]
            series.append(Series((key[0], key[1]), t_ns[part], values[part]))
        return series

    def first(self, *names: str) -> list[Series]:
        """The series of the first of `names` that was sampled (names change between server versions)."""
        return next((series for name in names if (series := self.series(name))), [])

    def delta(self, *names: str, start_ns: float | None = None, end_ns: float | None = None) -> float | None:
        """A counter's increase summed over sources; None if it was never sampled."""
        series = self.first(*names)
        return sum(s.delta(start_ns, end_ns) for s in series) if series else None


def labels_of(series: Series) -> dict[str, str]:
    return dict(json.loads(series.key[1] or "{}"))


def longest_gap_s(t_ns: Ints, start_ns: int, end_ns: int) -> float:
    """Longest time without a sample inside a window, seconds."""
    inside = t_ns[(t_ns > start_ns) & (t_ns < end_ns)]
    return float(np.diff(np.concatenate([[start_ns], inside, [end_ns]])).max()) / 1e9


def on_grid(series: Sequence[Series], t_ns: Ints) -> Floats:
    """The sum of gauges at the given times, each sample holding until the next; NaN before the first."""
    total = np.zeros(len(t_ns))
    for source in series:
        at = np.searchsorted(source.t_ns, t_ns, side="right") - 1
        total += np.where(at >= 0, source.values[np.maximum(at, 0)], np.nan)
    return total if len(series) else np.full(len(t_ns), np.nan)


def mean_on_grid(series: Sequence[Series], edges_ns: Ints) -> Floats:
    """Time-weighted mean of the summed gauges between successive edges; shape (len(edges) - 1,).

    NaN where a series has not begun, or has ended by more than its longest pause.
    """
    total = np.zeros(len(edges_ns) - 1)
    for source in series:
        pause = int(np.diff(source.t_ns).max()) if len(source.t_ns) > 1 else 0
        ends = np.append(source.t_ns, source.t_ns[-1] + pause)
        area = np.concatenate([[0.0], np.cumsum(source.values * np.diff(ends))])
        low, high = np.maximum(edges_ns[:-1], ends[0]), np.minimum(edges_ns[1:], ends[-1])
        span = (high - low).astype(np.float64)
        seen = span > 0
        grown = np.interp(high, ends, area) - np.interp(low, ends, area)
        total += np.where(seen, grown / np.where(seen, span, 1.0), np.nan)
    return total if len(series) else np.full(len(edges_ns) - 1, np.nan)


def rate_on_grid(series: Iterable[Series], edges_ns: Ints) -> Floats:
    """The summed rate per second of counters between successive edges; shape (len(edges) - 1,)."""
    total = np.zeros(len(edges_ns) - 1)
    for source in series:
        total += np.diff(np.interp(edges_ns, source.t_ns, source.growth())) / (np.diff(edges_ns) / 1e9)
    return total


@dataclass(frozen=True)
class HistogramGrowth:
    """A Prometheus histogram's increase: `counts[i]` values in (edges[i-1], edges[i]], edges[-1] is inf."""

    edges: Floats
    counts: Floats
    total: float  # sum of the values

    @property
    def n(self) -> float:
        return float(self.counts.sum())

    @property
    def mean(self) -> float | None:
        """Mean value; unlike the percentiles it knows no buckets."""
        return self.total / self.n if self.n else None

    def percentile(self, q: float) -> tuple[float, float, float] | None:
        """(interpolated value, lower edge, upper edge) of the bucket that holds the q-th percentile."""
        if not self.n:
            return None
        below = np.cumsum(self.counts)
        rank = q / 100 * self.n
        at = min(int(np.searchsorted(below, rank - 1e-9)), len(self.counts) - 1)
        low, high = (self.edges[at - 1] if at else 0.0), float(self.edges[at])
        inside = (rank - (below[at] - self.counts[at])) / self.counts[at] if self.counts[at] else 1.0
        value = low if np.isinf(high) else low + (high - low) * inside
        return float(value), float(low), high


def histogram(
    telemetry: Telemetry, name: str, start_ns: float | None = None, end_ns: float | None = None
) -> HistogramGrowth | None:
    """The increase of histogram `name` (without `_bucket`), summed over sources; None if never sampled."""
    by_edge: dict[float, float] = {}
    for source in telemetry.series(f"{name}_bucket"):
        edge = float(labels_of(source).get("le", "inf").replace("+Inf", "inf"))
        by_edge[edge] = by_edge.get(edge, 0.0) + source.delta(start_ns, end_ns)
    if not by_edge:
        return None
    edges = np.array(sorted(by_edge))
    counts = np.maximum(np.diff([by_edge[e] for e in edges], prepend=0.0), 0.0)
    return HistogramGrowth(edges, counts, telemetry.delta(f"{name}_sum", start_ns=start_ns, end_ns=end_ns) or 0.0)


def read_server(run_dir: Path) -> Telemetry | None:
    """`server.parquet`; None if the run has none."""
    return _read(run_dir / "server.parquet", SOURCES["server"])


def read_gpu(run_dir: Path) -> Telemetry | None:
    return _read(run_dir / "gpu.parquet", SOURCES["gpu"])


def _read(path: Path, source: tuple[str, ...]) -> Telemetry | None:
    if not path.exists():
        return None
    table = read_table(path)
    return Telemetry(table, source) if table.num_rows else None
