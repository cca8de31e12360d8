"""The run directory: where it is, that it can be written, and what the host was."""

import contextlib
import datetime
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tailgate.workloads.common.errors import UserError

_RUNS: Final = Path("runs")
_RESERVE: Final = "spool/reserve"
_RESERVE_BYTES: Final = 256 << 10


class Unfinished(Exception):
    """An unforeseen error ended a run whose load had begun; its cause says which. `run_dir` holds what was measured."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(f"the run in {run_dir} broke off")
        self.run_dir = run_dir


class RunDirectory:
    """A run directory that is removed again unless something is measured into it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept = False

    def keep(self) -> None:
        self.kept = True


@contextlib.contextmanager
def new_run_directory(out: Path | None, name: str) -> Iterator[RunDirectory]:
    """A new run directory; one that nothing was measured into is removed, so that its name can be given again.

    Raises:
        Unfinished: an error that nobody foresaw, where anything was measured.
    """
    made = RunDirectory(make(out, name))
    try:
        yield made
    except UserError:
        raise
    except Exception as error:
        if not made.kept:
            raise
        raise Unfinished(made.path) from error
    finally:
        if not made.kept:
            remove(made.path)


def remove(path: Path) -> None:
    """Take away a folder that nothing was measured into, and `runs/` with it where that holds nothing else."""
    shutil.rmtree(path, ignore_errors=True)
    if path.parent == _RUNS:
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def make(out: Path | None, name: str) -> Path:
    """A new run directory: ``out`` itself, or runs/<utc>-<name>."""
    out = make_empty(out, name)
    try:
        (out / "spool").mkdir()
        # Kept back, so that even on a disk that fills up the run can write down how it ended.
        (out / _RESERVE).write_bytes(os.urandom(_RESERVE_BYTES))
    except OSError as error:
        raise _unwritable(out, error) from error
    return out


def make_empty(out: Path | None, name: str) -> Path:
    """A new, empty directory: ``out`` itself, or runs/<utc>-<name>."""
    if out is None:
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        out = _RUNS / f"{stamp}-{name}"
        for again in range(1, 100):
            if not out.exists():
                break
            out = _RUNS / f"{stamp}-{name}-{again}"
    if ":" in str(out):
        out = out.absolute()  # Arrow takes `name:more/...` for a URI, but not /...
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise UserError(
                "is not empty", where=f"--out {out}", remedy="Name a new folder; runs are never overwritten."
            )
    except OSError as error:
        raise _unwritable(out, error) from error
    return out


def _unwritable(out: Path, error: OSError) -> UserError:
    return UserError(f"can't be written: {error.strerror}", where=f"--out {out}")


def release(run_dir: Path) -> None:
    """The load is over: free the space that was reserved for recording how it ended."""
    (run_dir / _RESERVE).unlink(missing_ok=True)
