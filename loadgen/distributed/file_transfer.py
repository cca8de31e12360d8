"""Receives the files of a shard, which the master sends in pieces, and checks them by their digests."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tailgate.workloads.common.errors import UserError


def describe_file(path: Path) -> dict[str, Any]:
    """A file's size and digest, which tell a worker what is to come."""
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "digest": hashlib.file_digest(file, "blake2b").hexdigest()}


class FileReceiver:
    """Takes files in piece by piece, in any order, and calls ``complete()`` when all are there."""

    def __init__(self, folder: Path, complete: Callable[[], None]) -> None:
        self._folder = folder
        self._complete = complete
        self._wanted: dict[str, dict[str, Any]] | None = None  # name -> `described`
        self._got: dict[str, dict[int, int]] = {}  # name -> offset -> bytes

    def expect(self, wanted: Mapping[str, dict[str, Any]]) -> None:
        self._wanted = dict(wanted)
        self._look()

    def write_piece(self, name: str, offset: int, piece: bytes) -> None:
        path = self._folder / Path(name).name
        with path.open("r+b" if path.exists() else "wb") as file:
            file.seek(offset)
            file.write(piece)
        self._got.setdefault(name, {})[offset] = len(piece)
        self._look()

    def _look(self) -> None:
        if self._wanted is not None and all(
            sum(self._got.get(name, {}).values()) == about["size"] for name, about in self._wanted.items()
        ):
            self._complete()

    def check(self) -> None:
        """Raise a UserError if a file is not the master's."""
        for name, about in (self._wanted or {}).items():
            path = self._folder / name
            path.touch()  # of an empty file no piece has come
            if describe_file(path) != about:
                raise UserError(
                    "did not come from the master as it is there", where=name, remedy="Start the run once more."
                )
