"""What a trace reader yields: pieces of the same few columns, in the order of the file.

A reader knows its format and nothing of slices, speed, the order of sessions or plans, which are the matter of
`replay`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tailgate.workloads.common.arrays import Ints, Mask
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.sampling.distributions import MAX_TOKENS

NO_PAUSE: Final = -1


@dataclass(frozen=True)
class Rows:
    """Some consecutive requests of a trace; all arrays have one entry for each request.

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
    failed: Mask | None = None
    line: Ints | None = None
    has_times: bool = True

    def __len__(self) -> int:
        return len(self.at_ns)

    @property
    def waits(self) -> Mask:
        """Which requests follow the answer to their predecessor."""
        return np.zeros(len(self), bool) if self.think_ns is None else self.think_ns != NO_PAUSE

    def take(self, rows: npt.NDArray[Any]) -> "Rows":
        """The rows of a mask or an index array, in that order."""
        if rows.dtype == bool and rows.all():
            return self
        index = np.flatnonzero(rows) if rows.dtype == bool else rows

        def pick(column: Any) -> Any:
            return column[index] if isinstance(column, np.ndarray) else column.take(pa.array(index))

        present = {name: column for name in _COLUMNS if (column := getattr(self, name)) is not None}
        return replace(self, **{name: pick(column) for name, column in present.items()})


_COLUMNS: Final = tuple(column.name for column in fields(Rows) if column.name not in ("block_tokens", "has_times"))


def joined(pieces: Iterable[Rows]) -> Rows | None:
    """All pieces as one; None where they have no row. A column that one of them lacks is left out."""
    parts = [rows for rows in pieces if len(rows)]
    if not parts:
        return None

    def join(name: str) -> Any:
        columns = [getattr(part, name) for part in parts]
        if any(column is None for column in columns):
            return None
        return np.concatenate(columns) if isinstance(columns[0], np.ndarray) else pa.concat_arrays(columns)

    return replace(parts[0], **{name: join(name) for name in _COLUMNS})


def token_fault(count: int, least: int) -> str:
    """What is wrong with a number of tokens, as in `is negative`; empty for nothing."""
    if count < least:
        return "is negative" if count < 0 else f"is below {least}"
    return f"is above {MAX_TOKENS:,}: no model takes that" if count > MAX_TOKENS else ""


@dataclass
class Faults:
    """Rows that could not be read: the first one ends the reading, unless they are to be skipped and counted.

    `notices` hold what else a reader has to tell the person about the trace.
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
        """Report a broken row: a UserError, unless such rows are to be skipped."""
        if not self.skip:
            raise UserError(
                what,
                where=f"{self.file}, line {line}",
                remedy="Mend the row, or count and skip such rows with --skip-bad-rows",
            )
        self._lines.add((self.place, line))
        self.first = self.first or f"line {line}: {what}"

    def summary(self) -> list[str]:
        skipped = f"{self.file.name}: {self.skipped} broken rows skipped (the first: {self.first})"
        return [skipped, *self.notices] if self.skipped else list(self.notices)


class SessionNumbers:
    """Numbers for session names, in order of appearance; an empty name is a session of its own."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._next = 0

    def of(self, names: list[str]) -> Ints:
        return np.array([self._number(name) for name in names], np.int64)

    def _number(self, name: str) -> int:
        number = self._numbers.get(name) if name else None
        if number is None:
            number, self._next = self._next, self._next + 1
            if name:
                self._numbers[name] = number
        return number


Reader = Iterator[Rows]
