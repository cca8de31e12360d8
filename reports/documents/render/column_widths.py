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
    def of(cls, head: str, cells: Sequence[str], *, is_text: bool, wraps: bool) -> "ColumnNeed":
        """Of text and of columns that wrap the longest word, else the longest cell; heads always wrap at spaces."""
        lines = [line for cell in cells for line in cell.split("\n")]
        natural = max(map(len, [head, *lines]))
        words = [word for text in ([head, *lines] if wraps or is_text else [head]) for word in text.split()]
        longest = max(map(len, words), default=0)
        if is_text:
            return cls(natural, min(longest, _LONG_WORD))
        return cls(natural, longest if wraps else max([longest, *map(len, lines)]))


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
