"""A run's events: on disk as soon as they happened, in whole lines, and not lost to a disk that is full for a while."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tailgate.harness.load.event_log import EventLog
from tailgate.reports.rundir.events import read_events


def event(t_ns: int, text: str = "x") -> dict[str, Any]:
    return {"t_ns": t_ns, "kind": "worker", "text": text}


def texts(run_dir: Path) -> list[str]:
    return [json.loads(line)["text"] for line in (run_dir / "events.jsonl").read_text().splitlines()]


def test_an_event_is_on_disk_when_it_has_happened(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.add(event(5, "first"))
    assert texts(tmp_path) == ["first"]
    with (tmp_path / "events.jsonl").open("a") as marks:  # `tailgate mark` meanwhile
        marks.write(json.dumps(event(7, "mark")) + "\n")
    log.add(event(6, "second"))
    assert texts(tmp_path) == ["first", "mark", "second"]


def test_of_a_list_that_grows_each_event_is_written_once(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    faults = [event(1, "a")]
    log.follow("gpu", faults)
    log.follow("auth", [event(2, "k")])
    log.follow("gpu", [*faults, event(3, "b")])
    assert texts(tmp_path) == ["a", "k", "b"]


def test_without_room_an_event_waits_and_no_half_line_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(tmp_path)
    log.add(event(1, "before"))
    whole = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: whole(fd, data[:7]))  # room for seven bytes
    log.add(event(2, "waits"))
    with pytest.raises(OSError, match="No space left"):
        log.write()
    assert texts(tmp_path) == ["before"]
    monkeypatch.undo()
    log.write()
    assert texts(tmp_path) == ["before", "waits"]
    assert read_events(tmp_path)
