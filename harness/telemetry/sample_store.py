"""Where samples go: columns in memory, an Arrow stream on disk behind them, one Parquet file at the end.

The stream bounds memory, and outlives a killed process: what was appended more than a second ago can be read. On a
full disk it ends at a batch's edge, and what is appended then waits in memory for room.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tailgate.loadgen.spool import ArrowStream
from tailgate.reports.rundir.spool import whole_batches

FLUSH_ROWS = 8192
FLUSH_S = 1.0
ROW_GROUP = 262_144


class TidySamples:
    """Rows of one schema, appended as columns; without a spool everything stays in memory until `write`."""

    def __init__(self, schema: pa.Schema, spool: Path | None = None) -> None:
        self._schema = schema
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._spool = spool
        self._flushed_s: float | None = None  # monotonic; counts from the first rows
        self._stream: ArrowStream | None = None

    def append(self, columns: Sequence[Any]) -> None:
        """Add rows: one sequence or array per column, in the schema's order."""
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        self._pending.append(batch)
        self._pending_rows += batch.num_rows
        now = time.monotonic()
        self._flushed_s = now if self._flushed_s is None else self._flushed_s
        if self._pending_rows >= FLUSH_ROWS or now - self._flushed_s >= FLUSH_S:
            self._flushed_s = now
            with contextlib.suppress(OSError):  # it is tried again; who ends the samples hears of it
                self.flush()

    def flush(self) -> None:
        """Move what is pending to the spool; nothing happens without one.

        Raises:
            OSError: there is no room. Nothing is lost as long as this process lives: the next flush tries again.
        """
        if self._spool is None or not self._pending:
            return
        if self._stream is None:
            self._spool.parent.mkdir(parents=True, exist_ok=True)
            self._stream = ArrowStream(self._spool, self._schema)
        self._pending_rows = 0
        self._pending = pa.Table.from_batches(self._pending).combine_chunks().to_batches()
        while self._pending:
            self._stream.write(self._pending[0])
            del self._pending[0]

    def write(self, path: Path) -> None:
        """Write all rows so far to one Parquet file, replacing it as a whole, and end the spool."""
        self.close()
        if self._spool is not None and self._stream is not None:
            write_spool(self._spool, self._schema, path)
        else:
            _write(self._pending, self._schema, path)

    def close(self) -> None:
        """End the spool; nothing can be added any more."""
        self.flush()
        if self._stream is not None:
            self._stream.close()


def write_spool(spool: Path, schema: pa.Schema, path: Path) -> None:
    """The complete batches of an Arrow stream as Parquet; nothing if there is no stream.

    The stream's writer may have been killed: what it had begun to write last is left out.
    """
    if spool.exists():
        _write(whole_batches(spool), schema, path)


def _write(batches: Iterable[pa.RecordBatch], schema: pa.Schema, path: Path) -> None:
    draft = path.with_name(path.name + ".part")
    try:
        with pq.ParquetWriter(draft, schema, compression="zstd") as writer:
            for table in _groups(batches):
                writer.write_table(table, row_group_size=ROW_GROUP)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    draft.replace(path)


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """All rows in tables of about a row group each."""
    group: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        group.append(batch)
        rows += batch.num_rows
        if rows >= ROW_GROUP:
            yield pa.Table.from_batches(group)
            group, rows = [], 0
    if group:
        yield pa.Table.from_batches(group)
