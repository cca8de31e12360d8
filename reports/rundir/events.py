"""`events.jsonl`: what happened during a run, on its clock: phases, scale events, restarts, faults, marks."""

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tailgate.loadgen.redact import SECRETS

EVENTS: Final = "events.jsonl"


@dataclass(frozen=True)
class Event:
    """One line of `events.jsonl`, on the run's clock."""

    t_ns: int
    kind: str
    text: str


def read_events(run_dir: Path) -> tuple[list[Event], int]:
    """All readable lines, in the order of time, and how many are not (a half-written last one, damaged ones)."""
    path = run_dir / EVENTS
    events, unreadable = [], 0
    if path.exists():
        for line in path.read_text(errors="replace").splitlines():
            try:
                data = json.loads(line)
                events.append(Event(int(data["t_ns"]), str(data.get("kind", "")), str(data.get("text", ""))))
            except (ValueError, KeyError, TypeError, OverflowError):
                unreadable += 1
    return sorted(events, key=lambda event: event.t_ns), unreadable


def append_event(run_dir: Path, event: Mapping[str, Any]) -> None:
    """Append `{"t_ns" (run clock), "kind", "text", ...}`; what happened is there at once and outlives a kill.

    Raises:
        OSError: there is no room; the file is as it was.
    """
    append_line(run_dir / EVENTS, json.dumps(SECRETS.masked(event), ensure_ascii=False, separators=(",", ":")))


def append_line(path: Path, line: str) -> None:
    """Append a line to a file that others append to at the same time.

    Raises:
        OSError: it can't be written, or not as a whole; the file is as it was.
    """
    data = f"{line}\n".encode()
    # A single write in append mode: writers can't tear each other's lines.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if os.write(descriptor, data) < len(data):
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)
