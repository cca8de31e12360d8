"""From a run directory as the load generator left it to all its documents: collect, judge, write.

Used at the end of `tailgate run` and by `tailgate report`; a run that was killed is recovered on the way.
"""

import os
from pathlib import Path
from typing import Any

from reports.analysis import analyse
from reports.collect import collect
from reports.html import write_report
from reports.manifest import Manifest
from reports.summary import save_summary, summary_of
from workloads.errors import UserError


def build(run_dir: Path | str) -> dict[str, Any]:
    """Write `summary.json` and `report.html` (and the Parquet files, where there is a spool); the summary.

    A manifest that still says `running` although its process is gone becomes `interrupted`.

    Raises:
        UserError: the run is still going on, or its files are missing or damaged.
    """
    run_dir = Path(run_dir)
    _recover(run_dir)
    if (run_dir / "spool").is_dir() or not (run_dir / "requests.parquet").exists():
        collect(run_dir)
    analysis = analyse(run_dir)
    summary = summary_of(analysis)
    save_summary(run_dir, summary)
    write_report(run_dir, summary, analysis)
    return summary


def _recover(run_dir: Path) -> None:
    manifest = Manifest.load(run_dir)
    if manifest.state != "running":
        return
    if manifest.pid is not None and manifest.pid != os.getpid() and _alive(manifest.pid, manifest.t0_unix_ns):
        raise UserError(
            f"the run is still going on (process {manifest.pid})",
            where=str(run_dir),
            remedy="Wait for its end, or stop it with Ctrl-C: what it measured is kept.",
        )
    update = {"state": "interrupted", "recovered": True, "state_reason": "its process is gone"}
    manifest.model_copy(update=update).save(run_dir)


def _alive(pid: int, t0_unix_ns: int) -> bool:
    """Whether the run's own process lives: not another one that was given its number since."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time()) * 1e9 <= t0_unix_ns
    except psutil.NoSuchProcess:
        return False
