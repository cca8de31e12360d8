"""Marks that a person or a script puts on a running run's timeline: `tailgate mark RUN "deployed canary"`."""

import json
import os
import time
from pathlib import Path

import psutil

from tailgate.reports.rundir.manifest import Manifest
from tailgate.workloads.common.errors import UserError


def mark(run_dir: Path, text: str) -> float:
    """Append a mark to the run's events; its time in seconds on the run's clock.

    Raises:
        UserError: no run, it isn't running, its load hasn't begun, or the text is empty.
    """
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
    line = json.dumps({"t_ns": t_ns, "kind": "mark", "text": text.strip()}) + "\n"
    # One write in append mode: several markers and the run itself can't tear each other's lines.
    descriptor = os.open(run_dir / "events.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
    return t_ns / 1e9
