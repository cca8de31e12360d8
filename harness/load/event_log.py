"""`events.jsonl` of a run that goes on: what happened is there as soon as it happened, and outlives a kill."""

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson


class EventLog:
    """Appends events, each `{"t_ns" (run clock), "kind", "text", ...}`, a line each; readers sort them by time.

    Where there is no room for a line it waits for the next one's try, and for `write`.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / "events.jsonl"
        self._waiting: list[bytes] = []
        self._followed: dict[str, int] = {}

    def add(self, event: dict[str, Any]) -> None:
        """It has happened."""
        self._waiting.append(orjson.dumps(event) + b"\n")
        with contextlib.suppress(OSError):
            self.write()

    def follow(self, name: str, events: Sequence[dict[str, Any]]) -> None:
        """Add what is new in a list that grows."""
        for event in events[self._followed.get(name, 0) :]:
            self.add(event)
        self._followed[name] = len(events)

    def write(self) -> None:
        """Write what waits.

        Raises:
            OSError: there is no room.
        """
        # In append mode, a write a line: `tailgate mark` writes into it at the same time.
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            while self._waiting:
                size = os.fstat(descriptor).st_size
                if os.write(descriptor, self._waiting[0]) < len(self._waiting[0]):
                    os.ftruncate(descriptor, size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._waiting.pop(0)
        finally:
            os.close(descriptor)
