"""A run directory's tables as columns: NumPy arrays, one entry per request, in the order of `index`.

Reads only; what the columns mean is `reports.metrics.requests`. Times stay nanoseconds (float64, NaN for null:
exact up to 104 days).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tailgate.loadgen.records import ARRIVALS_SCHEMA, CENSORED_COLUMN, CLIENT_SCHEMA
from tailgate.reports.rundir.manifest import Manifest, altered
from tailgate.reports.rundir.parquet_files import problem, read_requests, read_table
from tailgate.reports.rundir.telemetry import (
    GPU_SCHEMA,
    HOST_SCHEMA,
    SERVER_SCHEMA,
    SOURCES,
    Telemetry,
    read_gpu,
    read_server,
)
from tailgate.reports.rundir.usage import output_contradicted, planned_is_limit
from tailgate.workloads.common.arrays import Floats, Ints, Mask
from tailgate.workloads.table.columns import PLAN_SCHEMA

_TOKEN_COUNTS: Final = ("prompt_tokens", "cached_tokens", "output_tokens")
_OF_PLAN: Final = ["index", "prefix_blocks", "prompt_tokens"]
# Without these a run has fewer figures, but still figures.
_OPTIONAL: Final = {
    "arrivals.parquet": ARRIVALS_SCHEMA,
    "client.parquet": CLIENT_SCHEMA,
    "plan.parquet": [PLAN_SCHEMA.field(name) for name in _OF_PLAN],
    "server.parquet": SERVER_SCHEMA,
    "gpu.parquet": GPU_SCHEMA,
    "host.parquet": HOST_SCHEMA,
}


@dataclass(frozen=True)
class Run:
    """One run directory: its manifest, and its tables, read when first asked for."""

    path: Path
    manifest: Manifest
    requests: Any  # pa.Table of REQUESTS_SCHEMA
    problems: Mapping[str, str]  # file name -> why it can't be used
    altered: Mapping[str, str]  # file name -> how it is not what the manifest's checksum says
    absent: tuple[str, ...] = ()  # columns that requests.parquet lacks: they are null
    tables: Mapping[str, Any] | None = None  # of a run without files: what would stand in them, by file name

    @classmethod
    def in_memory(cls, manifest: Manifest, tables: Mapping[str, Any]) -> "Run":
        """A run without files: tables by the names that their files would have, `requests.parquet` among them."""
        problems = {name: "is missing from the run" for name in _OPTIONAL if name not in tables}
        return cls(Path(manifest.run), manifest, tables["requests.parquet"], problems, {}, (), tables)

    def stored(self, name: str, columns: list[str] | None = None) -> Any:
        """A file's table. UserError if it is missing or damaged."""
        if self.tables is None:
            return read_table(self.path / name, columns)
        return self.tables[name] if columns is None else self.tables[name].select(columns)

    def __len__(self) -> int:
        return int(self.requests.num_rows)

    def sampled(self, kind: Literal["server", "gpu"]) -> Telemetry | None:
        """The servers' or the GPUs' samples; None where there are none."""
        if (name := f"{kind}.parquet") in self.problems:
            return None
        if self.tables is None:
            return read_server(self.path) if kind == "server" else read_gpu(self.path)
        table = self.tables[name]
        return Telemetry(table, SOURCES[kind]) if table.num_rows else None

    def column(self, name: str) -> Floats:
        """A numeric column of `requests.parquet` as float64, NaN for null, and for counts of tokens that can't be."""
        values = self._stored(name)
        match name:
            case "output_tokens":
                return np.where(self._output_wrong, np.nan, values)
            case "prompt_tokens":
                return np.where(values > 0, values, np.nan)
            case "cached_tokens":
                return np.where(values > self._stored("prompt_tokens"), np.nan, values)
            case _:
                return values

    def _stored(self, name: str) -> Floats:
        return np.asarray(self.requests[name].to_numpy(), np.float64)

    @cached_property
    def _output_wrong(self) -> Mask:
        limit = self._stored("output_tokens_planned") if planned_is_limit(self.manifest.spec) else None
        return output_contradicted(self._stored("output_tokens"), self._stored("chunks"), limit)

    @cached_property
    def usage_contradicted(self) -> Mask:
        """Answers that ended well and whose stream proves their `usage` wrong."""
        return self.ok & self._output_wrong

    @cached_property
    def usage_missing(self) -> Mask:
        """Answers that ended well and came without a count of their tokens."""
        return self.ok & np.isnan(self._stored("output_tokens"))

    @cached_property
    def shown_requests(self) -> Any:
        """`requests` for people: null where a count of tokens is none (NO_COUNT is a mark for us)."""
        table = self.requests
        for name in _TOKEN_COUNTS:
            counts = pc.if_else(pc.less(table[name], 0), None, table[name])
            table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), counts)
        return table

    @cached_property
    def output_tokens(self) -> Floats:
        """Tokens of each answer: by usage, at least one an arrival where that is proved wrong; NaN without usage."""
        chunks = self._stored("chunks")
        return np.where(self.usage_contradicted & (chunks > 0), chunks, self.column("output_tokens"))

    def texts(self, name: str) -> tuple[Ints, list[str]]:
        """A text column as codes and their names; null is its own name, the empty text."""
        column = pc.fill_null(self.requests[name].cast(pa.string()), "").combine_chunks().dictionary_encode()
        return column.indices.to_numpy().astype(np.int64), column.dictionary.to_pylist()

    def is_text(self, name: str, *values: str) -> Mask:
        codes, names = self.texts(name)
        return np.isin(codes, [code for code, text in enumerate(names) if text in values])

    @cached_property
    def index(self) -> Ints:
        """The plan's row numbers, rising."""
        return np.asarray(self.requests["index"].to_numpy(), np.int64)

    @cached_property
    def ok(self) -> Mask:
        return self.is_text("status", "ok")

    @cached_property
    def measured(self) -> Mask:
        return self.is_text("phase", "measure")

    @property
    def due_ns(self) -> Floats:
        """When each request was due: its planned time, in a closed loop its hand-over."""
        return self.column("scheduled_ns" if self.manifest.loop == "open" else "handed_over_ns")

    @cached_property
    def client(self) -> Any:
        """`client.parquet`, empty where it is missing."""
        if "client.parquet" in self.problems:
            return CLIENT_SCHEMA.empty_table()
        return self.stored("client.parquet")

    @property
    def cache_block_tokens(self) -> int | None:
        """Length of a block of the server's prefix cache, as its fingerprint gives it."""
        config = self.manifest.target.fingerprint.get("config") or {}
        size = str((config.get("cache_config") or {}).get("block_size", ""))
        return int(size) if size.isdigit() and int(size) else None

    def implied_hits(self, granularity: int = 1) -> Ints | None:
        """For each request, the prompt tokens that requests sent before it began with; None without blocks.

        Args:
            granularity: length of the server's own cache blocks, see `workloads.statistics.prefix_reuse.implied_reuse`.
        """
        if "plan.parquet" in self.problems:
            return None
        plan = self.stored("plan.parquet", _OF_PLAN)
        size = int((plan.schema.metadata or {}).get(b"tailgate.block_tokens", b"0"))
        if not size or not pc.sum(pc.list_value_length(plan["prefix_blocks"])).as_py():
            return None
        from tailgate.workloads.statistics.prefix_reuse import implied_reuse

        sent = self.column("dispatched_ns")
        order = np.argsort(np.where(np.isnan(sent), np.inf, sent), kind="stable")
        order = order[np.isfinite(sent[order])]
        by_index = np.argsort(plan["index"].to_numpy(), kind="stable")
        rows = by_index[np.searchsorted(plan["index"].to_numpy(), self.index[order], sorter=by_index)]
        hits = np.zeros(len(self), np.int64)
        hits[order] = implied_reuse(plan.take(pa.array(rows)), size, granularity).hit_tokens
        return hits

    @cached_property
    def ended_by_count(self) -> bool:
        """Whether a closed loop ended because all of its `requests` had been asked for."""
        count = (self.manifest.spec.get("workload") or {}).get("requests")
        return self.manifest.loop == "closed" and isinstance(count, int) and 0 < count <= len(self)

    @cached_property
    def window_ns(self) -> tuple[int, int]:
        """The steady window: from the end of warm-up to the planned end of the measure phase.

        A load that stopped sooner (interrupted, aborted, failed) ends it. A closed loop that ends by a number of
        requests is measured from the first start (or the end of warm-up) to the last end: where it is short, no time
        in between is steady, and to stop at the last asking would leave out what the users still waited for.
        """
        start, end = self.manifest.measure_start_ns, self.manifest.measure_end_ns
        if self.ended_by_count:
            return self._of_all_measured(start)
        if self.manifest.state == "complete":
            return start, max(start, end)
        stopped = self.manifest.ended_ns
        if stopped is None:
            last = [float(np.nanmax(c)) for n in ("dispatched_ns", "end_ns") if np.isfinite(c := self.column(n)).any()]
            stopped = int(max(last, default=0))
        return start, max(start, min(end, stopped))

    @property
    def users_run_out_ns(self) -> int | None:
        """From when a loop that ended by a number of requests had users without one; None where it had none."""
        begin, end = self.manifest.measure_end_ns, self.window_ns[1]
        return max(begin, self.window_ns[0]) if self.ended_by_count and begin < end else None

    def _of_all_measured(self, start: int) -> tuple[int, int]:
        """From the first start of the measure phase (unless load came before it, in the warm-up) to the last end.

        An answer ends with its last token: nobody waits for what a server sends behind it.
        """
        begun, last = self.column("dispatched_ns"), self.column("last_token_ns")
        ends = np.where(self.ok & np.isfinite(last), last, self.column("end_ns"))
        rows = self.measured & np.isfinite(begun) & np.isfinite(ends)
        if not rows.any():
            return start, start
        if not self.manifest.warmup_ns:
            start = max(start, int(begun[rows].min()))
        return start, max(start, int(ends[rows].max()) + 1)

    def inside(self, t_ns: Floats) -> Mask:
        """Which times lie in the steady window."""
        start, end = self.window_ns
        return np.asarray((t_ns >= start) & (t_ns < end))

    @property
    def duration_s(self) -> float:
        start, end = self.window_ns
        return (end - start) / 1e9


def keeps_intervals(run: Run) -> bool:
    """Whether the run's arrivals say which of them are not exact; older runs' don't."""
    if "arrivals.parquet" in run.problems:
        return False
    if run.tables is not None:
        return CENSORED_COLUMN in run.tables["arrivals.parquet"].column_names
    return CENSORED_COLUMN in pq.read_schema(run.path / "arrivals.parquet").names


def slowest_rows(run: Run, most: int) -> Ints:
    """Rows of the measure phase that took longest from due time to end, slowest first."""
    took = np.where(run.measured, run.column("end_ns") - run.due_ns, np.nan)
    ended = np.flatnonzero(np.isfinite(took))
    return ended[np.argsort(-took[ended], kind="stable")][:most]


def load_run(run_dir: Path | str) -> Run:
    """Open a collected run directory.

    Raises:
        UserError: the manifest or `requests.parquet` is missing, damaged or not what it should be.
    """
    path = Path(run_dir)
    manifest = Manifest.load(path)
    changed = altered(path, manifest)
    trusted = manifest.checksums.keys() - changed.keys()
    all_files = {name: problem(path / name, schema, name in trusted) for name, schema in _OPTIONAL.items()}
    problems = {name: why for name, why in all_files.items() if why}
    requests, absent = read_requests(path / "requests.parquet")
    return Run(path, manifest, requests, problems, changed, tuple(absent))
