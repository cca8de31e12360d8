"""What an experiment writes besides its runs: checked before anything is measured, and no verdict is lost by it."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from tailgate.workloads.common.errors import UserError


def require_writable(path: Path, where: str, *, makes_folders: bool = False) -> None:
    """Whether a file can be written, tried with another one in its folder.

    Args:
        path: the file.
        where: which flag or key asked for it.
        makes_folders: whether folders that lack are made when it is written.

    Raises:
        UserError: it can't.
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
