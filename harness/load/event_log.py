"""`events.jsonl` of a run that goes on: what happened is there as soon as it happened, and outlives a kill.

The run itself appends to it, and so does whoever puts a mark on its timeline: `tailgate mark RUN "deployed canary"`.
"""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from tailgate.reports.rundir.events import EVENTS, append_event
from tailgate.reports.rundir.manifest import Manifest
from tailgate.workloads.common.errors import UserError


class EventLog:
    """Appends events, each `{"t_ns" (run clock), "kind", "text", ...}`, a line each; readers sort them by time.

    Where there is no room for a line it waits for the next one's try, and for `write`.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._waiting: list[dict[str, Any]] = []
        self._followed: dict[str, int] = {}

    def add(self, event: dict[str, Any]) -> None:
        """Append one event; without room for it, it is kept for the next try."""
        self._waiting.append(event)
        with contextlib.suppress(OSError):
            self.write()

    def follow(self, name: str, events: Sequence[dict[str, Any]]) -> None:
        """Add what is new in a list that grows."""
        for event in events[self._followed.get(name, 0) :]:
            self.add(event)
        self._followed[name] = len(events)

    def write(self) -> None:
        """Write what waits, or raise the OSError that says there is no room; a run without events has an empty file."""
        (self._run_dir / EVENTS).touch()
        while self._waiting:
            append_event(self._run_dir, self._waiting[0])
            self._waiting.pop(0)


def mark(run_dir: Path, text: str) -> float:
    """Append a mark to the run's events; its time in seconds on the run's clock."""
    if not text.strip():
        raise UserError("the mark has no text")
    manifest = Manifest.load(run_dir)
    if manifest.state != "running":
        raise UserError(
            f"the run is over ({manifest.state})", where=str(run_dir), remedy="Only a running run is marked."
        )
    if manifest.pid is not None and not psutil.pid_exists(manifest.pid):
        raise UserError("the run was killed", where=str(run_dir), remedy="Recover it with tailgate report.")
    if manifest.t0_unix_ns == 0:
        raise UserError("the run's load has not begun yet", where=str(run_dir), remedy="Try again in a moment.")
    t_ns = time.time_ns() - manifest.t0_unix_ns
    append_event(run_dir, {"t_ns": t_ns, "kind": "mark", "text": text.strip()})
    return t_ns / 1e9
