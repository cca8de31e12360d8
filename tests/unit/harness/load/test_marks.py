"""Marks on a running run's timeline."""

import os
import time
from pathlib import Path

import pytest

from tailgate.harness.cli import main
from tailgate.harness.load.event_log import mark
from tailgate.reports.rundir.events import read_events
from tailgate.reports.rundir.manifest import Manifest
from tailgate.workloads.common.errors import UserError

NOBODY = 2**22 + 1  # beyond the highest process id that Linux gives


def running(folder: Path, **changes: object) -> Path:
    manifest = Manifest(run="r", state="running", t0_unix_ns=time.time_ns() - 5_000_000_000, pid=os.getpid())
    manifest.model_copy(update=changes).save(folder)
    return folder


def test_a_mark_stands_at_its_time_and_leaves_other_events_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = running(tmp_path)
    (run / "events.jsonl").write_text('{"t_ns": 1, "kind": "server", "text": "before"}\n')
    assert main(["mark", str(run), "deployed canary"]) == 0
    assert "marked at 5." in capsys.readouterr().out
    (before, marked), unreadable = read_events(run)
    assert unreadable == 0
    assert before.text == "before" and (marked.kind, marked.text) == ("mark", "deployed canary")
    assert 5e9 <= marked.t_ns < 30e9


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"state": "complete"}, "is over"), ({"t0_unix_ns": 0}, "not begun"), ({"pid": NOBODY}, "was killed")],
)
def test_only_a_running_run_is_marked(tmp_path: Path, changes: dict[str, object], words: str):
    with pytest.raises(UserError, match=words):
        mark(running(tmp_path, **changes), "x")


def test_an_empty_mark_and_a_folder_that_is_no_run_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="no text"):
        mark(running(tmp_path), "  ")
    with pytest.raises(UserError, match="not a run directory"):
        mark(tmp_path / "nowhere", "x")
