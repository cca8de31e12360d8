"""A campaign's folder: its runs, the input that it began with, and which of its runs are finished (`campaign.json`)."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tailgate.harness.run.run_directory import make_empty, remove
from tailgate.reports.rundir.json_files import read_json, write_atomic
from tailgate.workloads.common.errors import UserError

FILE_NAME: Final = "campaign.json"
SCHEMA: Final = "tailgate.campaign/1"


@dataclass(frozen=True)
class FinishedRun:
    """One run that needs not be made again."""

    label: str  # its directory's name
    spec: str  # digest of what was run
    deployment: str
    seconds: float  # its launch included
    elapsed_s: float  # of the campaign when it was finished, without the time between interruption and resumption
    lost: str = ""  # why its server was not there, where that is the run's result


def new_folder(out: Path | None, name: str, inputs: Mapping[str, str]) -> Path:
    """A new folder (``out`` itself, or runs/<utc>-<name>) that holds the inputs, by file name, and no finished run."""
    folder = make_empty(out, name)
    for file_name, text in inputs.items():
        write_atomic(folder / file_name, text.encode())
    save_finished(folder, [])
    return folder


@contextlib.contextmanager
def removed_if_nothing_was_measured(folder: Path) -> Iterator[None]:
    """What fails before a run has left anything takes its new folder with it, so that the name is free again."""
    try:
        yield
    except BaseException:
        if not any(path.is_dir() for path in folder.iterdir()):
            remove(folder)
        raise


def resumed_folder(folder: Path, inputs: Mapping[str, str]) -> Path:
    """The folder of a campaign that goes on."""
    finished_runs(folder)
    for file_name, text in inputs.items():
        if not (folder / file_name).exists() or (folder / file_name).read_text(encoding="utf-8") != text:
            raise UserError(
                f"this campaign began with another {file_name}, and what was seen of its runs must not change it",
                where=f"--resume {folder}", remedy="Resume it with what it began with, or begin a new campaign.",
            )  # fmt: skip
    return folder


def finished_runs(folder: Path) -> list[FinishedRun]:
    """The finished runs of a campaign in the order in which they were made."""
    if not (folder / FILE_NAME).exists():
        raise UserError(
            f"holds no campaign: it has no {FILE_NAME}", where=str(folder), remedy="Name the folder of one."
        )
    return [FinishedRun(**run) for run in read_json(folder / FILE_NAME, SCHEMA)["finished"]]


def save_finished(folder: Path, runs: list[FinishedRun]) -> None:
    """Write `campaign.json` in one step, so that a kill leaves the old or the new one."""
    data = {"schema": SCHEMA, "finished": [asdict(run) for run in runs]}
    write_atomic(folder / FILE_NAME, (json.dumps(data, indent=1) + "\n").encode())


def set_aside(run_dir: Path) -> None:
    """Rename what an interrupted run left, so that the run can be made again and nothing measured is lost."""
    if not run_dir.exists():
        return
    names = (run_dir.with_name(f"{run_dir.name}-unfinished{n}") for n in range(1, 1000))
    run_dir.rename(next(name for name in names if not name.exists()))
