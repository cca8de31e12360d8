"""What can't be checked once it is known that an injector died with requests of its own.

Its last second is missing from the records and from its own books: checks that hold the two, or the server's counters,
against each other would fail for that alone, and name a wrong remedy.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from tailgate.reports.rundir.run import Run
from tailgate.reports.validity.client import Check

_NEED_EVERY_ROW: Final = ("offered_load", "turnaround_lag", "bookkeeping", "token_counts", "foreign_traffic")


def without_lost(run: Run, checks: Sequence[Check]) -> list[Check]:
    """The checks, those that need every row unchecked where a crash took some."""
    lost = int(run.is_text("status", "lost").sum())
    if not lost or run.manifest.state in ("complete", "aborted"):
        return list(checks)
    why = f"{lost:,} requests were lost with their injector: what they did is not known"
    return [
        replace(check, status="unchecked", why=why, remedy="")
        if check.name in _NEED_EVERY_ROW and check.status == "fail"
        else check
        for check in checks
    ]
