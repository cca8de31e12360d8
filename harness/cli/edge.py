"""The process's outermost edge: a reader who goes away, what may not leave, and errors that nobody foresaw."""

import codecs
import io
import json
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Mapping
from typing import Final, TextIO

from tailgate.loadgen.redact import SECRETS
from tailgate.workloads.common.ascii_text import ERRORS
from tailgate.workloads.common.formatting import visible, written_out

UNFORESEEN_MEASURED = 4
UNFORESEEN = 2


# What a terminal obeys, but for colours, and the moves and line feeds of what we draw ourselves.
_COMMANDS: Final = re.compile(
    "\x1b(?!\\[[\\d;]*m|\\[\\d*[ABCGK]|\\[\\?25[hl])|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]"
)


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


class _Guarded(io.TextIOWrapper):
    """Writes no command to the terminal that isn't ours."""

    def write(self, text: str, /) -> int:
        super().write(self.shown(text))
        return len(text)

    def shown(self, text: str) -> str:
        return _COMMANDS.sub(written_out, text)


class _Confidential(_Guarded):
    """Nor any secret. Standard output is a document, whose writer masks it: a mask could break its form."""

    def shown(self, text: str) -> str:
        return super().shown(SECRETS.mask(text))


def guard_streams() -> None:
    """Make standard output and standard error ignore a closed pipe, and tell nothing that they may not."""
    if sys.stdout is sys.__stdout__ and sys.stdout is not None:
        sys.stdout = _outlet(sys.stdout, _Guarded)
    if sys.stderr is sys.__stderr__ and sys.stderr is not None:
        sys.stderr = _outlet(sys.stderr, _Confidential)


def _outlet(stream: TextIO, kind: type[_Guarded]) -> TextIO:
    stream.flush()
    live = stream.isatty() or stream is sys.__stderr__
    buffer = io.BufferedWriter(_Outlet(stream.fileno(), "wb", closefd=False))
    # What can't be encoded must not end a command whose work is done.
    return kind(buffer, "ascii" if _ascii_asked(os.environ) else stream.encoding, ERRORS, line_buffering=live)


def _ascii_asked(variables: Mapping[str, str]) -> bool:
    """Whether the locale is C by name: Python writes UTF-8 then, and has set LC_CTYPE where it could (PEP 538)."""
    if variables.get("PYTHONIOENCODING") or variables.get("PYTHONUTF8"):
        return False
    names = [variables.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG")]
    if names[1] in ("C.UTF-8", "C.utf8", "UTF-8"):
        names[1] = ""
    return next((name for name in names if name), "") in ("C", "POSIX")


def write_document(text: str, form: str) -> None:
    """Print a document; characters that standard output lacks are escaped as its format does, where it has a way."""
    if codecs.lookup(sys.stdout.encoding or "utf-8").name != "utf-8":  # a StringIO has none
        if form == "json":
            text = re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], text)
        elif form == "junit":
            text = text.encode("ascii", "xmlcharrefreplace").decode()
    sys.stdout.write(text)


def unforeseen(command: str, error: Exception) -> int:
    """Say in one line what nobody foresaw and where its traceback is; the exit code: 4 once anything was measured.

    Never 1, which says that the server failed.
    """
    from tailgate.harness.run.run_directory import Unfinished

    run_dir = error.run_dir if isinstance(error, Unfinished) else None
    cause = error.__cause__ if isinstance(error, Unfinished) and error.__cause__ else error
    try:
        with tempfile.NamedTemporaryFile("w", prefix="tailgate-", suffix=".txt", delete=False) as file:
            file.write(SECRETS.mask("".join(traceback.format_exception(error))))
        where = f"the traceback is in {file.name}: please report it"
    except OSError:
        traceback.print_exception(error)
        where = "please report it with the traceback above"
    what = visible(" ".join(f"{type(cause).__name__}: {SECRETS.mask(str(cause))}".split())[:300])
    print(f"tailgate {command}: unexpected error: {what}; {where}", file=sys.stderr)
    if run_dir is not None:
        print(f"  what was measured is kept: tailgate report {run_dir}", file=sys.stderr)
    return UNFORESEEN_MEASURED if run_dir is not None or command == "gate" else UNFORESEEN
