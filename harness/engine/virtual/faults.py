"""Faults of replicas, as a spec writes them.

kill 2 at 60s [back 45s]          it dies with all that it has in flight; a new one serves 45 s later
stop 1 at 60s [for 20s]           it stands still and keeps its connections, as a process that was stopped
slow 1 to 0.5 at 30s [for 60s]    it goes on at half its speed
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.units import parse_duration

_FORM: Final = re.compile(
    r"(?P<kind>kill|stop|slow)\s+(?P<replica>\d+)(\s+to\s+(?P<speed>[\d.]+))?\s+at\s+(?P<at>\S+)"
    r"(\s+(?P<word>back|for)\s+(?P<lasts>\S+))?"
)
_REMEDY: Final = "Write kill 2 at 60s back 45s, stop 1 at 60s for 20s, or slow 1 to 0.5 at 30s for 60s."


@dataclass(frozen=True, slots=True)
class ReplicaFault:
    """What happens to replica `replica` (from 1) at `at_s`; `lasts_s` later all is well again (None: never)."""

    kind: Literal["kill", "stop", "slow"]
    replica: int
    at_s: float
    lasts_s: float | None = None
    speed: float = 1.0


def parse_fault(text: str, replicas: int, where: str) -> ReplicaFault:
    """A fault of one of `replicas` replicas. UserError for a line that isn't one, or a replica that isn't there."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise UserError(f"{text!r} is no fault", where=where, remedy=_REMEDY)
    kind, word, speed = match["kind"], match["word"], match["speed"]
    if (word is not None and (word == "back") != (kind == "kill")) or (speed is not None) != (kind == "slow"):
        raise UserError(f"{text!r} is no fault", where=where, remedy=_REMEDY)
    try:
        at_s, lasts_s = parse_duration(match["at"]), parse_duration(match["lasts"]) if word else None
        rate = float(speed) if speed else 1.0
    except ValueError as error:
        raise UserError(f"{text!r}: {error}", where=where, remedy=_REMEDY) from error
    if rate <= 0:
        raise UserError(f"{text!r}: a speed must be more than 0", where=where, remedy="Use stop for a standstill.")
    number = int(match["replica"])
    if not 1 <= number <= replicas:
        there = "there is one replica, number 1" if replicas == 1 else f"there are {replicas} replicas, from 1"
        raise UserError(f"{text!r}: {there}", where=where, remedy="Name one that is there, or raise replicas.")
    return ReplicaFault(kind, number, at_s, lasts_s, rate)  # type: ignore[arg-type]


def parse_faults(lines: Sequence[str], replicas: int, where: str) -> tuple[ReplicaFault, ...]:
    faults = [parse_fault(line, replicas, where) for line in lines]
    return tuple(sorted(faults, key=lambda fault: fault.at_s))
