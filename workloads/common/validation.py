"""Specs as people write them: unknown keys say what was meant, and all errors read as one sentence.

`Strict` is the base of every spec model; `explain` turns pydantic's findings into a `UserError`.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from tailgate.workloads.common.errors import UserError


class Strict(BaseModel):
    """A frozen model without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        names = [field.alias or name for name, field in cls.model_fields.items()]
        known = {*names, *cls.model_fields}
        unknown = [str(key) for key in data if key not in known]
        if unknown:
            raise PydanticCustomError(
                "unknown_key",
                "{text}",
                {"text": "; ".join(f"unknown key {key!r} ({_meant(key, names)})" for key in unknown)},
            )
        return data


def explain(error: ValidationError, where: str) -> UserError:
    """One message for all that pydantic found; `where` is the file (or `command line`) the data came from.

    Each finding names its key, as in `workload.arrivals.rate: '12/q' is not a rate (...)`.
    """
    found: dict[str, list[str]] = {}
    for entry in error.errors(include_url=False):
        key = ".".join(str(part) for part in entry["loc"] if not _is_internal(str(part)))
        text = entry["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        if entry["type"] == "missing":
            text = "is missing"
        elif entry["type"] not in ("value_error", "unknown_key") and not isinstance(entry["input"], Mapping | list):
            text = f"{_lower(text)}, not {entry['input']!r}"
        if text not in found.setdefault(key, []):
            found[key].append(text)
    parts = [f"{key}: {' or '.join(texts)}" if key else " or ".join(texts) for key, texts in found.items()]
    return UserError("; ".join(parts), where=where)


def meant(word: str, choices: list[str]) -> str:
    """`did you mean 'x'?`, or the choices there are."""
    return _meant(word, choices)


def _meant(word: str, choices: list[str]) -> str:
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(choices)}"


def _is_internal(part: str) -> bool:
    # Names of union members and validators that pydantic puts into a location: `function-after[...]`, `str`.
    return "[" in part or part in ("int", "float", "str", "bool", "constrained-int")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
