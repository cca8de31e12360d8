"""A self-contained HTML page: escaping, tables, figures with their tables, plotly packed inside.

Every document is built with it (`reports.documents.run_html.page`, a comparison, a gate's page). It opens from disk
with the network off: a content security policy forbids any request.
"""

import base64
import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import orjson

from tailgate.reports.documents.plots.run import Figure
from tailgate.workloads.common.errors import UserError

_ASSETS: Final = Path(__file__).parent / "assets"
_POLICY: Final = "; ".join(
    (
        "default-src 'none'", "script-src 'unsafe-inline'", "style-src 'unsafe-inline'", "img-src data: blob:",
        "font-src data:",
    )
)  # fmt: skip


def text(value: object) -> str:
    """Any value as HTML text: nothing in it is markup."""
    return escape(str(value), quote=True)


@dataclass(frozen=True)
class Cell:
    """A table cell that is more than plain text: HTML, and a CSS class."""

    html: str
    kind: str = ""


def word(value: object, kind: str) -> Cell:
    """A bold word with a meaning: `ok`, `fail`, `met`, ..."""
    return Cell(f"<b>{text(value)}</b>", kind)


def table(head: Sequence[str], rows: Iterable[Sequence[str | Cell]], text_columns: Iterable[int] = (0,)) -> str:
    """A table; plain cells are escaped. Columns not in `text_columns` are figures, right-aligned."""
    kinds = ["text" if place in set(text_columns) else "n" for place in range(len(head))]
    heads = "".join(f'<th scope="col" class="{kind}">{text(one)}</th>' for kind, one in zip(kinds, head, strict=True))
    body = "".join(f"<tr>{''.join(map(_cell, row, kinds))}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: str | Cell, kind: str) -> str:
    if isinstance(value, Cell):
        return f'<td class="{value.kind or kind}">{value.html}</td>'
    return f'<td class="{kind}">{text(value)}</td>'


def section(title: str, body: str) -> str:
    """A section with its heading; `body` is HTML."""
    return f"<section><h2>{text(title)}</h2>{body}</section>"


def folded(label: str, value: object) -> str:
    """JSON values behind a heading that opens."""
    shown = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return f"<details><summary>{text(label)}</summary><pre>{text(shown)}</pre></details>"


def figure(one: Figure) -> str:
    """A figure's place in the page, with its table below it."""
    return (
        f'<figure aria-labelledby="{one.key}-title"><figcaption><b id="{one.key}-title">{text(one.title)}</b>'
        f'<p>{text(one.says)}</p></figcaption><div class="plot" id="{one.key}" role="img" '
        f'aria-labelledby="{one.key}-title" aria-describedby="{one.key}-table"></div>'
        f'<details id="{one.key}-table"><summary>The same as a table</summary>'
        f"{table(one.head, one.rows, ())}</details></figure>"
    )


def page(title: str, banner: str, body: str, figures: Sequence[Figure]) -> str:
    """The whole document; `banner` and `body` are HTML."""
    drawn = [{"key": f.key, "traces": f.traces, "layout": f.layout} for f in figures]
    css, script = ((_ASSETS / name).read_text() for name in ("report.css", "report.js"))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{text(title)}</title><style>{css}</style></head>\n'
        f"<body>{banner}<main>{body}</main>\n"
        f'<script type="text/plain" id="figures">{_packed(orjson.dumps(drawn))}</script>\n'
        f'<script type="text/plain" id="plotly">{_plotly() if drawn else ""}</script>\n'
        f"<script>{script}</script></body></html>\n"
    )


def _packed(data: bytes) -> str:
    # A fixed time stamp: the same run makes the same page.
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


@cache
def _plotly() -> str:
    """The script of the installed plotly, packed; the package itself is not imported (it would take long)."""
    spec = find_spec("plotly")
    places: Any = spec.submodule_search_locations if spec else None
    for place in places or ():
        path = Path(place) / "package_data" / "plotly.min.js"
        if path.exists():
            return _packed(path.read_bytes())
    raise UserError("the plotly package is not installed, so no report can be drawn", remedy="pip install plotly")
