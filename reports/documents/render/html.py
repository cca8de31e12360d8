"""A document as one HTML page that opens from disk with the network off: plotly and the figures are packed inside.

A content security policy forbids any request. What the tags are is `assets/page.html`, a Jinja2 template that escapes
every text it is given.
"""

import base64
import gzip
import marshal
import re
import sys
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from tailgate.reports.documents.model import TONES, Depth, Document
from tailgate.reports.documents.render.text import shown
from tailgate.reports.metrics.catalogue import GLOSSARY
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.user_cache import made_once

if TYPE_CHECKING:
    from jinja2 import Template

_ASSETS: Final = Path(__file__).parents[1] / "assets"
_OPEN: Final = (Depth.ALL, Depth.PAGE)
_SCRIPTS: Final = ("page.js", "report.js")


def html(document: Document) -> str:
    from markupsafe import Markup

    figures = [
        {"key": figure.key, "traces": _nested(figure.traces), "layout": _nested(figure.layout)}
        for figure in document.figures
    ]
    return _template().render(
        document=document,
        open=_OPEN,
        depths=(*_OPEN, Depth.FOLDED),
        folded=Depth.FOLDED,
        tones=TONES,
        explained=ExplainedLabels(),
        figures=Markup(_packed(orjson.dumps(figures)).decode()),
        plotly=Markup(_plotly() if figures else ""),
        css=(_ASSETS / "report.css").read_text(encoding="utf-8"),
        script="\n".join((_ASSETS / name).read_text(encoding="utf-8") for name in _SCRIPTS),
    )


class ExplainedLabels:
    """Labels as markup: the word of the glossary that one begins with carries its meaning; `used` are those words."""

    def __init__(self) -> None:
        self.used: dict[str, str] = {}

    def __call__(self, label: Any) -> Any:
        """The label with its word explained; anything else as it is."""
        from markupsafe import Markup

        if not isinstance(label, str) or (found := _words().match(label)) is None:
            return label
        word = found[0]
        # One of each word is enough for who goes through the page by key.
        stop = Markup("") if word in self.used else Markup(' tabindex="0"')
        self.used[word] = GLOSSARY[word]
        rest = shown(label.removeprefix(word))
        return Markup('<dfn{} title="{}">{}</dfn>{}').format(stop, GLOSSARY[word], word, rest)


@cache
def _words() -> re.Pattern[str]:
    """A word of the glossary at a label's beginning, the longest that it can be."""
    longest = sorted(GLOSSARY, key=len, reverse=True)
    return re.compile(rf"(?:{'|'.join(map(re.escape, longest))})(?![\w/.])")


def _anchor(title: str) -> str:
    return "s-" + re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


@cache
def _template() -> "Template":
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.finalize = _final
    environment.globals.update(kind=lambda block: type(block).__name__, anchor=_anchor)
    page = _ASSETS / "page.html"
    source = page.read_text(encoding="utf-8")
    depends_on = f"{sys.version}\n{version('jinja2')}\n{Path(__file__).read_text(encoding='utf-8')}\n{page}\n{source}"

    def compiled() -> bytes:
        return marshal.dumps(environment.compile(source, page.name, str(page)))

    code = marshal.loads(made_once("page", depends_on.encode(), compiled))
    return environment.template_class.from_code(environment, code, environment.make_globals(None))


def _final(value: Any) -> Any:
    """What the template is about to write; what is our own markup already stays as it is."""
    return shown(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _nested(value: Any) -> Any:
    match value:
        case str():
            return shown(value)
        case dict():
            return {key: _nested(item) for key, item in value.items()}
        case list() | tuple():
            return [_nested(item) for item in value]
    return value


def _packed(data: bytes) -> bytes:
    # A fixed time stamp: the same run makes the same page.
    return base64.b64encode(gzip.compress(data, 6, mtime=0))


@cache
def _plotly() -> str:
    # The package itself is not imported, since that takes long.
    spec = find_spec("plotly")
    folders: Any = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        path = Path(folder) / "package_data" / "plotly.min.js"
        if path.exists():
            script = path.read_bytes()
            return made_once("plotly", script, partial(_packed, script)).decode()
    raise UserError("the plotly package is not installed, so no report can be drawn", remedy="pip install plotly")
