"""JSON Lines as a stream of records with their line numbers, and checked numbers out of them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.traces.formats.csv_stream import open_file
from tailgate.workloads.traces.rows import Faults, token_fault

_BLOCK = 1 << 20


class BadValueError(ValueError):
    """A record lacks a value or has an impossible one; the message says which."""


def records(file: Path, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, record) of each line that is a JSON object. Blank lines don't count, and gzip is unpacked."""
    for line, text in enumerate(_lines(file), start=1):
        if not text.strip():
            continue
        try:
            record = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            faults.bad(line, f"is not JSON: {error}")
            continue
        if isinstance(record, dict):
            yield line, record
        else:
            faults.bad(line, "is not a JSON object")


def _lines(file: Path) -> Iterator[bytes]:
    rest = b""
    with open_file(file) as stream:
        while True:
            try:
                block = stream.read(_BLOCK)
            except OSError as error:
                raise UserError(f"can't be read: {error}", where=str(file)) from error
            if not block:
                break
            *whole, rest = (rest + block).split(b"\n")
            yield from whole
    if rest:
        yield rest


def value(record: Mapping[str, Any], key: str) -> Any:
    """A value that must be there; the error lists those that are."""
    if key not in record:
        raise BadValueError(f"there is no {key!r}; it has: {', '.join(map(str, record))}")
    return record[key]


def tokens(record: Mapping[str, Any], key: str, *, least: int = 0) -> int:
    """A token count of at least `least`, which may be written as text."""
    number = value(record, key)
    if isinstance(number, str) and number.strip().isdigit():
        number = int(number)
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
        parsed = float(raw)
    except (TypeError, ValueError) as error:
        raise BadValueError(f"{key} {raw!r} is not a number") from error
    if not -1e18 < parsed < 1e18:
        raise BadValueError(f"{key} {raw!r} is not finite")
    return parsed
