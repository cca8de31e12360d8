"""What a trace reader yields: pieces of the same few columns, in the order of the file.

A reader knows its format and nothing of slices, speed, sessions' order or plans; those are of `replay`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from workloads.errors import UserError

Ints = npt.NDArray[np.int64]

MOST_TOKENS: Final = 100_000_000


@dataclass(frozen=True)
class Rows:
    """Some consecutive requests of a trace; all arrays have one entry a request.

    `at_ns` counts from an origin of the reader's choice, the same for all pieces. Columns that the format
    lacks are None.
    """

    at_ns: Ints
    prompt_tokens: Ints
    output_tokens: Ints

    def __len__(self) -> int:
        return len(self.at_ns)


@dataclass
class Faults:
    """Rows that could not be read: the first ends the reading, unless they are to be skipped and counted.

    Also what a reader has to tell the person about the trace, in `notices`.
    """

    file: Path
    skip: bool = False
    first: str = ""
    notices: list[str] = field(default_factory=list)
    _lines: set[int] = field(default_factory=set)

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
        self._lines.add(line)
        self.first = self.first or f"line {line}: {what}"

    def summary(self) -> list[str]:
        """The notices, with the count of skipped rows."""
        if not self.skipped:
            return list(self.notices)
        return [
            f"{self.file.name}: {self.skipped} broken rows skipped (the first: {self.first})",
            *self.notices,
        ]


Reader = Iterator[Rows]
