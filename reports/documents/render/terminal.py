"""A document on a terminal: verdict first, then what `Depth` allows; foreign text never becomes markup."""

from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from rich.markup import escape as _without_markup
from rich.table import Table as Grid

from tailgate.reports.documents import model as doc
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


def print_verdict_line(document: doc.Document, console: "Console") -> None:
    """The verdict alone, in one line however long; nothing where nothing is judged."""
    if document.verdict:
        console.print(_verdict(document), highlight=False, soft_wrap=True)


def _verdict(document: doc.Document) -> str:
    return f"[bold {_STYLES[doc.TONES[document.verdict]]}]{document.verdict}[/]  {escape(document.why)}"


def print_document(document: doc.Document, console: "Console") -> None:
    if not console.encoding.startswith("utf"):
        document = _in_ascii(document)  # before columns are measured: a sign may become two characters
    if not console.is_terminal:  # a file or a pipe has no width to heed
        console.width = max(console.width, _PIPE_WIDTH)
    for banner in document.banners:
        if banner.depth is doc.Depth.ALL:
            _say(console, f"[{_STYLES[banner.tone]}] {escape(banner.word)} [/] {escape(banner.text)}")
    if document.verdict:
        _say(console, _verdict(document))
    for point in document.points:
        _say(console, f"  {escape(point)}")
    for section in document.sections:
        for place, block in enumerate(section.shown(doc.Depth.BRIEF, doc.Depth.ALL)):
            _print(block, section.title if place == 0 else "", console)


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
            console.print(_grid(block, block.title or title))
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


def _grid(table: doc.Table, title: str) -> Grid:
    grid = Grid(title=escape(title) or None, title_justify="left", header_style="bold")
    words = set(table.words)
    for place, head in enumerate(table.head):
        grid.add_column(escape(head), justify="left" if place in words else "right")
    for row in table.rows:
        grid.add_row(*map(_cell, row))
    return grid


def _cell(cell: str | doc.TableCell) -> str:
    if isinstance(cell, str):
        return _brief(cell)
    below = f"\n[{_STYLES[cell.tone or 'faint']}]{_brief(cell.below)}[/]" if cell.below else ""
    style = _STYLES["" if cell.below else cell.tone]
    return f"[{style}]{_brief(cell.text)}[/]{below}"


def _brief(text: str) -> str:
    text = " ".join(text.split())
    return escape(text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…")
