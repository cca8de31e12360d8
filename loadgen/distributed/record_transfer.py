"""Sends records from a worker's spool to the master's: pieces of growing files, acknowledged by offset.

Spool files only ever grow (Arrow IPC streams, a batch at a time), so "everything up to byte N is stored" is all there
is to know: a piece that comes twice is stored once, a gap is sent again. What a dead worker had sent stays readable up
to its last whole batch, as if it had been killed on the master's own machine.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tailgate.loadgen.distributed.protocol import PIECE_BYTES

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
        """Note that the master holds the file up to this byte."""
        progress = self._files.get(name)
        if progress is not None and upto > progress.acknowledge:
            progress.acknowledge = upto
            progress.sent = max(progress.sent, upto)
            progress.progressed_at = time.monotonic()

    @property
    def all_stored(self) -> bool:
        """Whether the master holds everything that is there now."""
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
