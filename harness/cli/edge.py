"""The process's outermost edge: a reader who goes away, and errors that nobody foresaw."""

import io
import os
import sys
import tempfile
import traceback
from typing import TextIO

UNFORESEEN_MEASURED = 4
UNFORESEEN = 2


class _Outlet(io.FileIO):
    """Keeps writing, into nothing, when the reader has gone, as `head` does: the exit code stays the verdict's."""

    def write(self, data: "io.ReadableBuffer", /) -> int:  # type: ignore[name-defined]
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(memoryview(data).cast("B"))


def let_readers_go() -> None:
    """Make standard output and standard error ignore a closed pipe."""
    if sys.stdout is sys.__stdout__ and sys.stdout is not None:
        sys.stdout = _outlet(sys.stdout)
    if sys.stderr is sys.__stderr__ and sys.stderr is not None:
        sys.stderr = _outlet(sys.stderr)


def _outlet(stream: TextIO) -> TextIO:
    stream.flush()
    live = stream.isatty() or stream is sys.__stderr__
    buffer = io.BufferedWriter(_Outlet(stream.fileno(), "wb", closefd=False))
    return io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=live)


def unforeseen(command: str, error: Exception) -> int:
    """Say in one line what nobody foresaw and where its traceback is; the exit code: 4 once anything was measured.

    Never 1, which says that the server failed.
    """
    from tailgate.harness.run.run_directory import Unfinished

    run_dir = error.run_dir if isinstance(error, Unfinished) else None
    cause = error.__cause__ if isinstance(error, Unfinished) and error.__cause__ else error
    try:
        with tempfile.NamedTemporaryFile("w", prefix="tailgate-", suffix=".txt", delete=False) as file:
            traceback.print_exception(error, file=file)
        where = f"the traceback is in {file.name}: please report it"
    except OSError:
        traceback.print_exception(error)
        where = "please report it with the traceback above"
    what = " ".join(f"{type(cause).__name__}: {cause}".split())[:300]
    print(f"tailgate {command}: unexpected error: {what}; {where}", file=sys.stderr)
    if run_dir is not None:
        print(f"  what was measured is kept: tailgate report {run_dir}", file=sys.stderr)
    return UNFORESEEN_MEASURED if run_dir is not None or command == "gate" else UNFORESEEN
