"""`events.jsonl`: what happened during a run, on its clock: phases, scale events, restarts, faults, marks."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Event:
    """One line of `events.jsonl`."""

    t_ns: int
    kind: str
    text: str


def read_events(run_dir: Path) -> tuple[list[Event], int]:
    """All readable lines, in the order of time, and how many are not (a half-written last one, damaged ones)."""
    path = run_dir / "events.jsonl"
    found, unreadable = [], 0
    if path.exists():
        for line in path.read_text(errors="replace").splitlines():
            try:
                data = json.loads(line)
                found.append(Event(int(data["t_ns"]), str(data.get("kind", "")), str(data.get("text", ""))))
            except (ValueError, KeyError, TypeError, OverflowError):
                unreadable += 1
    return sorted(found, key=lambda event: event.t_ns), unreadable
