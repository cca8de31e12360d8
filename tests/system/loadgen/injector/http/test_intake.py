"""The compiled short cut: the record it gives is the one that Python gives, of any bytes in any pieces."""

import shutil
import sysconfig
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.kit.scripted import CHUNKED, END, chunk
from tests.kit.wire import Wire, record
from tests.system.loadgen.injector.http.test_fuzz_http import ANSWERS, EVENTS, garbled, steady

from tailgate.loadgen.injector.http import AVAILABLE
from tailgate.loadgen.injector.http.connection import Connection
from tailgate.loadgen.injector.http.fast_connection import FastConnection
from tailgate.loadgen.injector.http.token_stream import TokenStream
from tailgate.loadgen.injector.kernel_timestamps import stamps_available
from tailgate.loadgen.records import Status, lag_histogram

HEADERS = Path(sysconfig.get_paths()["include"], "Python.h").exists()
pytestmark = pytest.mark.skipif(
    not AVAILABLE and not (HEADERS and shutil.which("cc")), reason="there is no C compiler, or no header of Python's"
)


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Wire, Wire]]:
    """Read in Python, read by the extension."""
    made = Wire(Connection), Wire(FastConnection)
    yield made
    for wire in made:
        wire.close()


def agree(both: tuple[Wire, Wire], pieces: Sequence[bytes], then: str = "close") -> dict[str, object]:
    python, compiled = (record(wire.answer(pieces, then=then)) for wire in both)
    assert steady(compiled) == steady(python)
    return compiled


@given(st.data())
@settings(max_examples=300)
def test_any_split_of_any_answer(both: tuple[Wire, Wire], data: st.DataObject) -> None:
    answer, status = ANSWERS[data.draw(st.sampled_from(list(ANSWERS)))]
    at = data.draw(st.sets(st.integers(1, len(answer) - 1), max_size=25))
    assert agree(both, [answer[a:b] for a, b in pairwise([0, *sorted(at), len(answer)])])["status"] == status


@given(st.lists(st.sampled_from(EVENTS), max_size=4), garbled(), st.sampled_from(["close", "stay"]))
@settings(max_examples=400)
@example(EVENTS[:2], [b"ffffffffff\r\n", b"x"], "close")  # more digits than a size has
@example(EVENTS[:2], [b"5;x=1\r\nabcde\r\n"], "stay")  # an extension
@example(EVENTS[:2], [b"0\r\nX-Trailer: 1\r\n\r\n"], "close")
@example(EVENTS[:2], [END + b"HTTP/1.1 200 OK\r\n\r\n"], "close")  # a second answer
@example(EVENTS[:2], [b"5\r\nab", b"cdeX\r\n"], "close")  # no end of the chunk
def test_anything_at_all_behind_a_stream_that_has_begun(
    both: tuple[Wire, Wire], events: list[bytes], behind: list[bytes], then: str
) -> None:
    begun = [CHUNKED, *map(chunk, [EVENTS[0], *events])]
    agree(both, [piece for piece in [*begun, *behind] if piece], then)


def test_every_single_byte_may_come_alone(both: tuple[Wire, Wire]) -> None:
    begun = CHUNKED + chunk(EVENTS[0])
    rest = b"".join(map(chunk, EVENTS[1:])) + END
    row = agree(both, [begun, *(rest[k : k + 1] for k in range(len(rest)))])
    assert (row["status"], row["chunks"]) == (Status.OK, 5)


def test_a_long_answer_is_read_part_by_part(both: tuple[Wire, Wire]) -> None:
    many = [chunk(EVENTS[1] * 40)] * 60  # some 400 KB: more than is kept unread
    row = agree(both, [CHUNKED + chunk(EVENTS[0]), *many, *map(chunk, EVENTS[-3:]), END])
    assert row["status"] == Status.OK and row["chunks"] == 1 + 2400 + 1


@pytest.mark.skipif(not stamps_available(), reason="this kernel gives no receive stamps")
def test_a_usual_answer_is_read_by_the_extension_from_its_second_chunk_on(
    both: tuple[Wire, Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bytes] = []
    python = Connection._take
    monkeypatch.setattr(
        Connection, "_take", lambda self, data, *when: (read.append(data), python(self, data, *when))[1]
    )
    pieces = [CHUNKED, *map(chunk, EVENTS), END]
    row = record(both[1].answer(pieces))
    assert (row["status"], row["bytes_received"]) == (Status.OK, sum(map(len, pieces)))
    assert read == pieces[:2]


def test_arrivals_are_the_kernels_stamps_of_the_reads(both: tuple[Wire, Wire]) -> None:
    for wire in both:
        row = record(wire.answer([CHUNKED, *map(chunk, EVENTS), END]))
        assert (row["chunks"], row["server_coalesced"], row["client_coalesced"]) == (5, 0, 0)
        assert row["headers_ns"] < row["first_token_ns"] < row["last_token_ns"] <= row["end_ns"]  # type: ignore[operator]


@pytest.mark.skipif(not stamps_available(), reason="this kernel gives no receive stamps")
def test_every_read_is_counted_in_the_bucket_of_its_lag(
    both: tuple[Wire, Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tailgate.loadgen.injector.http import _intake  # not there without a compiler

    lags: list[int] = []
    drain = TokenStream.catch_up

    def seen(stream: TokenStream) -> None:
        if stream.intake is not None:
            start = len(stream.stamps)
            drain(stream)
            lags.extend(r - s for s, r in zip(stream.stamps[start:], stream.reads[start:], strict=True))

    monkeypatch.setattr(TokenStream, "catch_up", seen)
    poll = both[1].loop.other_poller
    assert isinstance(poll, _intake.Poll)
    poll.drain_lags()
    for late_us in (0, 3, 40, 700, 5_000, 30_000):
        both[1].answer([CHUNKED, *map(chunk, EVENTS), END], late_us=late_us)
    counted = np.frombuffer(poll.drain_lags(), np.uint32)
    assert len(lags) > 20 and max(lags) > 30_000_000
    assert counted.tolist() == lag_histogram(np.array(lags)).tolist()
    assert not any(poll.drain_lags())
