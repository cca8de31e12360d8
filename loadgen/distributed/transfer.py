"""Files in pieces: the shard's to a worker, which checks them by their digests; the records of its spool to the master.

Spool files only ever grow (Arrow IPC streams, a batch at a time), so "everything up to byte N is stored" is all there
is to know: a piece that comes twice is stored once, a gap is sent again. What a dead worker had sent stays readable up
to its last whole batch, as if it had been killed on the master's own machine.
"""

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tailgate.loadgen.distributed.protocol import PIECE_BYTES
from tailgate.workloads.common.errors import UserError

# Sent and not yet acknowledged, at most, per file.
_WINDOW_BYTES: Final = 8 * PIECE_BYTES
# An acknowledgement that takes longer is taken for lost.
_AGAIN_S: Final = 3.0
_NAME: Final = re.compile(r"(?:injector|client|asked|verdicts)-(\d{1,6})\.arrows")

Send = Callable[[str, int, bytes], None]


def number_of(name: str) -> int | None:
    """The injector whose spool file this is; None for any other name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


@dataclass
class _Progress:
    sent: int = 0
    acknowledge: int = 0
    progressed_at: float = field(default_factory=time.monotonic)


class RecordSender:
    """The worker's side: call `send_new` now and then, `acknowledge` when the master says what it holds."""

    def __init__(self, folder: Path, send: Send) -> None:
        self._folder = folder
        self._send = send
        self._files: dict[str, _Progress] = {}

    def send_new(self) -> None:
        """Send what is new, as far as the window allows, and again what was lost."""
        now = time.monotonic()
        for path in sorted(self._folder.glob("*.arrows")):
            if number_of(path.name) is None:
                continue
            progress = self._files.setdefault(path.name, _Progress())
            if progress.sent > progress.acknowledge and now - progress.progressed_at > _AGAIN_S:
                progress.sent = progress.acknowledge
            with path.open("rb") as file:
                file.seek(progress.sent)
                while progress.sent - progress.acknowledge < _WINDOW_BYTES and (piece := file.read(PIECE_BYTES)):
                    if progress.sent == progress.acknowledge:
                        progress.progressed_at = now
                    self._send(path.name, progress.sent, piece)
                    progress.sent += len(piece)

    def acknowledge(self, name: str, upto: int) -> None:
        progress = self._files.get(name)
        if progress is not None and upto > progress.acknowledge:
            progress.acknowledge = upto
            progress.sent = max(progress.sent, upto)
            progress.progressed_at = time.monotonic()

    @property
    def all_stored(self) -> bool:
        return all(
            path.name in self._files and self._files[path.name].acknowledge >= path.stat().st_size
            for path in self._folder.glob("*.arrows")
            if number_of(path.name) is not None
        )


class RecordStore:
    """The master's side, which writes the files into the spool of its run directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._have: dict[str, int] = {}
        self.repeated = 0  # bytes that came more than once

    def write(self, name: str, offset: int, piece: bytes) -> int:
        """Store what is new of a piece, and return up to which byte all is held. Raises OSError on a full disk."""
        have = self._have.get(name, 0)
        if offset > have:
            return have  # a gap: the pieces before it were lost and come again
        fresh = piece[have - offset :]
        self.repeated += len(piece) - len(fresh)
        if fresh:
            with (self._folder / name).open("ab") as file:
                file.write(fresh)
            have = self._have[name] = have + len(fresh)
        return have


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
        self._wanted = {Path(name).name: about for name, about in wanted.items()}  # nowhere but in our folder
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
        for name, about in (self._wanted or {}).items():
            path = self._folder / name
            path.touch()  # of an empty file no piece has come
            if describe_file(path) != about:
                raise UserError(
                    "did not come from the master as it is there", where=name, remedy="Start the run once more."
                )
