"""What is made once a machine: kept by all it depends on, and made again where the file is damaged or can't be kept."""

from pathlib import Path

import pytest

from tailgate.workloads.common.user_cache import folder, made_once
from tailgate.workloads.prompts.content_table import table_default


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_it_is_made_once_for_a_key() -> None:
    assert made_once("thing", b"a", lambda: b"first") == b"first"
    assert made_once("thing", b"a", lambda: b"second") == b"first"
    assert made_once("thing", b"b", lambda: b"second") == b"second"
    assert [path.name for path in folder().iterdir()] == ["thing.made"]


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 100])
def test_a_damaged_file_is_made_again(damage: bytes) -> None:
    made_once("thing", b"a", lambda: b"first")
    (folder() / "thing.made").write_bytes(damage)
    assert made_once("thing", b"a", lambda: b"second") == b"second"
    assert made_once("thing", b"a", lambda: b"third") == b"second"


def test_a_byte_that_changed_is_noticed() -> None:
    made_once("thing", b"a", lambda: b"first")
    path = folder() / "thing.made"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert made_once("thing", b"a", lambda: b"second") == b"second"


def test_a_folder_that_is_none_costs_the_time_only(tmp_path: Path) -> None:
    (tmp_path / "tailgate").write_text("a file")
    assert made_once("thing", b"a", lambda: b"first") == b"first"
    assert made_once("thing", b"a", lambda: b"second") == b"second"


def test_the_default_content_is_the_same_from_the_cache() -> None:
    made, kept = table_default(), table_default()
    assert (folder() / "content.made").exists()
    assert (made.digest, made.words, made.starts.tolist(), made.safe.tolist()) == (
        kept.digest, kept.words, kept.starts.tolist(), kept.safe.tolist(),
    )  # fmt: skip
