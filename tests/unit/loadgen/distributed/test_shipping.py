"""Records on their way to the master: whatever is lost or repeated, the files become equal."""

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailgate.loadgen.distributed import transfer
from tailgate.loadgen.distributed.transfer import RecordSender, RecordStore, number_of


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not acknowledged by the next look counts as lost."""
    monkeypatch.setattr(transfer, "_AGAIN_S", -1.0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.floats(0, 0.6), st.lists(st.integers(0, 3 << 20), min_size=1, max_size=6))
def test_files_arrive_whole_over_a_line_that_loses_repeats_and_reorders(
    tmp_path_factory: pytest.TempPathFactory, no_patience: None, seed: int, loss: float, sizes: list[int]
) -> None:
    dice = random.Random(seed)
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    store = RecordStore(there)
    line: list[tuple[str, int, bytes]] = []
    shipper = RecordSender(here, lambda *piece: line.append(piece))
    growing = here / "injector-3.arrows"
    growing.touch()
    rounds = 0
    while sizes or not shipper.all_stored:
        if sizes:
            with growing.open("ab") as file:
                file.write(dice.randbytes(sizes.pop()))
        shipper.send_new()
        line = line * 2 if dice.random() < 0.2 else line
        dice.shuffle(line)
        for name, offset, piece in line:
            if dice.random() >= loss:
                upto = store.write(name, offset, piece)
                if dice.random() >= loss:
                    shipper.acknowledge(name, upto)
        line.clear()
        rounds += 1
        assert rounds < 10_000
    if growing.stat().st_size:
        assert (there / growing.name).read_bytes() == growing.read_bytes()


def test_a_piece_that_comes_twice_is_stored_once(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    assert store.write("injector-0.arrows", 0, b"abcd") == 4
    assert store.write("injector-0.arrows", 0, b"abcd") == 4
    assert store.write("injector-0.arrows", 2, b"cdef") == 6
    assert (tmp_path / "injector-0.arrows").read_bytes() == b"abcdef"
    assert store.repeated == 6


def test_a_piece_behind_a_gap_waits_for_the_gap(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    assert store.write("injector-0.arrows", 4, b"efgh") == 0
    assert not (tmp_path / "injector-0.arrows").exists()


def test_what_is_in_order_is_not_sent_twice(tmp_path: Path) -> None:
    (tmp_path / "client-0.arrows").write_bytes(b"x" * 1000)
    sent: list[int] = []
    shipper = RecordSender(tmp_path, lambda _name, offset, piece: sent.append(offset))
    shipper.send_new()
    shipper.send_new()
    assert sent == [0]
    assert not shipper.all_stored
    shipper.acknowledge("client-0.arrows", 1000)
    assert shipper.all_stored


def test_no_more_than_a_window_is_under_way(tmp_path: Path) -> None:
    (tmp_path / "injector-0.arrows").write_bytes(bytes(10 << 20))
    sent: list[int] = []
    shipper = RecordSender(tmp_path, lambda _name, _offset, piece: sent.append(len(piece)))
    shipper.send_new()
    assert sum(sent) == 8 * 256 * 1024


@pytest.mark.parametrize(
    "name", ["../injector-0.arrows", "injector-0.arrows/x", "plan.parquet", "injector-.arrows", "injector-1.arrows.tmp"]
)
def test_only_spool_files_have_a_number(name: str) -> None:
    assert number_of(name) is None


def test_a_spool_files_number_is_its_injectors() -> None:
    assert number_of("injector-12.arrows") == 12
    assert number_of("client-0.arrows") == 0
