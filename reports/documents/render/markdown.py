"""A document as Markdown that stands alone: for a job's summary or a pull request's comment. Always under 60 kB."""

import re
from collections.abc import Iterator
from typing import Final

from tailgate.reports.documents import model as doc
from tailgate.reports.documents.render.text import shown

LIMIT_BYTES: Final = 60_000
_ICONS: Final = {"PASS": "✅ ", "FAIL": "❌ ", "INCONCLUSIVE": "❔ ", "INVALID": "⚠️ "}
_SENTENCE: Final = 4000  # characters: of what stands outside of tables
_MOST_NOTES: Final = 30
_MARKS: Final = str.maketrans(
    {mark: f"\\{mark}" for mark in "\\|`*_[]~"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\n": " ", "\t": " "}
)
# What GitHub and GitLab make a link or a message to someone: addresses, @name, #12, !34, &56. Within a
# code span they do not; what can't stand in one, here or in a table, ends it.
_LIVE: Final = re.compile(
    r"""(?:[a-z][a-z0-9+.-]*://|www\.|(?:mailto|xmpp):|[\w./+-]*@(?=\w)|[\w./-]*[#!&](?=\d)|GH-(?=\d))"""
    r"""[^\s|`\\<>]*(?<![.,:;!?)'"])""",
    re.IGNORECASE,
)
# What would begin a heading or a list where a line begins.
_OPENING: Final = re.compile(r"^(?=[#+=-])|^(\d+)(?=[.)](?:\s|$))")


def markdown(document: doc.Document) -> str:
    word = f"{_ICONS[document.verdict]}{document.verdict}: " if document.verdict else ""
    lines = [f"## {word}{escaped(document.heading)}", ""]
    for banner in document.banners:
        if banner.depth is doc.Depth.ALL:
            lines += [f"> **{escaped(banner.word)}**: {escaped(banner.text)}.", ""]
    lines += [_sentence(document.why), ""] if document.why else []
    lines += [f"**What to do:** {_sentence(document.remedy)}", ""] if document.remedy else []
    lines += [*(f"- {_sentence(point)}" for point in document.points), ""] if document.points else []
    for section in document.sections:
        lines += _section(section)
    return cut("\n".join(lines), LIMIT_BYTES)


def _section(section: doc.Section) -> Iterator[str]:
    blocks = section.shown(doc.Depth.BRIEF, doc.Depth.ALL)
    for place, block in enumerate(blocks):
        if place == 0 and section.title and isinstance(block, doc.Table | doc.Figure) and not block.title:
            yield from (f"**{escaped(section.title)}**", "")
        yield from _block(block)
    for block in section.shown(doc.Depth.FOLDED):
        title = getattr(block, "title", "") or section.title
        yield from (f"<details><summary>{escaped(title)}</summary>", "", *_block(block, titled=False), "</details>", "")


def _block(block: doc.Block, titled: bool = True) -> Iterator[str]:
    if titled and isinstance(block, doc.Table | doc.Notes) and block.title:
        yield from (f"**{escaped(block.title)}**", "")
    match block:
        case doc.Table():
            yield from table_lines(block.common)
        case doc.Note():
            yield from (_note(block), "")
        case doc.Notes():
            yield from (f"- {_note(note)}" for note in block.items[:_MOST_NOTES])
            yield from (f"- {more:,} more: see the page" for more in [len(block.items) - _MOST_NOTES] if more > 0)
            yield ""
        case doc.Code():
            yield from ("```", *_fenced(block.text), "```", "")
        case doc.Figure(items=figures) | doc.FigureRow(items=figures) if strips := doc.strips(figures):
            width = max(len(name) for name, _ in strips)
            lines = [f"{name:<{width}} {strip}" for name, strip in strips]
            yield from ("```", *_fenced("\n".join(lines)), "```", "")


def _note(note: doc.Note) -> str:
    lead = f"**{escaped(note.lead)}** " if note.lead else ""
    return lead + _sentence(note.text)


def _sentence(text: str) -> str:
    return _OPENING.sub(r"\1\\", escaped(text, _SENTENCE))


def _fenced(text: str) -> list[str]:
    return shown(text).replace("```", "'''").split("\n")


def table_lines(table: doc.Table) -> list[str]:
    """A table's lines with an empty one behind them, and why there are dashes in it."""
    words = set(table.words)
    marks = ["---" if place in words else "---:" for place in range(len(table.head))]
    rows = [[escaped(head) for head in table.head], marks, *map(_row, table.rows)]
    foot = [f"`-`: {escaped(table.dashed)}", ""] if table.dashed else []
    return [*(f"| {' | '.join(row)} |" for row in rows), "", *foot]


def _row(row: doc.Row) -> list[str]:
    cells = [cell if isinstance(cell, doc.TableCell) else doc.TableCell(cell) for cell in row]
    return [escaped(" ".join(filter(None, (cell.text, cell.below)))) for cell in cells]


def escaped(value: str, most: int = 400) -> str:
    """Text that can't break a table, become markup or call anyone; what goes beyond `most` characters is `…`."""
    value = shown(value)
    value = value if len(value) <= most else f"{value[: most - 1]}…"
    pieces, at = [], 0
    for live in _LIVE.finditer(value):
        pieces += [value[at : live.start()].translate(_MARKS), f"`{live[0]}`"]
        at = live.end()
    return "".join([*pieces, value[at:].translate(_MARKS)])


def cut(document: str, limit: int) -> str:
    """At most `limit` bytes, cut at a line's end."""
    if len(document.encode()) <= limit:
        return document
    note = "\n\n(cut here: see report.html)\n"
    start = document.encode()[: limit - len(note)].decode(errors="ignore")
    return start.rpartition("\n")[0] + note
