"""Clock offsets from pings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailgate.loadgen.distributed.clock_offset import Ping, estimate

NS = st.integers(0, 10**9)


def ping(sent: int, offset: int, there: int, work: int, back: int) -> Ping:
    received_there = sent + there + offset
    return Ping(sent, received_there, received_there + work, sent + there + work + back)


@given(st.integers(-(10**15), 10**15), st.lists(st.tuples(NS, NS, NS, NS), min_size=1))
def test_the_true_offset_is_within_the_stated_error_whatever_the_ways_took(
    offset: int, ways: list[tuple[int, int, int, int]]
) -> None:
    found = estimate([ping(sent, offset, there, work, back) for sent, there, work, back in ways])
    assert abs(found.offset_ns - offset) <= found.error_ns + 1


def test_the_quickest_exchange_counts() -> None:
    slow, quick = ping(0, 500, 90_000, 10, 10), ping(10, 500, 40, 7, 40)
    assert estimate([slow, quick]).offset_ns == 500
    assert estimate([slow, quick]).error_ns == 40


def test_without_a_ping_nothing_is_known() -> None:
    with pytest.raises(ValueError, match="empty"):
        estimate([])
