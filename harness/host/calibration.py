"""Calibrations of this machine, kept in the user's cache folder with the host they hold for."""

import datetime
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailgate.harness.host.cores import usable_cores
from tailgate.harness.host.facts import host_facts, versions
from tailgate.workloads.common.user_cache import folder

WARN_ABOVE = 0.7


@dataclass(frozen=True)
class Calibration:
    """Up to where this machine measures honestly with so many injectors.

    `chunks_open`, `requests_open`: the highest load tried was honest too, so that the limit lies above it.
    """

    chunks_per_s: float
    requests_per_s: float
    chunks_open: bool
    requests_open: bool
    injectors: int
    made_at: str
    steps: list[dict[str, Any]]


def host_key() -> str:
    """A hash of all that changes what can be measured: processor, kernel, Python, our version."""
    facts = {**host_facts(), "tailgate": versions()["tailgate"], "usable_cores": usable_cores()}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def save(calibration: Calibration) -> Path:
    path = _path(calibration.injectors)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(calibration.__dict__, indent=1) + "\n")
    return path


def load(injectors: int) -> Calibration | None:
    """This host's calibration with so many injectors, if there is one."""
    try:
        return Calibration(**json.loads(_path(injectors).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _path(injectors: int) -> Path:
    return folder() / f"calibration-{host_key()}-{injectors}.json"


def warning(requests_per_s: float, chunks_per_s: float, injectors: int) -> str | None:
    """What a run near the calibration's limit should be told; None: nothing, or never calibrated so.

    Near is 70 % of a limit that was found, or beyond all that was tried where none was.
    """
    calibration = load(injectors)
    if calibration is None:
        return None
    for name, planned, limit, is_open in (
        ("chunks/s", chunks_per_s, calibration.chunks_per_s, calibration.chunks_open),
        ("requests/s", requests_per_s, calibration.requests_per_s, calibration.requests_open),
    ):
        if is_open and planned > limit:
            return (
                f"in its busiest second the plan has {planned:,.0f} {name}, more than this machine was calibrated with "
                f"({limit:,.0f} {name}, {calibration.made_at[:10]}): the report's checks will show whether it kept up"
            )
        if not is_open and planned > WARN_ABOVE * limit:
            return (
                f"in its busiest second the plan has {planned:,.0f} {name}, {planned / limit:.0%} of what this machine "
                f"measured honestly ({limit:,.0f} {name}, {calibration.made_at[:10]}): add injectors, cores or workers"
            )
    return None


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
