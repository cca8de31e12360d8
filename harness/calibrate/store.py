"""Calibrations of this machine, kept in the user's cache folder with the host they hold for."""

import datetime
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.rundir import host_facts, versions

WARN_ABOVE = 0.7


@dataclass(frozen=True)
class Calibration:
    """Up to where this machine measures honestly."""

    chunks_per_s: float
    requests_per_s: float
    injectors: int
    made_at: str
    steps: list[dict[str, Any]]


def host_key() -> str:
    """Changes with whatever changes what can be measured: processor, kernel, Python, our version."""
    facts = {**host_facts(), "tailgate": versions()["tailgate"]}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def folder() -> Path:
    """Where calibrations are kept (XDG)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tailgate"


def save(calibration: Calibration) -> Path:
    """Keep it; the file's name is returned."""
    path = folder() / f"calibration-{host_key()}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(calibration.__dict__, indent=1) + "\n")
    return path


def load() -> Calibration | None:
    """This host's, if it was ever calibrated."""
    path = folder() / f"calibration-{host_key()}.json"
    try:
        return Calibration(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def warning(requests_per_s: float, chunks_per_s: float) -> str | None:
    """What a run beyond 70 % of the calibration should be told; None: nothing, or never calibrated."""
    known = load()
    if known is None:
        return None
    for name, planned, limit in (
        ("chunks/s", chunks_per_s, known.chunks_per_s),
        ("requests/s", requests_per_s, known.requests_per_s),
    ):
        if planned > WARN_ABOVE * limit:
            return (
                f"the plan's {planned:,.0f} {name} are {planned / limit:.0%} of what this machine measured honestly "
                f"({limit:,.0f} {name}, {known.made_at[:10]}): add --injectors, a core, or workers"
            )
    return None


def now() -> str:
    """ISO 8601, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
