"""Which columns of a table there is room for, and how wide each is: whole columns go, never digits of a number."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# A word of a text that is longer than this, such as a request's id, may go on in the next line.
_LONG_WORD: Final = 20


@dataclass(frozen=True)
class ColumnNeed:
    """Characters that a column would like, and those that it can do with."""

    natural: int
    least: int

    @classmethod
    def of(cls, head: str, cells: Sequence[str], *, wraps: bool, is_text: bool = False) -> "ColumnNeed":
        """Of a column that wraps at spaces its longest word, else its longest cell; heads always wrap at spaces."""
        lines = [line for cell in cells for line in cell.split("\n")]
        pieces = [*head.split(), *(piece for line in lines for piece in (line.split() if wraps else [line]))]
        longest = max(map(len, pieces), default=0)
        return cls(max(map(len, [head, *lines])), min(longest, _LONG_WORD) if is_text else longest)


def column_widths(needs: Sequence[ColumnNeed], spare: Sequence[int], room: int) -> dict[int, int]:
    """Widths by place of the columns that stay within `room` characters, of which each takes three for its frame.

    Those in `spare` go first, in that order, then the last ones; the first column always stays.
    """
    kept = list(range(len(needs)))
    leaving = [*spare, *(place for place in reversed(kept[1:]) if place not in spare)]
    while leaving and sum(needs[place].least + 3 for place in kept) + 1 > room:
        kept.remove(leaving.pop(0))
    left = max(room - 1 - sum(needs[place].least + 3 for place in kept), 0)
    widths = {}
    by_wish = sorted(kept, key=lambda place: needs[place].natural - needs[place].least)
    for done, place in enumerate(by_wish):
        more = min(needs[place].natural - needs[place].least, left // (len(by_wish) - done))
        widths[place] = needs[place].least + more
        left -= more
    return {place: widths[place] for place in kept}
