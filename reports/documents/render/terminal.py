"""A document on a terminal: verdict first, then what `Depth` allows; foreign text never becomes markup."""

import os
import textwrap
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from rich.markup import escape as _without_markup
from rich.table import Table as Grid

from tailgate.reports.documents import model as doc
from tailgate.reports.documents.render.column_widths import ColumnNeed, column_widths
from tailgate.reports.documents.render.text import shown
from tailgate.workloads.common.ascii_text import ascii_of

if TYPE_CHECKING:
    from rich.console import Console

_STYLES: Final[dict[doc.Tone, str]] = {
    "": "default", "ok": "green", "fail": "red", "unsure": "yellow", "invalid": "magenta", "unchecked": "dim",
    "faint": "dim", "finding": "cyan", "sim": "bold black on yellow",
}  # fmt: skip
_MOST_NOTES: Final = 10
_MOST_CHARACTERS: Final = 160
_PIPE_WIDTH: Final = 1000


def escape(text: str) -> str:
    return _without_markup(shown(text))


def standard_output() -> "Console":
    """The console of standard output: as wide as the terminal or `COLUMNS` says; else all lines stay whole."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
        console.width = _PIPE_WIDTH
    return console


def print_verdict_line(document: doc.Document, console: "Console") -> None:
    """The verdict alone, in one line however long; nothing where there is none."""
    if document.verdict or document.why:
        console.print(f"{_verdict(document)} {escape(document.remedy)}".rstrip(), highlight=False, soft_wrap=True)


def _verdict(document: doc.Document) -> str:
    if not document.verdict:
        return f"[bold]{escape(document.why)}[/]"
    return f"[bold {_STYLES[doc.TONES[document.verdict]]}]{document.verdict}[/]  {escape(document.why)}"


def print_in_short(
    document: doc.Document, console: "Console", *, verdict_only: bool = False, everything: bool = False
) -> None:
    """The verdict alone (`--quiet`), or the document, with what is seldom needed where `everything` is asked for."""
    if verdict_only:
        print_verdict_line(document, console)
    else:
        print_document(document, console, everything=everything)


def print_document(document: doc.Document, console: "Console", *, everything: bool = False) -> None:
    """Print it; with `everything` also the rows that are seldom needed, and what is folded elsewhere."""
    depths = (doc.Depth.BRIEF, doc.Depth.ALL, *([doc.Depth.FOLDED] if everything else []))
    if not console.encoding.startswith("utf"):
        document = _in_ascii(document)  # before columns are measured: a sign may become two characters
    for banner in document.banners:
        if banner.depth is doc.Depth.ALL:
            _say(console, f"[{_STYLES[banner.tone]}] {escape(banner.word)} [/] {escape(banner.text)}")
    if document.verdict or document.why:
        _say(console, _verdict(document))
    if document.remedy:
        _say(console, f"[bold]What to do:[/] {escape(document.remedy)}")
    for point in document.points:
        _say(console, f"  {escape(point)}")
    for section in document.sections:
        for place, block in enumerate(section.shown(*depths)):
            shown_block = block.common if isinstance(block, doc.Table) and not everything else block
            _print(shown_block, section.title if place == 0 else "", console)


def _in_ascii(part: Any) -> Any:
    """The same with every text that is shown in ASCII; figures hold marks of one character, which need no room."""
    if isinstance(part, doc.Figure | doc.FigureRow | Enum):
        return part
    if isinstance(part, str):
        return ascii_of(part)
    if is_dataclass(part) and not isinstance(part, type):
        return replace(part, **{name.name: _in_ascii(getattr(part, name.name)) for name in fields(part)})
    return [_in_ascii(item) for item in part] if isinstance(part, list | tuple) else part


def _print(block: doc.Block, title: str, console: "Console") -> None:
    match block:
        case doc.Table():
            _table(block, block.title or title, console)
        case doc.Note():
            _note(block, console)
        case doc.Notes():
            for note in block.items[:_MOST_NOTES]:
                _note(note if note.lead or note.tone else replace(note, lead="note:"), console)
            if (more := len(block.items) - _MOST_NOTES) > 0:
                _say(console, f"[dim]{more:,} more: see the page[/]")
        case doc.Figure(items=figures) | doc.FigureRow(items=figures):
            strips = doc.strips(figures)
            width = max((len(name) for name, _ in strips), default=0)
            for name, strip in strips:
                between = " " if width + len(strip) < console.width else "\n"
                _say(console, f"{escape(name.ljust(width))}{between}{escape(strip)}")


def _say(console: "Console", line: str) -> None:
    console.print(line, highlight=False)


def _note(note: doc.Note, console: "Console") -> None:
    style, lead = _STYLES[note.tone], f"{escape(note.lead)} " if note.lead else ""
    text = escape(note.text)
    _say(console, f"[{style}]{lead}[/]{text}" if lead and note.tone else f"[{style}]{lead}{text}[/]")


def _table(table: doc.Table, title: str, console: "Console") -> None:
    """The table with those of its columns that there is room for, and which ones there was none for."""
    words = set(table.words)
    rows = [[cell if isinstance(cell, doc.TableCell) else doc.TableCell(cell) for cell in row] for row in table.rows]
    cells = [
        [f"{_brief(row[place].text)}\n{_brief(row[place].below)}" for row in rows] for place in range(len(table.head))
    ]

    def widths_where(numbers_wrap: bool) -> dict[int, int]:
        needs = [
            ColumnNeed.of(shown(head), cells[place], wraps=numbers_wrap or place in words, is_text=place in words)
            for place, head in enumerate(table.head)
        ]
        return column_widths(needs, table.spare, console.width)

    widths = widths_where(numbers_wrap=False)
    if len(widths) < len(table.head) and not table.spare:
        widths = widths_where(numbers_wrap=True)
    grid = Grid(title=escape(title) or None, title_justify="left", header_style="bold")
    for place, width in widths.items():
        head = textwrap.fill(shown(table.head[place]), max(width, 1), break_long_words=False)
        grid.add_column(_without_markup(head), justify="left" if place in words else "right", width=width)
    for row in rows:
        grid.add_row(*(_cell(row[place]) for place in widths))
    console.print(grid)
    if gone := [shown(head) for place, head in enumerate(table.head) if place not in widths]:
        _say(console, f"[dim]no room here for: {_without_markup(', '.join(gone))}[/]")


def _cell(cell: doc.TableCell) -> str:
    below = f"\n[{_STYLES[cell.tone or 'faint']}]{_without_markup(_brief(cell.below))}[/]" if cell.below else ""
    style = _STYLES["" if cell.below else cell.tone]
    return f"[{style}]{_without_markup(_brief(cell.text))}[/]{below}"


def _brief(text: str) -> str:
    text = " ".join(shown(text).split())
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"
