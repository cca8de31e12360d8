"""A run's columns as pandas data frames, for notebooks and for questions that no report answers.

    from tailgate.reports import frames
    slow = frames.requests("runs/RUN").query("ttft_ms > 800")

Everything else in Tailgate works on Arrow and NumPy; pandas is imported here only.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tailgate.reports.metrics.analysis import analyse
from tailgate.reports.metrics.catalogue import PER_REQUEST
from tailgate.reports.rundir.parquet_files import read_table
from tailgate.reports.rundir.telemetry import read_gpu, read_server
from tailgate.workloads.common.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def requests(run_dir: Path | str) -> "pd.DataFrame":
    """One row per planned request, indexed by the plan's `index`: the record, and its figures in ms.

    Figures (`ttft_ms`, `tpot_ms`, `stall_ms`, `e2e_ms`, ...; NaN where there is none) are those of docs/metrics.md;
    `good` says whether the request met the SLO's conditions.

    Raises:
        UserError: not a run directory, or its files are damaged.
    """
    analysis = analyse(run_dir)
    frame: pd.DataFrame = analysis.run.shown_requests.to_pandas().set_index("index")
    for name in PER_REQUEST:
        frame[f"{name}_ms"] = analysis.figures.ms[name]
    frame["good"] = np.asarray(analysis.good)
    return frame


def arrivals(run_dir: Path | str) -> "pd.Series[float]":
    """Every content arrival in ms after its request's first, indexed by (`index`, `arrival`).

    Raises:
        UserError: not a run directory, or arrivals were not kept.
    """
    import pandas as pd

    path = Path(run_dir) / "arrivals.parquet"
    if not path.exists():
        raise UserError("holds no arrivals.parquet", where=str(run_dir), remedy="Name a run's folder.")
    table = read_table(path)
    lists = table["arrivals_us"].combine_chunks()
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    owner = np.repeat(table["index"].to_numpy(), lengths)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    place = np.arange(len(owner)) - starts
    index = pd.MultiIndex.from_arrays([owner, place], names=["index", "arrival"])
    return pd.Series(lists.flatten().to_numpy() / 1e3, index=index, name="ms_after_first")


def telemetry(run_dir: Path | str) -> "pd.DataFrame":
    """The server's and the GPUs' samples as they were taken, one below the other, with `t_s` on the run's clock.

    Raises:
        UserError: the files are damaged.
    """
    import pandas as pd

    parts = []
    for source, samples in (("server", read_server(Path(run_dir))), ("gpu", read_gpu(Path(run_dir)))):
        if samples is not None:
            parts.append(samples.table.to_pandas().assign(source=source))
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"t_ns": [], "source": []})
    return frame.assign(t_s=frame["t_ns"] / 1e9)
