"""From a run directory as the load generator left it to all its documents: collect, judge, write.

Used at the end of `tailgate run` and by `tailgate report`; a run that was killed is recovered on the way.
"""

import os
from pathlib import Path

from tailgate.reports.documents.run.write import write_report
from tailgate.reports.metrics.analysis import Analysis, analyse
from tailgate.reports.rundir.collect import collect
from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.summary.model import Summary
from tailgate.reports.summary.summary import save_summary, summary_of
from tailgate.workloads.common.errors import UserError


def build(run_dir: Path | str) -> Summary:
    """Write `summary.json` and `report.html` (and the Parquet files, where there is a spool); the summary.

    A manifest that still says `running` although its process is gone becomes `interrupted`.

    Raises:
        UserError: the run is still going on, or its files are missing or damaged. What was measured is left alone.
    """
    return build_with_analysis(run_dir)[0]


def build_with_analysis(run_dir: Path | str) -> tuple[Summary, Analysis]:
    """Do what `build` does, and return the analysed run too, for a document that needs its columns."""
    run_dir = Path(run_dir)
    manifest = Manifest.load(run_dir)
    _refuse_running(run_dir, manifest)
    # Files with checksums came of a whole spool: they are never made again.
    uncollected = (run_dir / "spool").is_dir() and not manifest.checksums
    if not uncollected and not (run_dir / "requests.parquet").exists():
        raise UserError(
            "is missing, and the injectors' own records (spool/) are gone",
            where=str(run_dir / "requests.parquet"),
            remedy="Restore it from a copy, or measure again.",
        )
    if manifest.state == "running":
        update = {"state": "interrupted", "recovered": True, "state_reason": "its process is gone"}
        manifest.model_copy(update=update).save(run_dir)
    if uncollected:
        collect(run_dir)
    analysis = analyse(run_dir)
    summary = summary_of(analysis)
    save_summary(run_dir, summary)
    write_report(run_dir, summary, analysis)
    return summary, analysis


def _refuse_running(run_dir: Path, manifest: Manifest) -> None:
    if manifest.state != "running":
        return
    if manifest.pid is not None and manifest.pid != os.getpid() and _alive(manifest.pid, manifest.t0_unix_ns):
        raise UserError(
            f"the run is still going on (process {manifest.pid})",
            where=str(run_dir),
            remedy="Wait for its end, or stop it with Ctrl-C: what it measured is kept.",
        )


def _alive(pid: int, t0_unix_ns: int) -> bool:
    """Whether the run's own process lives: not another one that was given its number since."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time()) * 1e9 <= t0_unix_ns
    except psutil.NoSuchProcess:
        return False
