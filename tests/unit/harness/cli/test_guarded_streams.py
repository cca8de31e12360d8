"""Standard output and standard error tell a terminal nothing but colours and our own moves; stderr tells no secret."""

import io
import json
from xml.etree import ElementTree

import pytest

from tailgate.harness.cli import edge
from tailgate.loadgen.redact import Secrets
from tailgate.workloads.common.ascii_text import ERRORS, ascii_of


def written(kind: type[edge._Guarded], text: str) -> str:
    raw = io.BytesIO()
    stream = kind(raw, "utf-8", write_through=True)
    assert stream.write(text) == len(text)
    return raw.getvalue().decode()


@pytest.mark.parametrize("kind", [edge._Guarded, edge._Confidential])
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m\r\x1b[K\x1b[2A\n\t", "\x1b[1;31mred\x1b[0m\r\x1b[K\x1b[2A\n\t"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x1b[2J\x1b[6n\x1bc", "\\x1b[2J\\x1b[6n\\x1bc"),
        ("\x9b31m\x00\x7f", "\\x9b31m\\x00\\x7f"),
    ],
)
def test_only_colours_and_moves_of_ours_reach_the_terminal(kind: type[edge._Guarded], text: str, shown: str) -> None:
    assert written(kind, text) == shown


def test_standard_error_tells_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = Secrets()
    secrets.learn({"Authorization": "Bearer sk-01234567"})
    monkeypatch.setattr(edge, "SECRETS", secrets)
    assert written(edge._Confidential, "refused: sk-01234567\n") == "refused: ***\n"


def encoded(text: str, encoding: str) -> str:
    stream = edge._Guarded(io.BytesIO(), encoding, ERRORS, write_through=True)
    stream.write(text)
    return stream.buffer.getvalue().decode(encoding)


def test_what_an_encoding_lacks_is_written_as_people_write_it_there() -> None:
    assert encoded("n≥59, 3 × 2 → 6 µs, ∞ ± 1…", "ascii") == "n>=59, 3 x 2 -> 6 us, inf +/- 1..."
    assert encoded("café 中 \udcff", "ascii") == "caf\\xe9 \\u4e2d \\udcff"
    assert ascii_of("▁▅█ │") == "_+# |"


def test_a_file_name_that_is_no_text_ends_no_command() -> None:
    assert encoded("≥ \udcff", "utf-8") == "≥ \\udcff"


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({"LC_ALL": "C"}, True),
        ({"LC_ALL": "POSIX", "LANG": "en_US.UTF-8"}, True),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, True),  # Python itself sets LC_CTYPE where LANG is C
        ({"LC_CTYPE": "C.UTF-8"}, False),  # and where nothing is set
        ({}, False),
        ({"LANG": "C.UTF-8"}, False),
        ({"LANG": "C", "LC_ALL": "de_DE.UTF-8"}, False),
        ({"LANG": "C", "PYTHONIOENCODING": "utf-8"}, False),
    ],
)
def test_the_locale_c_by_name_asks_for_ascii(variables: dict[str, str], asked: bool) -> None:
    assert edge._ascii_asked(variables) is asked


def test_documents_keep_what_they_say_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", edge._Guarded(raw, "ascii", ERRORS, write_through=True))
    said = "≥ é 😀"
    edge.write_document(json.dumps({"a": said}, ensure_ascii=False), "json")
    assert json.loads(raw.getvalue().decode("ascii")) == {"a": said}
    raw.seek(raw.truncate(0))
    edge.write_document(f"<a>{said}</a>", "junit")
    assert ElementTree.fromstring(raw.getvalue().decode("ascii")).text == said
