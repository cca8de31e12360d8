"""Parquet files as records: the named columns only, calendar times as text, decimals as numbers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tailgate.workloads.common.errors import UserError


def parquet_types(file: Path) -> dict[str, pa.DataType]:
    """The columns and their types; a value inside a struct is named by its path, as in `usage.input`."""
    return {name: kind for field in _opened(file).schema_arrow for name, kind in _leaves(field)}


def is_calendar_type(kind: pa.DataType) -> bool:
    """Whether a column's type says that it holds dates or times of the calendar."""
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def parquet_records(file: Path, names: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row, record) of each row, the first being 1; a record has these names."""
    opened = _opened(file)
    tops = set(opened.schema_arrow.names)
    wanted = {name: (name,) if name in tops else tuple(name.split(".")) for name in names}
    row = 0
    try:
        for batch in opened.iter_batches(columns=list({path[0] for path in wanted.values()})):
            flat = [_plain(_at(batch, path)) for path in wanted.values()]
            for record in pa.RecordBatch.from_arrays(flat, names=list(wanted)).to_pylist():
                row += 1
                yield row, record
    except (OSError, ValueError, ArithmeticError, pa.ArrowException) as error:
        what = f"can't be read as Parquet after row {row}: {str(error).splitlines()[0]}"
        raise UserError(what, where=str(file)) from error


def _opened(file: Path) -> Any:
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(file)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"can't be read as Parquet: {str(error).splitlines()[0]}", where=str(file)) from error


def _leaves(field: pa.Field) -> Iterator[tuple[str, pa.DataType]]:
    if not pa.types.is_struct(field.type):
        yield field.name, field.type
        return
    for inner in field.type:
        yield from ((f"{field.name}.{name}", kind) for name, kind in _leaves(inner))


def _at(batch: pa.RecordBatch, path: tuple[str, ...]) -> pa.Array:
    column = batch.column(path[0])
    return pc.struct_field(column, list(path[1:])) if path[1:] else column


def _plain(column: pa.Array) -> pa.Array:
    """Calendar times as text in UTC, which one reader understands in every format, and decimals as floats."""
    if pa.types.is_timestamp(column.type):
        return pc.cast(pc.cast(column, pa.timestamp(column.type.unit)), pa.string())
    if pa.types.is_date(column.type):
        return pc.cast(pc.cast(column, pa.date32()), pa.string())
    return pc.cast(column, pa.float64()) if pa.types.is_decimal(column.type) else column
