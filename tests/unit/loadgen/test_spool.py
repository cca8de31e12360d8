"""The record file: what is flushed is readable, whatever comes after."""

import os
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kit.driving import read_spool
from tests.kit.wire import new_exchange, record

from tailgate.loadgen.records import CLIENT_SCHEMA, SPOOL_SCHEMA, Status
from tailgate.loadgen.spool import Spool
from tailgate.reports.rundir.spool import is_closed

SMALL = pa.schema([pa.field("n", pa.int64(), nullable=False), pa.field("us", pa.list_(pa.uint32()))])


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 2**62), st.none() | st.lists(st.integers(0, 2**32 - 1))), max_size=5))
)
def test_what_is_added_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, batches: list[list[Any]]) -> None:
    path = tmp_path_factory.mktemp("spool") / "s.arrows"
    spool = Spool(path, SMALL)
    for batch in batches:
        for n, us in batch:
            spool.add((n, None if us is None else array("I", us).tobytes()))
        assert spool.flush() == len(batch)
        assert len(spool) == 0
    spool.close()
    assert [(row["n"], row["us"]) for row in read_spool(path)] == [row for batch in batches for row in batch]
    assert is_closed(path)


def test_what_was_flushed_is_readable_while_the_file_grows(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.arrows", SMALL)
    for n in range(3):
        spool.add((n, np.array([n], np.int64)))
        spool.flush()
        assert len(read_spool(tmp_path / "s.arrows")) == n + 1
    assert not is_closed(tmp_path / "s.arrows")


def test_a_write_that_fails_leaves_whole_batches_only(tmp_path: Path) -> None:
    class Full:
        """A disk that takes 100 bytes more."""

        def __init__(self, file: Any) -> None:
            self.file, self.room = file, 100

        def write(self, data: Any) -> int:
            if not self.room:
                raise OSError(28, os.strerror(28))
            taken = min(self.room, len(data))
            self.room -= taken
            return int(self.file.write(data[:taken]))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    spool = Spool(tmp_path / "s.arrows", SMALL)
    spool.add((1, b""))
    spool.flush()
    size = (tmp_path / "s.arrows").stat().st_size
    spool._stream._file = Full(spool._stream._file)  # type: ignore[assignment]
    spool.add((2, b""))
    with pytest.raises(OSError, match="No space left"):
        spool.flush()
    assert (tmp_path / "s.arrows").stat().st_size == size
    assert [row["n"] for row in read_spool(tmp_path / "s.arrows")] == [1]
    assert len(spool) == 1  # the row waits, it is not lost


def test_a_device_that_is_full_says_so_and_not_that_it_can_t_be_truncated() -> None:
    with pytest.raises(OSError, match="No space left"):
        Spool(Path("/dev/full"), SMALL)


def test_an_exchange_s_row_fits_the_schema_in_any_state(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.arrows", SPOOL_SCHEMA)
    for status in Status:
        exchange = new_exchange()
        exchange.fail(status, None, 5)
        spool.add(tuple(record(exchange).values()))
    spool.flush()
    assert [row["status"] for row in read_spool(tmp_path / "s.arrows")] == list(Status)


def test_the_client_s_row_fits_its_schema(tmp_path: Path) -> None:
    from tailgate.loadgen.injector.client_stats import ClientStats

    client_stats = ClientStats(3)
    client_stats.start(0)
    client_stats.began(0, 5)
    spool = Spool(tmp_path / "s.arrows", CLIENT_SCHEMA)
    spool.add(client_stats.close_interval(7))
    spool.flush()
    (row,) = read_spool(tmp_path / "s.arrows")
    assert (row["injector"], row["dispatched"], row["loop_max_ns"], sum(row["dispatch_lag"])) == (3, 1, 7, 1)
