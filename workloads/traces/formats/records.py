"""For formats that are records, not columns: JSON Lines, checked numbers out of them, and rows of what they say."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tailgate.workloads.common.arrays import Ints
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.json_text import json_of
from tailgate.workloads.table.columns import blocks_of
from tailgate.workloads.traces.formats.csv_stream import open_file, read_number, without_bom
from tailgate.workloads.traces.rows import NO_PAUSE, Faults, Rows, token_fault

_BLOCK: Final = 1 << 20
_PIECE: Final = 50_000
_FARTHEST_NS: Final = 2**62  # differences of times are still 64-bit integers


class BadValueError(ValueError):
    """A record lacks a value or has an impossible one; the message says which."""


def records(file: Path, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, record) of each line that is a JSON object. Blank lines don't count, and gzip is unpacked."""
    for line, text in enumerate(_lines(file), start=1):
        if not text.strip():
            continue
        try:
            record = json_of(text)
        except ValueError as error:
            faults.bad(line, f"is not JSON: {error}")
            continue
        if isinstance(record, dict):
            yield line, record
        else:
            faults.bad(line, "is not a JSON object")


def _lines(file: Path) -> Iterator[bytes]:
    rest, first = b"", True
    with open_file(file) as stream:
        while True:
            try:
                block = stream.read(_BLOCK)
            except OSError as error:
                raise UserError(f"can't be read: {error}", where=str(file)) from error
            if not block:
                break
            if first:
                block, first = without_bom(block, file), False
            *whole, rest = (rest + block).split(b"\n")
            yield from whole
    if rest:
        yield rest


def value(record: Mapping[str, Any], key: str, *, optional: bool = False) -> Any:
    """A value that must be there, or is None; `usage.input` is that of `input` in the object `usage`."""
    place, name = record, key
    while name not in place:
        first, _, rest = name.partition(".")
        inner = place.get(first)
        if not rest or not isinstance(inner, Mapping):
            if optional:
                return None
            raise BadValueError(f"there is no {key!r}; it has: {', '.join(map(str, place))}")
        place, name = inner, rest
    return place[name]


def tokens(record: Mapping[str, Any], key: str, *, least: int = 0) -> int:
    """A token count of at least `least`, which may be written as text."""
    number = value(record, key)
    if isinstance(number, str):
        try:
            number = read_number(number)
        except ValueError as error:
            raise BadValueError(f"{key} {number[:60]!r} {error}") from error
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int):
        raise BadValueError(f"{key} {number!r} is not a whole number")
    if fault := token_fault(number, least):
        raise BadValueError(f"{key} {number} {fault}")
    return number


def number(record: Mapping[str, Any], key: str) -> float:
    """A finite number, which may be written as text."""
    raw = value(record, key)
    try:
        if isinstance(raw, bool):
            raise BadValueError(f"{key} {raw!r} is not a number")
        parsed = read_number(raw) if isinstance(raw, str) else float(raw)
        parsed = float(parsed)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadValueError(f"{key} {raw!r} is not a number") from error
    if not -1e18 < parsed < 1e18:
        raise BadValueError(f"{key} {raw!r} is not finite")
    return parsed


def block_ids(record: Mapping[str, Any], key: str, *, bits: int = 64) -> list[int]:
    """A list of block ids, whole numbers of at most so many bits; empty where it is null."""
    blocks = value(record, key)
    if blocks is None:
        return []
    if not isinstance(blocks, list) or not all(type(block) is int and 0 <= block < 2**bits for block in blocks):
        raise BadValueError(f"{key} {str(blocks)[:60]!r} is not a list of block ids")
    return blocks


@dataclass
class Request:
    """One request of a trace."""

    at_ns: int
    prompt_tokens: int
    output_tokens: int
    session: int | None = None
    think_ns: int = NO_PAUSE
    blocks: Any = ()
    class_name: str | None = None
    tenant: str | None = None
    failed: bool = False
    line: int = 0


def parsed(
    lines: Iterable[tuple[int, dict[str, Any]]],
    faults: Faults,
    request_of: Callable[[dict[str, Any]], Request],
    *,
    numbered: bool = False,
) -> Iterator[Request]:
    """The request of each (line, record), with its line if `numbered`; records with a bad value are reported."""
    for line, record in lines:
        try:
            request = request_of(record)
            if not abs(request.at_ns) < _FARTHEST_NS:
                raise BadValueError("its time is out of range")
        except BadValueError as error:
            faults.bad(line, str(error))
        else:
            yield replace(request, line=line) if numbered else request


def pieces(requests: Iterable[Request], block_tokens: int | None = None) -> Iterator[Rows]:
    """The requests as Rows of at most 50,000 each."""
    remaining = iter(requests)
    while piece := list(islice(remaining, _PIECE)):
        yield _rows(piece, block_tokens)


def _rows(requests: list[Request], block_tokens: int | None) -> Rows:
    def ints(name: str) -> Ints:
        return np.array([getattr(request, name) for request in requests], dtype=np.int64)

    def strings(name: str) -> Any:
        values = [getattr(request, name) for request in requests]
        return None if all(value is None for value in values) else pa.array([value or "" for value in values])

    blocks = None
    if block_tokens is not None:
        lengths = np.array([len(request.blocks) for request in requests], dtype=np.int64)
        flat = [np.asarray(request.blocks, dtype=np.uint64) for request in requests if len(request.blocks)]
        blocks = blocks_of(lengths, np.concatenate(flat) if flat else np.empty(0, np.uint64))
    return Rows(
        ints("at_ns"),
        ints("prompt_tokens"),
        ints("output_tokens"),
        session=ints("session") if any(request.session is not None for request in requests) else None,
        think_ns=ints("think_ns"),
        blocks=blocks,
        block_tokens=block_tokens,
        classes=strings("class_name"),
        tenants=strings("tenant"),
        line=ints("line"),
        failed=np.array([request.failed for request in requests], dtype=bool),
    )
