"""What an experiment writes besides its runs: checked before anything is measured, and no verdict is lost by it."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from tailgate.workloads.common.errors import UserError


def require_writable(path: Path, where: str, *, makes_folders: bool = False) -> None:
    """Refuse a file that can't be written, tried with another one in its folder.

    `where` is the flag or key that asked for it; `makes_folders`: folders that lack are made when it is written.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists() or not makes_folders)
    probe = folder / f".{path.name}.{os.getpid()}.probe"
    try:
        probe.touch()
        probe.unlink()
        if path.exists():
            with path.open("ab"):
                pass
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=f"{where} {path}") from error


def write_each(steps: Iterable[Callable[[], None]]) -> list[str]:
    """Do every step, whatever becomes of the others; one message for each that could not be done."""
    problems = []
    for step in steps:
        try:
            step()
        except UserError as error:
            problems.append(str(error))
    return problems
