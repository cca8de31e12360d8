"""Any CSV, JSON Lines or Parquet file whose columns are named: `columns: {prompt_tokens: in, output_tokens: out}`.

Only the two lengths are needed; `time` (in `time_unit`), `session`, `class`, `tenant` and `blocks` (lists of
prefix block ids, not in CSV) are used where they are named. A file without times needs `arrivals` or `users`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa

from workloads.errors import UserError
from workloads.traces.collect import Request, pieces
from workloads.traces.csvfile import batches, header, seconds_ns, timestamps_ns, whole_numbers
from workloads.traces.jsonlines import BadValueError, number, records, tokens, value
from workloads.traces.openai_log import time_ns
from workloads.traces.rows import Faults, Reader, Rows, SessionNumbers

TimeUnit = Literal["s", "ms", "us", "ns", "calendar"]
_UNIT_NS: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1000, "ns": 1}


def read_csv(file: Path, faults: Faults, columns: dict[str, str], unit: TimeUnit) -> Reader:
    """A CSV file with a header, vectorised."""
    if "blocks" in columns:
        raise UserError("a CSV file can't hold lists of block ids", where="workload.trace.columns.blocks")
    _require(file, columns, header(file))
    sessions = SessionNumbers()
    for batch in batches(file, list(dict.fromkeys(columns.values())), faults):
        prompt, good = whole_numbers(batch, columns["prompt_tokens"], faults, least=1)
        output, good_output = whole_numbers(batch, columns["output_tokens"], faults)
        good &= good_output
        at_ns = np.arange(len(prompt))
        if "time" in columns:
            if unit == "calendar":
                at_ns, good_at = timestamps_ns(batch, columns["time"], faults)
            else:
                at_ns, good_at = seconds_ns(batch, columns["time"], faults, unit_ns=_UNIT_NS[unit])
            good &= good_at
        yield Rows(
            at_ns,
            prompt,
            output,
            session=sessions.of(batch.columns[columns["session"]].to_pylist()) if "session" in columns else None,
            classes=batch.columns[columns["class"]] if "class" in columns else None,
            tenants=batch.columns[columns["tenant"]] if "tenant" in columns else None,
            has_times="time" in columns,
        ).take(good)


def read_records(
    file: Path, faults: Faults, columns: dict[str, str], unit: TimeUnit, block_tokens: int | None, *, parquet: bool
) -> Reader:
    """A JSON Lines or Parquet file, record by record."""
    source = _parquet(file, columns) if parquet else records(file, faults)
    requests = _requests(source, faults, columns, unit)
    for rows in pieces(requests, block_tokens if "blocks" in columns else None):
        yield rows if "time" in columns else _untimed(rows)


def _requests(
    source: Iterator[tuple[int, dict[str, Any]]], faults: Faults, columns: dict[str, str], unit: TimeUnit
) -> Iterator[Request]:
    sessions = SessionNumbers()
    for line, record in source:
        try:
            session = record.get(columns["session"]) if "session" in columns else None
            yield Request(
                at_ns=_at(record, columns["time"], unit) if "time" in columns else 0,
                prompt_tokens=tokens(record, columns["prompt_tokens"], least=1),
                output_tokens=tokens(record, columns["output_tokens"]),
                session=int(sessions.of(["" if session is None else str(session)])[0])
                if "session" in columns
                else None,
                blocks=_block_ids(record, columns["blocks"]) if "blocks" in columns else (),
                kind=str(value(record, columns["class"])) if "class" in columns else None,
                tenant=str(value(record, columns["tenant"])) if "tenant" in columns else None,
            )
        except BadValueError as error:
            faults.bad(line, str(error))


def _at(record: dict[str, Any], key: str, unit: TimeUnit) -> int:
    if unit == "calendar":
        return time_ns(str(value(record, key)))
    return round(number(record, key) * _UNIT_NS[unit])


def _block_ids(record: dict[str, Any], key: str) -> list[int]:
    blocks = value(record, key)
    blocks = [] if blocks is None else list(blocks) if isinstance(blocks, list | np.ndarray) else blocks
    if not isinstance(blocks, list) or not all(isinstance(b, int) and 0 <= b < 2**64 for b in blocks):
        raise BadValueError(f"{key} {str(blocks)[:60]!r} is not a list of block ids")
    return blocks


def _parquet(file: Path, columns: dict[str, str]) -> Iterator[tuple[int, dict[str, Any]]]:
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"can't be read as Parquet: {str(error).splitlines()[0]}", where=str(file)) from error
    _require(file, columns, opened.schema_arrow.names)
    row = 0
    for batch in opened.iter_batches(columns=list(dict.fromkeys(columns.values()))):
        for record in batch.to_pylist():
            row += 1
            yield row, record


def _require(file: Path, columns: dict[str, str], there: list[str]) -> None:
    missing = [f"{column!r} (for {key})" for key, column in columns.items() if column not in there]
    if missing:
        raise UserError(
            f"there is no column {', '.join(missing)}", where=str(file), remedy=f"It has: {', '.join(there)}"
        )


def _untimed(rows: Rows) -> Rows:
    from dataclasses import replace

    return replace(rows, has_times=False)
