"""What became of a run that met a fault, and what must hold of any run whatever it met."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.kit.busy import BUSY

# What no person should ever read, whatever the server or the machine did.
NEVER = ("Traceback", "unforeseen", "please report it")


@dataclass(frozen=True)
class FaultyRun:
    """A run that is over; `struck` tells the rows that met the fault."""

    folder: Path
    code: int
    words: str  # all that was printed
    took_s: float  # from the fault (or the start, where the server has it from the start) to the end
    struck: Callable[[int], bool] = lambda _index: False
    left_behind: tuple[str, ...] = ()  # processes that outlived it
    ended: int | None = None  # the exit code of the run's command, where `code` is that of a later report
    struck_unix_ns: int = 0  # when, where it didn't have the fault from the start

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return found

    @property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())
        return found

    @property
    def measured(self) -> bool:
        """Whether there is a run directory with a result."""
        return (self.folder / "summary.json").exists()

    def requests(self) -> list[dict[str, Any]]:
        """One row for each planned request."""
        names = ["index", "status", "scheduled_ns", "chunks"]
        rows: list[dict[str, Any]] = pq.read_table(self.folder / "requests.parquet", columns=names).to_pylist()
        return rows

    def statuses(self, struck: bool | None = None) -> Counter[str]:
        """How many requests ended in which way, of all or of those that met the fault (or didn't)."""
        return Counter(
            row["status"] for row in self.requests() if struck is None or self.struck(row["index"]) == struck
        )

    def reaches_back_s(self) -> float:
        """How long before the fault the first request was due that is not ok."""
        struck_ns = self.struck_unix_ns - self.manifest["t0_unix_ns"]
        due = [row["scheduled_ns"] for row in self.requests() if row["status"] != "ok"]
        return max(0.0, (struck_ns - min(due, default=struck_ns)) / 1e9)

    def failed_checks(self) -> set[str]:
        """Validity checks that failed for another reason than a busy machine."""
        return {check["name"] for check in self.summary["checks"] if check["status"] == "fail"} - BUSY

    def broken(self) -> list[str]:
        """What must hold of any run and doesn't: words fit for people, and no row lost or made up."""
        wrong = [f"it printed {word!r}" for word in NEVER if word in self.words]
        wrong += [f"it left behind {process}" for process in self.left_behind]
        if not self.measured:
            return wrong
        rows = self.requests()
        planned = pq.read_metadata(self.folder / "plan.parquet").num_rows
        if sorted(row["index"] for row in rows) != list(range(planned)):
            wrong.append(f"{len(rows)} rows for {planned} planned requests")
        counts = {name: count for name, count in self.summary["load"]["requests"].items() if count}
        if counts.pop("planned", 0) != planned or sum(counts.values()) != planned or counts != self.statuses():
            wrong.append(f"the summary counts {counts} of {planned}")
        wrong += [f"a reason says {word!r}" for word in NEVER if word in "\n".join(self.summary["invalid_reasons"])]
        return wrong
