"""Standard output and standard error tell a terminal nothing but colours and our own moves; stderr tells no secret."""

import io

import pytest

from tailgate.harness.cli import edge
from tailgate.loadgen.redact import Secrets


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
