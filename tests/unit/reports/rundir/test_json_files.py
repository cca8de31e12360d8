"""JSON documents: typed values there and back, and the errors for what can't be read."""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tailgate.reports.rundir.events import append_event, append_line, read_events
from tailgate.reports.rundir.json_files import from_json, jsonable, read_json
from tailgate.workloads.common.errors import UserError


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    value: float
    ends: tuple[float, float] | None = None


@dataclass(frozen=True)
class Outer:
    name: str
    colour: Colour
    parts: tuple[Inner, ...]
    by_name: dict[str, Inner | None]
    maybe: Inner | None = None
    more: list[str] = field(default_factory=list)

    OPTIONAL: ClassVar = ("maybe",)


def test_what_was_written_is_read_back_with_infinity_and_without_what_is_optional() -> None:
    outer = Outer("a", Colour.RED, (Inner(math.inf, (1.0, math.inf)), Inner(2.0)), {"x": None, "y": Inner(1.5)})
    data = jsonable(outer)
    assert data["parts"][0] == {"value": "inf", "ends": [1.0, "inf"]} and "maybe" not in data
    assert from_json(Outer, data) == outer
    assert math.isnan(from_json(Inner, jsonable(Inner(math.nan))).value)


def test_keys_that_are_new_are_left_out_and_those_that_lack_get_their_defaults() -> None:
    assert from_json(Outer, {"name": "a", "colour": "red", "parts": [], "news": 3}) == Outer("a", Colour.RED, (), {})


@pytest.mark.parametrize("data", [{"name": 3, "colour": "red"}, {"name": "a", "colour": "green"}, [], {"name": "a"}])
def test_values_of_another_kind_are_refused(data: Any) -> None:
    with pytest.raises(ValueError, match=r"expected|not a valid"):
        from_json(Outer, data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "can't be read"),
        ("{", "is not JSON"),
        ("[]", "not a tailgate.x"),
        ('{"schema": "tailgate.x/2"}', "newer"),
    ],
)
def test_a_document_that_is_no_such_one_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_json(path, "tailgate.x/1")


def test_an_event_is_appended_as_one_line_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append_event(tmp_path, {"t_ns": 5, "kind": "mark", "text": "grün"})
    real = __import__("os").write
    monkeypatch.setattr("os.write", lambda descriptor, data: real(descriptor, data[:4]))
    with pytest.raises(OSError, match="space"):
        append_line(tmp_path / "events.jsonl", "a line that doesn't fit")
    events, unreadable = read_events(tmp_path)
    assert [(event.t_ns, event.kind, event.text) for event in events] == [(5, "mark", "grün")] and not unreadable
