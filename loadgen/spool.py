"""Crash-safe records: Arrow IPC streams, one batch at a time, each handed to the kernel whole.

A process that is killed loses what it had not flushed, at most half a second; the file stays readable up to
its last whole batch. A full disk ends the file at a batch's edge and is reported, once.
"""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


class Spool:
    """One growing file of record batches of one schema. Rows are tuples in the schema's order."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._file = path.open("wb", buffering=0)
        self._rows: list[tuple[Any, ...]] = []
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            del writer  # nothing yet but the stream's head; batches are to follow before the end marker
        self._file.write(sink.getvalue().to_pybytes().removesuffix(_END_OF_STREAM))

    def __len__(self) -> int:
        """Rows waiting for a flush."""
        return len(self._rows)

    def add(self, row: tuple[Any, ...]) -> None:
        """Keep one row for the next flush."""
        self._rows.append(row)

    def flush(self) -> int:
        """Write what has been added; the number of rows written.

        Raises:
            OSError: the disk is full or gone. What was written before stays readable.
        """
        if not self._rows:
            return 0
        columns = zip(*self._rows, strict=True)
        arrays = [_column(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
        batch = pa.record_batch(arrays, schema=self._schema)
        data = memoryview(batch.serialize())
        start = self._file.tell()
        while data:
            try:
                data = data[self._file.write(data) :]
            except OSError:
                with contextlib.suppress(OSError):  # a device can't be truncated
                    self._file.truncate(start)
                raise
        written = len(self._rows)
        self._rows.clear()
        return written

    def close(self) -> None:
        """Flush, write the stream's end marker (it says: nobody was killed here), and close."""
        self.flush()
        self._file.write(_END_OF_STREAM)
        self._file.close()


def _column(values: tuple[Any, ...], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_list(kind):
        return pa.array(values, kind)
    # Lists come as NumPy arrays or as the bytes of uint32 values: joined, never taken apart.
    raw = [None if v is None else v if isinstance(v, bytes) else v.astype(np.uint32).tobytes() for v in values]
    lengths = np.fromiter((0 if v is None else len(v) // 4 for v in raw), np.int32, len(raw))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    joined = np.frombuffer(b"".join(v for v in raw if v), np.uint32)
    missing = pa.array([v is None for v in raw])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(joined), mask=missing)
