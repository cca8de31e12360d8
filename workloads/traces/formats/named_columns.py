"""Any CSV, JSON Lines or Parquet file whose columns are named: `columns: {prompt_tokens: in, output_tokens: out}`.

Only the two lengths are needed; `time` (in `time_unit`), `session`, `think`, `class`, `tenant` and `blocks` (lists
of prefix block ids, not in CSV) are used where they are named. A file without times needs `arrivals` or `users`.
Where `think` (in `time_unit`, or seconds beside calendar times) is named, a request without a time, behind another of
its session, comes that long after the other's answer.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tailgate.workloads.common.arrays import Ints, Mask
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.traces.formats import csv_stream
from tailgate.workloads.traces.formats.csv_stream import Batch, is_calendar
from tailgate.workloads.traces.formats.openai_log import time_ns
from tailgate.workloads.traces.formats.parquet_records import is_calendar_type, parquet_records, parquet_types
from tailgate.workloads.traces.formats.records import (
    BadValueError,
    Request,
    block_ids,
    number,
    parsed,
    pieces,
    records,
    tokens,
    value,
)
from tailgate.workloads.traces.rows import NO_PAUSE, Faults, Reader, Rows, SessionNumbers

TimeUnit = Literal["s", "ms", "us", "ns", "calendar"]  # None: seconds, or whatever a column's own type says
_UNIT_NS: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1000, "ns": 1}
_NOT_BEHIND: Final = "it has no time, and the request with one before it is of another session"


def read_csv(file: Path, faults: Faults, columns: dict[str, str], unit: TimeUnit | None) -> Reader:
    unit = unit or "s"
    if "blocks" in columns:
        raise UserError("a CSV file can't hold lists of block ids", where="workload.trace.columns.blocks")
    _require(file, columns, csv_stream.header(file))
    sessions, before = SessionNumbers(), _Before()
    for batch in csv_stream.batches(file, list(dict.fromkeys(columns.values())), faults):
        prompt, good = csv_stream.whole_numbers(batch, columns["prompt_tokens"], faults, least=1)
        output, good_output = csv_stream.whole_numbers(batch, columns["output_tokens"], faults)
        good &= good_output
        at_ns, think_ns, filled = np.arange(len(prompt)), None, batch
        session = sessions.of(batch.columns[columns["session"]].to_pylist()) if "session" in columns else None
        if "think" in columns and session is not None:
            waits = pc.equal(batch.columns[columns["time"]], "").to_numpy(zero_copy_only=False)
            filled = _filled(batch, columns, waits)
            think_ns, good_think = csv_stream.seconds_ns(filled, columns["think"], faults, unit_ns=_think_unit_ns(unit))
            think_ns = np.where(waits, think_ns, NO_PAUSE)
            good &= good_think
        if "time" in columns:
            if unit == "calendar":
                at_ns, good_at = csv_stream.timestamps_ns(filled, columns["time"], faults)
            else:
                at_ns, good_at = csv_stream.seconds_ns(filled, columns["time"], faults, unit_ns=_UNIT_NS[unit])
            good &= good_at
        if think_ns is not None and session is not None:
            at_ns, behind = before.times(at_ns, session, think_ns)
            for k in np.flatnonzero(~behind & good).tolist():
                faults.bad(int(batch.lines[k]), _NOT_BEHIND)
            good &= behind
        yield Rows(
            at_ns,
            prompt,
            output,
            session=session,
            think_ns=think_ns,
            classes=batch.columns[columns["class"]] if "class" in columns else None,
            tenants=batch.columns[columns["tenant"]] if "tenant" in columns else None,
            has_times="time" in columns,
        ).take(good)


def read_records(
    file: Path,
    faults: Faults,
    columns: dict[str, str],
    unit: TimeUnit | None,
    block_tokens: int | None,
    *,
    parquet: bool,
) -> Reader:
    if parquet:
        unit = _parquet_unit(file, columns, unit)
        source = parquet_records(file, list(columns.values()))
    else:
        unit, source = unit or "s", records(file, faults)
    sessions, before = SessionNumbers(), _Before()

    def request(record: dict[str, Any]) -> Request:
        name = value(record, columns["session"], optional=True) if "session" in columns else None
        session = int(sessions.of(["" if name is None else str(name)])[0]) if "session" in columns else None
        at_ns, think_ns = 0, NO_PAUSE
        if "think" in columns and session is not None:
            at_ns, think_ns = _at_or_behind(record, columns, unit, session, before)
        elif "time" in columns:
            at_ns = _at(record, columns["time"], unit)
        return Request(
            at_ns=at_ns,
            prompt_tokens=tokens(record, columns["prompt_tokens"], least=1),
            output_tokens=tokens(record, columns["output_tokens"]),
            session=session,
            think_ns=think_ns,
            blocks=block_ids(record, columns["blocks"]) if "blocks" in columns else (),
            class_name=str(value(record, columns["class"])) if "class" in columns else None,
            tenant=str(value(record, columns["tenant"])) if "tenant" in columns else None,
        )

    for rows in pieces(parsed(source, faults, request), block_tokens if "blocks" in columns else None):
        yield replace(rows, has_times="time" in columns)


@dataclass
class _Before:
    """The last request with a time of its own; requests of its session without one may follow."""

    at_ns: int = 0
    session: int = -1

    def times(self, at_ns: Ints, session: Ints, think_ns: Ints) -> tuple[Ints, Mask]:
        """The times, those of the last request with one where there is none; whether that is of the same session."""
        own = think_ns == NO_PAUSE
        place = np.maximum.accumulate(np.where(own, np.arange(1, len(own) + 1), 0))
        at_ns = np.concatenate([[self.at_ns], at_ns])[place]
        session_before = np.concatenate([[self.session], session])[place]
        if len(own):
            self.at_ns, self.session = int(at_ns[-1]), int(session_before[-1])
        return at_ns, session_before == session


def _at_or_behind(
    record: dict[str, Any], columns: dict[str, str], unit: TimeUnit, session: int, before: _Before
) -> tuple[int, int]:
    """A request's time and NO_PAUSE, or the time of its session's start and its pause."""
    if value(record, columns["time"]) is not None:
        before.at_ns, before.session = _at(record, columns["time"], unit), session
        return before.at_ns, NO_PAUSE
    if before.session != session:
        raise BadValueError(_NOT_BEHIND)
    think_ns = round(number(record, columns["think"]) * _think_unit_ns(unit))
    if think_ns < 0:
        raise BadValueError(f"{columns['think']} is negative")
    return before.at_ns, think_ns


def _think_unit_ns(unit: TimeUnit) -> int:
    return _UNIT_NS["s" if unit == "calendar" else unit]


def _filled(batch: Batch, columns: dict[str, str], waits: Mask) -> Batch:
    """The batch without empty fields: any time for requests that have none, a pause of 0 for those that have one."""
    time, think = columns["time"], columns["think"]
    some = next(iter(batch.columns[time].filter(pa.array(~waits))), "0")
    filled = {
        time: pc.if_else(pa.array(waits), some, batch.columns[time]),
        think: pc.if_else(pa.array(~waits), "0", batch.columns[think]),
    }
    return Batch(batch.columns | filled, batch.lines)


def _at(record: dict[str, Any], key: str, unit: TimeUnit) -> int:
    when = value(record, key)
    if unit == "calendar":
        return time_ns(str(when))
    if isinstance(when, str) and is_calendar(when):
        raise BadValueError(f"{key} {when!r} is a calendar time: set `time_unit` (--time-unit) to calendar")
    return round(number(record, key) * _UNIT_NS[unit])


def _parquet_unit(file: Path, columns: dict[str, str], unit: TimeUnit | None) -> TimeUnit:
    """The unit asked for, or calendar where the column's type says so; names that aren't there are refused."""
    types = parquet_types(file)
    _require(file, columns, list(types))
    if "time" not in columns or not is_calendar_type(types[columns["time"]]):
        return unit or "s"
    if unit not in (None, "calendar"):
        raise UserError(
            f"the column {columns['time']!r} holds calendar times, not {unit}",
            where="workload.trace.time_unit",
            remedy="Leave it out",
        )
    return "calendar"


def _require(file: Path, columns: dict[str, str], there: list[str]) -> None:
    missing = [f"{column!r} (for {key})" for key, column in columns.items() if column not in there]
    if missing:
        raise UserError(
            f"there is no column {', '.join(missing)}", where=str(file), remedy=f"It has: {', '.join(there)}"
        )
