"""CSV files as a stream of Arrow batches of strings, with the line number of each row.

It copes with CRLF, a missing final newline, blank lines and gzip. What columns mean is known to the formats' own
modules; they are converted whole, and row by row only where that fails.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tailgate.workloads.common.arrays import Ints, Mask
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.sampling.distributions import MAX_TOKENS
from tailgate.workloads.traces.rows import Faults, token_fault

_BLOCK_BYTES: Final = 4 << 20
_THOUSANDS: Final = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")
_BOM: Final = b"\xef\xbb\xbf"
_WIDE: Final = (b"\xff\xfe", b"\xfe\xff")
_OLDEST, _NEWEST = -2_208_988_800_000_000_000, 4_102_444_800_000_000_000  # 1900 and 2100, ns


@dataclass(frozen=True)
class Batch:
    """Rows as strings by column, and each row's line in the file (1 is the file's first)."""

    columns: dict[str, pa.Array]
    lines: Ints


def batches(file: Path, wanted: Sequence[str], faults: Faults) -> Iterator[Batch]:
    """The wanted columns of a CSV file with a header, about 4 MB of text at a time."""
    # pyarrow.csv is imported here: it costs 20 ms that runs without a trace need not pay.
    from pyarrow import csv

    raw = _first_line(file)
    names = [_bare(name) for name in raw]
    # As the file writes them: pyarrow takes quotes off, but not the blanks around a name.
    written = {bare: name.strip('"') if name.startswith('"') else name for bare, name in zip(names, raw, strict=True)}
    missing = [name for name in wanted if name not in names]
    if missing:
        raise UserError(
            f"there is no column {', '.join(map(repr, missing))}", where=str(file), remedy=f"It has: {', '.join(names)}"
        )
    invalid: list[tuple[int, int, str]] = []

    def skip_row(row: Any) -> str:
        invalid.append((row.number, row.actual_columns, row.text))
        return "skip"

    with open_file(file) as stream:
        columns = [written[name] for name in wanted]

        def pieces() -> Iterator[Any]:
            yield from csv.open_csv(
                stream,
                read_options=csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
                parse_options=csv.ParseOptions(ignore_empty_lines=False, invalid_row_handler=skip_row),
                convert_options=csv.ConvertOptions(
                    include_columns=columns, column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False
                ),
            )

        read = pieces()
        next_line = 2
        while True:
            try:
                batch = next(read, None)
            except (OSError, KeyError, ValueError) as error:  # of which Arrow's own are
                raise UserError(f"not a CSV file, or a damaged one: {error}", where=str(file)) from error
            bad_lines = np.array(sorted(line for line, _, _ in invalid), dtype=np.int64)
            for line, count, text in sorted(invalid):
                if text.strip():
                    faults.bad(line, f"{count} columns where the header has {len(names)}")
            invalid.clear()
            if batch is None:
                return
            lines = _lines(next_line, batch.num_rows, bad_lines)
            next_line = int(lines[-1]) + 1 if len(lines) else next_line + len(bad_lines)
            # Arrow reads a blank line as a row of empty strings.
            yield _without_blank(Batch({name: batch.column(written[name]) for name in wanted}, lines))


def whole_numbers(batch: Batch, name: str, faults: Faults, *, least: int = 0) -> tuple[Ints, Mask]:
    """A column of token counts, and which rows have a usable one (bad rows are reported and hold 0)."""

    def parse_one(text: str) -> int:
        number = read_number(text)
        if not isinstance(number, int) and not number.is_integer():
            raise ValueError("is not a whole number")
        if fault := token_fault(int(number), least):
            raise ValueError(fault)
        return int(number)

    def parse_all(column: pa.Array) -> pa.Array:
        try:
            return pc.cast(column, pa.int64())
        except pa.ArrowInvalid:  # 374.0: pandas wrote a column that once held a gap
            return pc.cast(pc.cast(column, pa.float64()), pa.int64())

    return _convert(batch, name, faults, parse_all, parse_one, (least, MAX_TOKENS))


def seconds_ns(batch: Batch, name: str, faults: Faults, *, unit_ns: int = 1_000_000_000) -> tuple[Ints, Mask]:
    """A column of times counted in a unit (seconds), whole or with a fraction, as ns."""

    def parse_all(column: pa.Array) -> pa.Array:
        return pc.cast(pc.round(pc.multiply(pc.cast(column, pa.float64()), float(unit_ns))), pa.int64())

    def parse_one(text: str) -> int:
        try:
            return round(read_number(text) * unit_ns)
        except ValueError as error:
            if is_calendar(text):
                raise ValueError("is a calendar time: set `time_unit` (--time-unit) to calendar") from error
            raise

    return _convert(batch, name, faults, parse_all, parse_one, (0, 2**62))


def timestamps_ns(batch: Batch, name: str, faults: Faults) -> tuple[Ints, Mask]:
    """A column of calendar times (`2023-11-16 18:15:46.6805900`, with or without `T`, fraction and zone).

    Times without a zone are taken as UTC: only differences matter.
    """

    def parse_one(text: str) -> int:
        return int(_parse_times(pa.array([text]))[0].as_py())

    return _convert(batch, name, faults, _parse_times, parse_one, (_OLDEST, _NEWEST))


def read_number(text: str) -> int | float:
    """The number that a text is; commas may part its thousands. A ValueError says what is wrong with it."""
    bare = text.strip()
    if not bare:
        raise ValueError("is empty")
    if _THOUSANDS.fullmatch(bare):
        bare = bare.replace(",", "")
    if "_" in bare:  # which Python would read
        raise ValueError("is not a number")
    try:
        return int(bare) if bare.lstrip("+-").isdecimal() and len(bare) < 20 else float(bare)
    except ValueError as error:
        raise ValueError("is not a number") from error


def is_calendar(text: str) -> bool:
    """Whether a text is a calendar time, as in 2023-11-16 18:15:46."""
    try:
        datetime.fromisoformat(text.strip())
    except ValueError:
        return False
    return not text.strip().isdecimal()


def _parse_times(column: pa.Array) -> pa.Array:
    """Nanoseconds since 1970 of a column in which either all times have a zone or none has."""
    zoned = len(column) > 0 and pc.match_substring_regex(column[0], r"(Z|[+-]\d\d(:?\d\d)?)$").as_py()
    kind = pa.timestamp("ns", tz="UTC") if zoned else pa.timestamp("ns")
    return pc.cast(pc.cast(column, kind), pa.int64())


def _convert(
    batch: Batch,
    name: str,
    faults: Faults,
    parse_all: Callable[[pa.Array], pa.Array],
    parse_one: Callable[[str], int],
    bounds: tuple[int, int],
) -> tuple[Ints, Mask]:
    column, (low, high) = batch.columns[name], bounds
    try:
        values = parse_all(column).to_numpy(zero_copy_only=False)
        if ((values >= low) & (values <= high)).all():
            return values, np.ones(len(values), bool)
    except pa.ArrowInvalid:
        pass
    # Something in this batch is wrong: find it row by row.
    values, good = np.zeros(len(column), np.int64), np.ones(len(column), bool)
    for k, text in enumerate(column.to_pylist()):
        try:
            values[k] = parse_one(text)
            if not low <= values[k] <= high:
                raise ValueError("is out of range")
        except (ValueError, OverflowError) as error:  # pa.ArrowInvalid is a ValueError
            good[k] = False
            problem = str(error)
            readable = problem if problem.startswith("is ") else "can't be read"
            faults.bad(int(batch.lines[k]), f"{name} {text[:60]!r} {readable}")
    return values, good


def _without_blank(batch: Batch) -> Batch:
    blank = np.ones(len(batch.lines), bool)
    for column in batch.columns.values():
        if not blank.any():
            return batch
        blank &= pc.equal(column, "").to_numpy(zero_copy_only=False)
    if not blank.any():
        return batch
    keep = pa.array(~blank)
    return Batch({name: column.filter(keep) for name, column in batch.columns.items()}, batch.lines[~blank])


def _lines(first: int, rows: int, bad: Ints) -> Ints:
    lines = np.arange(first, first + rows + len(bad), dtype=np.int64)
    return lines[~np.isin(lines, bad)][:rows] if len(bad) else lines


def open_file(file: Path) -> Any:
    """A byte stream of a file; gzip and the like are unpacked."""
    try:
        return pa.input_stream(str(file), compression="detect")
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        # Arrow's own text names the path once more and then the number of the error.
        raise UserError(os.strerror(error.errno) if error.errno else "can't be read", where=str(file)) from error


def beginning(file: Path, size: int) -> bytes:
    with open_file(file) as stream:
        try:
            return without_bom(bytes(stream.read(size)), file)
        except OSError as error:
            raise UserError(f"can't be read: {error}", where=str(file)) from error


def without_bom(start: bytes, file: Path) -> bytes:
    """The beginning of a text without the mark that Windows programs put before it; UTF-16 is refused."""
    if start.startswith(_WIDE):
        raise UserError("the file is written in UTF-16", where=str(file), remedy="Save it as UTF-8")
    return start.removeprefix(_BOM)


def header(file: Path) -> list[str]:
    return [_bare(name) for name in _first_line(file)]


def _bare(name: str) -> str:
    return name.strip().strip('"')


def _first_line(file: Path) -> list[str]:
    start = beginning(file, 1 << 16)
    if not start.strip():
        raise UserError("the file is empty", where=str(file))
    if b"\0" in start:
        raise UserError("not a CSV file: it holds binary data", where=str(file))
    line = start.split(b"\n", 1)[0].decode("utf-8", "replace").rstrip("\r")
    return [str(name) for name in line.split(",")]
