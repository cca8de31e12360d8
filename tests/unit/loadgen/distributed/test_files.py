"""A shard's files: whole when every piece is there, in whatever order; and those of the master, or refused."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailgate.loadgen.distributed.transfer import FileReceiver, describe_file
from tailgate.workloads.common.errors import UserError


def pieces_of(path: Path, size: int) -> list[tuple[str, int, bytes]]:
    data = path.read_bytes()
    return [(path.name, at, data[at : at + size]) for at in range(0, len(data), size)]


@given(st.lists(st.binary(max_size=300), max_size=3), st.integers(1, 90), st.randoms(use_true_random=False))
def test_files_are_complete_with_their_last_piece_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], size: int, dice: random.Random
) -> None:
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    paths = [here / f"file-{k}" for k in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    pieces = [piece for path in paths for piece in pieces_of(path, size)]
    dice.shuffle(pieces)
    told: list[int] = []
    files = FileReceiver(there, lambda: told.append(1))
    early = pieces[: len(pieces) // 2]  # some may come before what they belong to is known
    for piece in early:
        files.write_piece(*piece)
    files.expect({path.name: describe_file(path) for path in paths})
    for piece in pieces[len(early) :]:
        assert not told
        files.write_piece(*piece)
    assert told
    files.check()
    assert [(there / path.name).read_bytes() for path in paths] == contents


def test_a_file_that_is_not_the_masters_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (sent := tmp_path / "content.npz").write_bytes(b"0123456789")
    files = FileReceiver(tmp_path / "there", lambda: None)
    files.expect({"content.npz": describe_file(sent)})
    files.write_piece("content.npz", 0, b"01234x6789")
    with pytest.raises(UserError, match="did not come from the master") as refused:
        files.check()
    assert refused.value.where == "content.npz"
