"""The files of a run directory as Arrow tables: read, checked against their schemas, and what is wrong with them.

The errors for damaged and hand-edited files are all made here; what the columns mean is `reports.rundir.run`.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tailgate.loadgen.records import CENSORED_COLUMN, REQUESTS_SCHEMA
from tailgate.workloads.common.errors import UserError

# Columns of requests.parquet that every metric of a request needs, beside those that are never null.
_NEEDED: Final = frozenset(
    {
        "scheduled_ns", "handed_over_ns", "dispatched_ns", "sent_ns", "first_token_ns", "first_answer_ns",
        "last_token_ns", "end_ns", "prompt_tokens", "output_tokens",
    }
)  # fmt: skip
# Columns that older runs don't have: what rests on them is unchecked there, or judged by the rules of their time.
_ADDED: Final = frozenset({"turnaround_lag", "clock_jump_ns", "run_delay_ns", "steal_ns", CENSORED_COLUMN})
_REMEDY: Final = "The file was changed after the run: restore it from a copy."


def read_table(path: Path, columns: list[str] | None = None) -> Any:
    """Read a Parquet file.

    Raises:
        UserError: it is missing or damaged, or lacks one of `columns`.
    """
    try:
        # Not `read_table`: that loads Arrow's dataset machinery, 50 MB, to read one file.
        with pq.ParquetFile(path) as file:
            if absent := [name for name in columns or () if name not in file.schema_arrow.names]:
                raise UserError(f"has no column {', '.join(absent)}", where=str(path), remedy=_REMEDY)
            return file.read(columns=columns, use_threads=False)
    except FileNotFoundError:
        raise UserError("is missing from the run directory", where=str(path)) from None
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> UserError:
    """The error for a file that Arrow can't read."""
    return UserError(f"cannot be read: {error}", where=str(path), remedy="The file is damaged: restore it from a copy.")


def read_requests(path: Path) -> tuple[Any, list[str]]:
    """`requests.parquet` as REQUESTS_SCHEMA has it, and the columns that it lacks: they are null.

    Raises:
        UserError: it is missing or damaged, lacks a column without which there are no figures, holds values of
            another type or nulls where none can be, or its rows are not in the order of `index`.
    """
    table = read_table(path)
    absent = [field.name for field in REQUESTS_SCHEMA if field.name not in table.column_names]
    columns = []
    for field in REQUESTS_SCHEMA:
        if field.name in absent:
            if not field.nullable or field.name in _NEEDED:
                raise UserError(f"has no column {field.name}", where=str(path), remedy=_REMEDY)
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        try:
            column = table[field.name].cast(field.type)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            kind = table[field.name].type
            raise UserError(
                f"column {field.name} holds {kind}, not {field.type}", where=str(path), remedy=_REMEDY
            ) from error
        if column.null_count and not field.nullable:
            why = f"column {field.name} is empty in {column.null_count:,} rows"
            raise UserError(why, where=str(path), remedy=_REMEDY)
        columns.append(column)
    requests = pa.table(columns, schema=REQUESTS_SCHEMA)
    if np.any(np.diff(requests["index"].to_numpy()) <= 0):
        raise UserError("its rows are not in the order of index, each once", where=str(path), remedy=_REMEDY)
    return requests, absent


def problem(path: Path, schema: Any, trusted: bool) -> str:
    """Why a file of `schema` can't be used; empty if it can.

    One that is not `trusted` to be as it was written is read to its end for it.
    """
    if not path.exists():
        return "is missing"
    try:
        with pq.ParquetFile(path) as file:
            own_schema = file.schema_arrow
            for field in schema:
                if field.name not in own_schema.names:
                    if field.name in _ADDED:
                        continue
                    return f"has no column {field.name}"
                if not _alike(own_schema.field(field.name).type, field.type):
                    return f"has a column {field.name} of {own_schema.field(field.name).type}, not {field.type}"
            for group in range(0 if trusted else file.num_row_groups):
                file.read_row_group(group, use_threads=False).validate(full=True)
    except (OSError, pa.ArrowException):
        return "is damaged or was not written to its end"
    return ""


def _alike(own: Any, wanted: Any) -> bool:
    """Whether a type is the wanted one; text may be spelled out or come from a dictionary."""
    return bool(own.equals(wanted)) or (_is_text(own) and _is_text(wanted))


def _is_text(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
