"""What a trace reader yields: pieces of the same few columns, in the order of the file.

A reader knows its format and nothing of slices, speed, sessions' order or plans; those are of `replay`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tailgate.workloads.common.arrays import Ints
from tailgate.workloads.common.errors import UserError

MOST_TOKENS: Final = 100_000_000
NO_PAUSE: Final = -1


@dataclass(frozen=True)
class Rows:
    """Some consecutive requests of a trace; all arrays have one entry a request.

    `at_ns` counts from an origin of the reader's choice, the same for all pieces; without `has_times` it means
    nothing. Columns that the format lacks are None. `session` numbers sessions over all pieces; `think_ns` is the
    pause before a later turn that waits for its predecessor (NO_PAUSE where the time is the request's own);
    `blocks` are prefix block ids of `block_tokens` tokens each, equal where a prefix is; `failed` marks requests
    without an answer; `line` is where a request stands in the file, where the reader goes by line.
    """

    at_ns: Ints
    prompt_tokens: Ints
    output_tokens: Ints
    session: Ints | None = None
    think_ns: Ints | None = None
    blocks: pa.ListArray | None = None
    block_tokens: int | None = None
    classes: pa.Array | None = None
    tenants: pa.Array | None = None
    failed: npt.NDArray[np.bool_] | None = None
    line: Ints | None = None
    has_times: bool = True

    def __len__(self) -> int:
        return len(self.at_ns)

    def take(self, mask: npt.NDArray[np.bool_]) -> "Rows":
        """The rows of a mask."""
        if mask.all():
            return self
        chosen: dict[str, Any] = {}
        for name in ("at_ns", "prompt_tokens", "output_tokens", "session", "think_ns", "failed", "line"):
            column = getattr(self, name)
            chosen[name] = None if column is None else column[mask]
        keep = pa.array(mask)
        for name in ("blocks", "classes", "tenants"):
            column = getattr(self, name)
            chosen[name] = None if column is None else column.filter(keep)
        return Rows(**chosen, block_tokens=self.block_tokens, has_times=self.has_times)


@dataclass
class Faults:
    """Rows that could not be read: the first ends the reading, unless they are to be skipped and counted.

    Also what a reader has to tell the person about the trace, in `notices`.
    """

    file: Path
    skip: bool = False
    first: str = ""
    notices: list[str] = field(default_factory=list)
    place: str = ""  # the file of many that is being read
    _lines: set[tuple[str, int]] = field(default_factory=set)

    @property
    def skipped(self) -> int:
        """Rows left out so far; a row with two faults is one."""
        return len(self._lines)

    def bad(self, line: int, what: str) -> None:
        """Report a broken row.

        Raises:
            UserError: unless rows are to be skipped.
        """
        if not self.skip:
            raise UserError(
                what,
                where=f"{self.file}, line {line}",
                remedy="Mend the row, or count and skip such rows with --skip-bad-rows",
            )
        self._lines.add((self.place, line))
        self.first = self.first or f"line {line}: {what}"

    def summary(self) -> list[str]:
        """The notices, with the count of skipped rows."""
        if not self.skipped:
            return list(self.notices)
        return [f"{self.file.name}: {self.skipped} broken rows skipped (the first: {self.first})", *self.notices]


class SessionNumbers:
    """Numbers for session names, in order of appearance; an empty name is a session of its own."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._next = 0

    def of(self, names: list[str]) -> Ints:
        """The number of each name."""
        numbers = np.empty(len(names), np.int64)
        for k, name in enumerate(names):
            number = self._known.get(name) if name else None
            if number is None:
                number = self._next
                self._next += 1
                if name:
                    self._known[name] = number
            numbers[k] = number
        return numbers


Reader = Iterator[Rows]
