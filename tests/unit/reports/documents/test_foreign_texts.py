"""Words of a server and names that someone chose act on nobody who reads a document, in whatever format."""

import base64
import csv
import gzip
import io
import re
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console
from tests.kit.fabricate import Row, fabricate

from tailgate.loadgen import redact
from tailgate.reports.build import build
from tailgate.reports.documents import model as doc
from tailgate.reports.documents.render import html, markdown, terminal, text
from tailgate.reports.documents.render.junit import Case, junit
from tailgate.reports.documents.run.write import _requests_csv
from tailgate.reports.metrics.analysis import analyse

ACTING = "\x1b]0;owned\x07 \x1b[2J \x9b31m \u202egnp.exe \x00"
KEY = "sk-live-0123456789"


def document(words: str) -> doc.Document:
    """One that has these words wherever words can be."""
    table = doc.Table([words], [[words, doc.TableCell(words, words, "ok")]], words)
    figure = doc.Figure("f", words, words, [{"name": words, "x": [words]}], {"title": words}, table, [(words, words)])
    return doc.Document(
        words, words,
        [doc.section(words, table, doc.Note(words, words, words), doc.Notes([doc.Note(words)], words),
                     doc.Cards([doc.Card(words, words, words)]), doc.Code(words, words, folded=True), figure)],
        words, "FAIL", words, [words], [doc.Banner(words, words, depth=doc.Depth.ALL)],
    )  # fmt: skip


def rendered(kind: str, words: str) -> str:
    match kind:
        case "html":
            page = html.html(document(words))
            found = re.search('id="figures">([^<]*)<', page)
            assert found is not None
            return page.partition('id="plotly"')[0] + gzip.decompress(base64.b64decode(found[1])).decode()
        case "markdown":
            return markdown.markdown(document(words))
        case "terminal":
            console = Console(file=io.StringIO(), width=1000)
            terminal.print_document(document(words), console)
            return console.file.getvalue()  # type: ignore[attr-defined]
        case _:
            return junit(words, [Case("validity", words, "error", words)])


@pytest.mark.parametrize("kind", ["html", "markdown", "terminal", "junit"])
def test_no_character_that_acts_is_written(kind: str) -> None:
    shown = rendered(kind, f"a{ACTING}b")
    assert not set(shown) & set("\x1b\x07\x9b\u202e\x00")
    assert "\\x1b]0;owned\\x07" in shown.replace("\\\\", "\\").replace("\\]", "]")


@pytest.mark.parametrize("kind", ["html", "markdown", "terminal", "junit"])
def test_no_secret_that_the_process_knows_is_written(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = redact.Secrets()
    secrets.learn({"Authorization": f"Bearer {KEY}"})
    monkeypatch.setattr(text, "SECRETS", secrets)
    shown = rendered(kind, f"you sent {KEY} to us")
    assert KEY not in shown
    assert "you sent" in shown


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("@octocat broke org/repo#12 and !34", "`@octocat` broke `org/repo#12` and `!34`"),
        ("see http://evil/x_y?a=b.", "see `http://evil/x_y?a=b`."),
        ("www.evil.com or ann@evil.com", "`www.evil.com` or `ann@evil.com`"),
        ("![x](https://evil|y)", "!\\[x\\](`https://evil`\\|y)"),
        ("`@a`@b`", "\\``@a`\\``@b`\\`"),
        ("&lt;b&gt; &#64;ann", "&amp;lt;b&amp;gt; &amp;`#64;ann`"),
        ("10 % of $5 ~ C# at p99", "10 % of $5 \\~ C# at p99"),
    ],
)
def test_in_markdown_nobody_is_called_and_nothing_is_a_link(words: str, shown: str) -> None:
    assert markdown.escaped(words) == shown


@pytest.mark.parametrize("words", ["# a", "- a", "+ a", "1. a", "12) a", "=== a", "-"])
def test_in_markdown_a_sentence_is_no_heading_and_no_list(words: str) -> None:
    page = markdown.markdown(doc.Document("t", "h", [doc.section("", doc.Note(words))], "", "FAIL", words, [words]))
    for line in page.splitlines()[2:]:
        assert not re.match(r"(- )?(#|\+ |=|- (#|-|\+|=)|-$|\d+[.)])", line), line


@pytest.mark.parametrize(
    "words", ["=cmd|' /C calc'!A0", "+1", "-1+2", "@SUM(A1)", " \t=1", "\uff1d1", "\r\n=1", "\x1b=1"]
)
def test_no_cell_of_the_csv_is_a_formula(tmp_path, words: str) -> None:
    run_dir = fabricate(tmp_path / "run", [Row(at=0.0, status="error", error=words), Row(at=100.0)])
    build(run_dir)
    rows = list(csv.DictReader(io.StringIO(_requests_csv(analyse(run_dir)), newline="")))
    assert words.strip()[-2:] in rows[0]["error"]
    assert rows[1]["error"] == ""
    for cell in rows[0].values():
        assert not re.match(r"\s*[=+@\uff1d\x1b]|\s*-\D|\s*-1\+", cell), cell


def test_the_junit_is_xml_whatever_the_words(tmp_path) -> None:
    suite = ET.fromstring(junit("\ufffe\x1b", [Case("a", "\ud800<b>", "failure", "]]>&\x00")]))
    assert suite.find("testcase").get("name") == "\\ud800<b>"
