"""Samples survive on disk and come back in order, however they were batched."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailgate.harness.telemetry import sample_store
from tailgate.harness.telemetry.sample_store import TidySamples

SCHEMA = pa.schema([("t", pa.int64()), ("name", pa.string())])


@given(st.lists(st.integers(1, 40), max_size=12), st.booleans(), st.integers(1, 50))
def test_what_is_written_is_what_was_appended(tmp_path_factory, sizes: list[int], spooled: bool, flush: int):
    folder: Path = tmp_path_factory.mktemp("tidy")
    samples = TidySamples(SCHEMA, folder / "spool.arrows" if spooled else None)
    expected = []
    at = 0
    before, sample_store.FLUSH_ROWS = sample_store.FLUSH_ROWS, flush
    try:
        for size in sizes:
            times = list(range(at, at + size))
            at += size
            samples.append([times, ["n"] * size])
            expected += times
    finally:
        sample_store.FLUSH_ROWS = before
    samples.write(folder / "out.parquet")
    assert pq.read_table(folder / "out.parquet")["t"].to_pylist() == expected


def test_a_killed_process_leaves_its_flushed_samples_readable(tmp_path: Path):
    samples = TidySamples(SCHEMA, tmp_path / "spool.arrows")
    samples.append([[1, 2], ["a", "b"]])
    samples.flush()  # and never closed
    with (tmp_path / "spool.arrows").open("rb") as file:
        reader = pa.ipc.open_stream(file)
        assert reader.read_next_batch()["t"].to_pylist() == [1, 2]


def read(path: Path) -> list[int]:
    with path.open("rb") as file:
        try:
            return [t for batch in pa.ipc.open_stream(file) for t in batch["t"].to_pylist()]
        except pa.ArrowInvalid:
            return []


def test_what_was_appended_a_second_ago_outlives_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = [50.0]
    monkeypatch.setattr(sample_store.time, "monotonic", lambda: clock[0])
    samples = TidySamples(SCHEMA, tmp_path / "spool.arrows")
    for second in range(4):
        clock[0] = 50.0 + second
        samples.append([[second], ["a"]])
    assert read(tmp_path / "spool.arrows") == [0, 1, 2, 3]
