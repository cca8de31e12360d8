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


def read_events(run_dir: Path) -> list[Event]:
    """All readable lines, in the order of time; a half-written last line is left out."""
    path = run_dir / "events.jsonl"
    found = []
    if path.exists():
        for line in path.read_text(errors="replace").splitlines():
            try:
                data = json.loads(line)
                found.append(Event(int(data["t_ns"]), str(data.get("kind", "")), str(data.get("text", ""))))
            except (ValueError, KeyError, TypeError):
                continue
    return sorted(found, key=lambda event: event.t_ns)
