"""What a document says, whatever it is shown on: sections of notes, facts, tables, cards and figures, as data.

Content is built once (`documents.run`, `documents.gate`, `documents.comparison`, `documents.workload`), with every
number written out as text. Renderers (`documents.render`) turn it into HTML, Markdown or lines on a terminal, and leave
out what their medium has no room for, which `Depth` tells them.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Literal


class Depth(Enum):
    """Where a part of a document is shown."""

    BRIEF = "on a terminal and in Markdown; the page says the same at more length"
    ALL = "everywhere"
    FOLDED = "on the page and in Markdown behind a heading that opens, on a terminal when all is asked for"
    PAGE = "on the page only"


Tone = Literal["", "ok", "fail", "unsure", "unchecked", "invalid", "faint", "finding", "sim"]
# How each verdict and each result of a check, an objective or a metric looks.
TONES: dict[str, Tone] = {
    "PASS": "ok", "FAIL": "fail", "INCONCLUSIVE": "unsure", "INVALID": "invalid", "ok": "ok", "met": "ok", "pass": "ok",
    "fail": "fail", "broken": "fail", "unchecked": "unchecked", "noted": "faint",
}  # fmt: skip


@dataclass(frozen=True)
class TableCell:
    """A cell of a table that is more than plain text."""

    text: str
    below: str = ""  # in small print, such as an interval
    tone: Tone = ""
    link: str = ""  # relative to the document
    bar: float | None = None  # a share from 0 to 1, drawn instead of the text


Row = Sequence[str | TableCell]


@dataclass(frozen=True)
class Table:
    """A table; the columns in `words` hold text, the others numbers, which are aligned to the right."""

    head: Sequence[str]
    rows: Sequence[Row]
    title: str = ""
    words: Iterable[int] = (0,)
    depth: Depth = Depth.ALL
    dash: str = ""  # why a cell holds a dash in place of a figure; shown where one does
    rare: Collection[int] = ()  # places of rows that are seldom needed, or repeat others: shown on demand
    spare: Sequence[int] = ()  # places of columns that go where there is no room for all, in this order

    @property
    def common(self) -> "Table":
        """Without the rows that are shown on demand."""
        return replace(self, rows=[row for place, row in enumerate(self.rows) if place not in self.rare], rare=())

    @property
    def without_last(self) -> "Table":
        """Without its last column."""
        return replace(self, head=self.head[:-1], rows=[row[:-1] for row in self.rows])

    @property
    def dashed(self) -> str:
        """The reason of its dashes; empty where it has none."""
        texts = (cell if isinstance(cell, str) else cell.text for row in self.rows for cell in row)
        return self.dash if "-" in texts else ""


@dataclass(frozen=True)
class Note:
    """A sentence or more; `lead` is said with weight before it, `aside` in small print after it."""

    text: str
    lead: str = ""
    aside: str = ""
    tone: Tone = ""
    depth: Depth = Depth.ALL


@dataclass(frozen=True)
class Notes:
    """A list of notes; numbered where their order is one of importance."""

    items: Sequence[Note]
    title: str = ""
    numbered: bool = False
    depth: Depth = Depth.ALL


@dataclass(frozen=True)
class Card:
    """A number that is seen first; `below` holds its interval or what it is out of."""

    name: str
    value: str
    below: str = ""


@dataclass(frozen=True)
class Cards:
    """The numbers that are seen first."""

    items: Sequence[Card]
    depth: Depth = Depth.PAGE


@dataclass(frozen=True)
class Code:
    """A command, or JSON; with `folded` it stands behind its title, which opens."""

    text: str
    title: str = ""
    folded: bool = False
    depth: Depth = Depth.ALL


@dataclass(frozen=True)
class Figure:
    """A plot as plotly takes it, with colours of the page's style (`--c1`), and a table of the same numbers."""

    key: str  # its identifier in the page
    title: str
    caption: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    table: Table
    strips: Sequence[tuple[str, str]] = ()  # lines of characters by name, for a medium that can't draw
    depth: Depth = Depth.ALL

    @property
    def items(self) -> Sequence["Figure"]:
        """Itself, as of several that stand side by side."""
        return (self,)


@dataclass(frozen=True)
class FigureRow:
    """Figures that stand side by side where there is room."""

    items: Sequence[Figure]
    depth: Depth = Depth.ALL


Block = Table | Note | Notes | Cards | Code | Figure | FigureRow


def _has_content(block: Block) -> bool:
    match block:
        case Table(rows=content) | Note(text=content):
            return bool(content)
        case Notes(items=content) | Cards(items=content) | FigureRow(items=content):
            return bool(content)
    return True


@dataclass(frozen=True)
class Section:
    """Blocks under a title."""

    title: str
    blocks: Sequence[Block]
    depth: Depth = Depth.ALL
    short: str = ""  # its title in the page's contents, where that is another

    def shown(self, *depths: Depth) -> list[Block]:
        """The blocks that have something to show at these depths."""
        own = [(block.depth if self.depth is Depth.ALL else self.depth, block) for block in self.blocks]
        return [block for depth, block in own if depth in depths and _has_content(block)]


@dataclass(frozen=True)
class Banner:
    """What must not be overlooked, above everything."""

    word: str
    text: str
    tone: Tone = "invalid"
    depth: Depth = Depth.PAGE


@dataclass(frozen=True)
class Document:
    """A whole document; its first section, without a title, belongs to the head."""

    title: str  # of its window
    heading: str
    sections: Sequence[Section]
    about: str = ""  # a line that identifies it
    verdict: str = ""  # empty where nothing is judged
    why: str = ""  # of the verdict; without one it is what is said first
    points: Sequence[str] = ()  # below `why`, one by one
    banners: Sequence[Banner] = ()
    remedy: str = ""  # what to do after `why`, where nothing can be said before it is done

    @property
    def figures(self) -> list[Figure]:
        """All figures, in the order in which the page shows them."""
        blocks = (block for section in self.sections for block in section.blocks)
        return [figure for block in blocks if isinstance(block, Figure | FigureRow) for figure in block.items]


def strips(figures: Iterable[Figure]) -> list[tuple[str, str]]:
    return [strip for figure in figures for strip in figure.strips]


def section(title: str, *blocks: Block | None, depth: Depth = Depth.ALL, short: str = "") -> Section:
    """A section of those blocks that there are."""
    return Section(title, [block for block in blocks if block is not None], depth, short)


def facts(
    rows: Iterable[tuple[str, str]], title: str = "", depth: Depth = Depth.PAGE, head: Sequence[str] = ("", "")
) -> Table:
    """Labels with their values as a table; those without a value are left out."""
    return Table(head, [row for row in rows if row[1]], title, depth=depth)


def simulated(several: bool, virtual: bool = False) -> Banner:
    targets = "targets are the embedded engine, not real servers"
    what = targets if several else "target is the embedded engine, not a real server"
    if virtual:
        what += ", and the clock is virtual: nothing was sent"
    return Banner("SIMULATED", f"the {what}", "sim", Depth.ALL)
