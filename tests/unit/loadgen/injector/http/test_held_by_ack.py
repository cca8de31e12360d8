"""A stream that was held back by an acknowledgement is told from others by its first reads."""

from itertools import accumulate

import pytest

from tailgate.loadgen.injector.client_stats import ClientStats
from tailgate.loadgen.injector.http.read_times import held_by_ack


def looks_held(gaps_ms: list[float], sizes: list[int] | None = None) -> bool:
    stamps = [0, *accumulate(round(gap * 1e6) for gap in gaps_ms)]
    return held_by_ack(stamps, list(accumulate(sizes or [200] * len(stamps))))


@pytest.mark.parametrize(
    ("gaps_ms", "sizes"),
    [
        ([15.0, 40.3, 0.3, 4.4, 15.0, 15.0, 15.0, 15.0], None),  # what was held back came close behind
        ([7.7, 39.9, 0.4, 12.1, 7.7, 14.9, 15.1, 14.9], None),
        ([15.0, 43.9, 15.0, 15.0, 15.0, 15.0], [200, 200, 600, 200, 200, 200, 200]),  # or in the same read
    ],
)
def test_streams_that_were(gaps_ms: list[float], sizes: list[int] | None) -> None:
    assert looks_held(gaps_ms, sizes)


@pytest.mark.parametrize(
    "gaps_ms",
    [
        [15.0] * 10,
        [40.0] * 10,  # a server of that pace
        [15.0, 40.3, 15.0, 15.0, 15.0, 15.0, 15.0],  # a pause, and nothing had been held back
        [15.0] * 8 + [40.0, 0.3],  # later acknowledgements are not delayed
        [15.0, 40.0],
    ],
)
def test_streams_that_were_not(gaps_ms: list[float]) -> None:
    assert not looks_held(gaps_ms)


def test_it_takes_three_answers_and_half_of_them() -> None:
    stats = ClientStats(0)
    for held in [False, False, True, False, True, False, False]:
        stats.delayed_acks_seen("http://a", held=held)
    for _ in range(2):
        stats.delayed_acks_seen("http://b", held=True)
    stats.delayed_acks_seen("http://a", held=True)
    assert stats.waiting_peers == set()
    stats.delayed_acks_seen("http://b", held=True)
    assert stats.waiting_peers == {"http://b"}
