"""Crash-safe records: Arrow IPC streams, one batch at a time, each handed to the kernel whole.

A process that is killed loses what it had not flushed; the file stays readable up to its last whole batch. On a full
disk the file ends at a batch's edge. Injectors spool their records this way, telemetry its samples.
"""

import contextlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

# A closed stream ends with a continuation marker and a length of zero: nobody was killed while writing it.
END_OF_STREAM: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"


class ArrowStream:
    """One growing file of record batches of one schema, which has no dictionary columns. Raises OSError."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = path.open("wb", buffering=0)
        sink = pa.BufferOutputStream()
        pa.ipc.new_stream(sink, schema).close()
        self._write_whole(sink.getvalue().to_pybytes().removesuffix(END_OF_STREAM))

    def write(self, batch: pa.RecordBatch) -> None:
        """Write a batch whole or not at all, raising OSError. What was written before stays readable."""
        self._write_whole(batch.serialize())

    def _write_whole(self, data: Any) -> None:
        start, rest = self._file.tell(), memoryview(data)
        while rest:
            try:
                rest = rest[self._file.write(rest) :]
            except OSError:
                with contextlib.suppress(OSError):  # a device can't be truncated
                    self._file.truncate(start)
                    self._file.seek(start)
                raise

    def close(self) -> None:
        """Write the stream's end; a stream that is closed stays as it is."""
        if not self._file.closed:
            self._write_whole(END_OF_STREAM)
            self._file.close()


class Spool:
    """An Arrow stream of rows, which are tuples in the schema's order."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._stream = ArrowStream(path, schema)
        self._rows: list[tuple[Any, ...]] = []
        # pyarrow imports parts of itself at the first conversion, for which there may be no descriptor left later.
        for field in schema:
            _column((None,), field.type)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: tuple[Any, ...]) -> None:
        self._rows.append(row)

    def flush(self) -> int:
        """Write the added rows and return their number. On an OSError they wait for the next flush."""
        if not self._rows:
            return 0
        columns = zip(*self._rows, strict=True)
        arrays = [_column(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
        self._stream.write(pa.record_batch(arrays, schema=self._schema))
        written = len(self._rows)
        self._rows.clear()
        return written

    def close(self) -> None:
        self.flush()
        self._stream.close()


def _column(values: tuple[Any, ...], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_list(kind):
        return pa.array(values, kind)
    # Lists come as NumPy arrays or as the bytes of uint32 values or of structs: joined, never taken apart.
    item = _numpy_type(kind.value_type)
    raw = [None if v is None else v if isinstance(v, bytes) else v.astype(item).tobytes() for v in values]
    lengths = np.fromiter((0 if v is None else len(v) // item.itemsize for v in raw), np.int32, len(raw))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    joined = np.frombuffer(b"".join(v for v in raw if v), item)
    missing = pa.array([v is None for v in raw])
    return pa.ListArray.from_arrays(pa.array(offsets), _array(joined, kind.value_type), mask=missing)


def _numpy_type(kind: pa.DataType) -> np.dtype[Any]:
    if not pa.types.is_struct(kind):
        numeric: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
        return numeric
    return np.dtype([(field.name, field.type.to_pandas_dtype()) for field in kind])


def _array(values: np.ndarray[Any, Any], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_struct(kind):
        return pa.array(values, kind)
    return pa.StructArray.from_arrays([pa.array(values[field.name], field.type) for field in kind], fields=list(kind))
