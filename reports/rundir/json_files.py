"""JSON documents on disk: read with the errors people need, checked for their schema, written in one step.

Typed values become plain JSON values with `jsonable` and come back with `from_json`.
"""

import dataclasses
import json
import math
import os
from enum import StrEnum
from functools import cache
from numbers import Integral
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from tailgate.loadgen.redact import LEAST_IN_DOCUMENTS, SECRETS
from tailgate.workloads.common.errors import UserError


def read_json(path: Path, schema: str) -> dict[str, Any]:
    """The JSON document at `path`, of the family of `schema` (`tailgate.x/1`).

    Raises:
        UserError: it can't be read, is not JSON, is another kind of document, or of a newer major version.
    """
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise UserError(f"is not JSON: {error}", where=str(path), remedy="The file is damaged.") from error
    check_schema(data, schema, str(path))
    return dict(data)


def check_schema(data: object, supported: str, where: str) -> None:
    """Refuse a document that isn't of `known`'s family (`tailgate.x/1`), or of a newer major version.

    Raises:
        UserError: with what to do about it.
    """
    family, _, major = supported.partition("/")
    schema = data.get("schema") if isinstance(data, dict) else None
    name, _, version = str(schema).partition("/")
    if name != family or not version.split(".")[0].isdigit():
        raise UserError(f"is not a {family} document (schema: {schema!r})", where=where)
    if int(version.split(".")[0]) > int(major):
        raise UserError(
            f"was written by a newer tailgate (schema {schema}; this one reads up to {supported})",
            where=where,
            remedy="Upgrade tailgate: pip install -U tailgate.",
        )


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` through a temporary file beside it and a rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            # No fsync: a killed process loses nothing by it, and on a busy disk it takes seconds.
            file.write(data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"cannot be written: {error.strerror}", where=str(path)) from error


def jsonable(value: Any) -> Any:
    """Nested values as JSON has them: dataclasses as mappings, no NumPy numbers, NaN as null, infinity as "inf".

    Secrets are masked. A class with a `to_json` of its own is asked for its value; one with OPTIONAL leaves those
    fields out when None.
    """
    match value:
        case dict():
            return {str(key): item if key == "schema" else jsonable(item) for key, item in value.items()}
        case list() | tuple():
            return [jsonable(item) for item in value]
        case float():
            return None if math.isnan(value) else "inf" if math.isinf(value) else float(value)
        case bool():
            return value
        case Integral():  # NumPy's too
            return int(value)
        case StrEnum():
            return str(value)
        case str():
            return SECRETS.mask(value, LEAST_IN_DOCUMENTS)
        case _ if hasattr(value, "to_json"):
            return value.to_json()
        case _ if dataclasses.is_dataclass(value):
            optional = getattr(value, "OPTIONAL", ())
            items = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return {k: jsonable(item) for k, item in items.items() if item is not None or k not in optional}
        case _:
            return value


def from_json(kind: Any, value: Any) -> Any:
    """A value of type `kind` (a dataclass, or what its fields are made of) from what `jsonable` made of it.

    Keys that a class doesn't know are left out. A key that an older file lacks gets the field's default; without
    one it is empty, NaN or None, whichever the type allows. A class with a `from_json` of its own is asked.

    Raises:
        ValueError: a key without which there is no such value is missing, or a value is of another kind.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        # A section that there is nothing for is stored as an empty mapping.
        return None if value is None or value == {} else from_json(arguments[0], value)
    if origin is dict:
        return {key: from_json(arguments[1], item) for key, item in (value or {}).items()}
    if origin is list:
        return [from_json(arguments[0], item) for item in value or ()]
    if origin is tuple:
        kinds = arguments[:1] * len(value or ()) if arguments[-1] is ... else arguments
        return tuple(from_json(*pair) for pair in zip(kinds, value or (), strict=True))
    if kind is float:
        return math.nan if value is None else float(value) if isinstance(value, str) else value
    if dataclasses.is_dataclass(kind):
        return _from_fields(kind, value)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(value)
    if kind in (str, int, bool) and not isinstance(value, kind):
        raise ValueError(f"expected {kind.__name__}, found {value!r}")
    return value


def _from_fields(kind: Any, data: Any) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"expected the fields of {kind.__name__}, found {data!r}")  # noqa: TRY004
    if hasattr(kind, "from_json"):
        try:
            return kind.from_json(data)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the fields of {kind.__name__}: {error}") from error
    hints = _hints(kind)
    values = {}
    for field in dataclasses.fields(kind):
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if field.name in data or not has_default:
            values[field.name] = from_json(hints[field.name], data.get(field.name))
    return kind(**values)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
