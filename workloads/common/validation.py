"""Specs as people write them: unknown keys say what was meant, and all errors read as one sentence.

`Strict` is the base of every spec model; `explain` turns pydantic's errors into a `UserError`. In YAML a key that
stands twice is an error, and errors name the line.
"""

import difflib
import re
from collections.abc import Hashable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from tailgate.workloads.common.errors import UserError

if TYPE_CHECKING:
    import yaml


class Strict(BaseModel):
    """A frozen model without unknown keys; `elsewhere` says where something is written that people look for here."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    elsewhere: ClassVar[dict[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        names = [field.alias or name for name, field in cls.model_fields.items()]
        allowed = {*names, *cls.model_fields}
        unknown = [str(key) for key in data if key not in allowed]
        if unknown:
            raise PydanticCustomError(
                "unknown_key",
                "{text}",
                {"text": "; ".join(f"unknown key {key!r} ({cls._hint(key, names)})" for key in unknown)},
            )
        return data

    @classmethod
    def _hint(cls, key: str, names: list[str]) -> str:
        place = cls.elsewhere.get(key)
        return f"did you mean `{place}`?" if place else meant(key, names)


def explain(error: ValidationError, where: str) -> UserError:
    """One message for all of pydantic's errors; `where` is the file (or `command line`) the data came from.

    Each error names its key, as in `workload.arrivals.rate: '12/q' is not a rate (...)`.
    """
    messages: dict[str, list[str]] = {}
    for entry in error.errors(include_url=False):
        key = ".".join(str(part) for part in entry["loc"] if not _is_internal(str(part)))
        text = entry["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        if entry["type"] == "missing":
            text = "is missing"
        elif entry["type"] not in ("value_error", "unknown_key") and not isinstance(entry["input"], Mapping | list):
            text = f"{text[:1].lower()}{text[1:]}, not {entry['input']!r}"
            if entry["type"] == "literal_error" and isinstance(entry["input"], str):
                choices = re.findall(r"'([^']*)'", entry["ctx"]["expected"])
                if near := difflib.get_close_matches(entry["input"], choices, n=1, cutoff=0.6):
                    text = f"{text}: did you mean {near[0]!r}?"
        if text not in messages.setdefault(key, []):
            messages[key].append(text)
    parts = [f"{key}: {' or '.join(texts)}" if key else " or ".join(texts) for key, texts in messages.items()]
    return UserError("; ".join(parts), where=where)


def meant(word: str, choices: list[str]) -> str:
    """`did you mean 'x'?` for a word that is none of the choices, or a list of them where none is like it."""
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    begun = [choice for choice in choices if choice.startswith(f"{word}_")]  # `price` for `price_per_hour`
    likely = " or ".join(map(repr, begun or near))
    return f"did you mean {likely}?" if likely else f"known: {', '.join(choices)}"


def _is_internal(part: str) -> bool:
    # Names of union members and validators that pydantic puts into a location: `function-after[...]`, `str`.
    return "[" in part or part in ("int", "float", "str", "bool", "constrained-int")


def parse_yaml(text: str, where: str) -> Any:
    """The content of a YAML text; a UserError names line and column, also of a key that stands twice."""
    import yaml

    try:
        return yaml.load(text, _loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        raise UserError(f"is not YAML: {getattr(error, 'problem', None) or error}", where=place) from error


def read_yaml(path: Path, missing: str = "") -> Any:
    """The content of a YAML file; `missing` is the remedy to name where there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        remedy = "" if path.exists() else missing
        raise UserError(f"can't be read: {error.strerror}", where=str(path), remedy=remedy) from error
    except UnicodeDecodeError as error:
        raise UserError(f"is not YAML: {error}", where=str(path)) from error
    return parse_yaml(text, str(path))


@cache
def _loader() -> "type[yaml.SafeLoader]":
    """PyYAML alone would take the last of equal keys without a word, and an objective would be gone."""
    import yaml  # 20 ms, which processes that read no YAML need not pay

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            seen: set[Any] = set()
            for key_node, _ in node.value:
                if key_node.tag == "tag:yaml.org,2002:merge":
                    continue
                key = self.construct_object(key_node, deep=True)
                if isinstance(key, Hashable) and key in seen:
                    problem = f"the key {key!r} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
                seen.add(key)
            return super().construct_mapping(node, deep)

    return Loader
