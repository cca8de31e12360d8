"""When tokens came: the extension says of any reads and events what Python says."""

from array import array
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tailgate.loadgen.injector.http import AVAILABLE
from tailgate.loadgen.injector.http.arrivals import TokenArrivals, in_python
from tailgate.loadgen.records import CENSORED

if AVAILABLE:
    from tailgate.loadgen.injector.http import _events

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="the extension was not built")

T0 = 1_764_000_000_000_000_000
MS = 1_000_000


@st.composite
def digests(draw: st.DrawFn) -> tuple[Any, ...]:
    """Arguments of `in_python`: reads of a stream, and events that end within them, many of them with a read."""
    n = draw(st.integers(1, 12))
    steps = draw(st.lists(st.integers(-MS, 40 * MS), min_size=n, max_size=n))  # a clock may step back
    stamps = (T0 + np.cumsum(steps)).tolist()
    lags = draw(st.lists(st.sampled_from([0, 5_000, MS, MS + 1, 30 * MS]), min_size=n, max_size=n))
    unseen = [stamp - draw(st.sampled_from([-50_000, 0, 1, 500_000, 90 * MS, 4_000 * MS])) for stamp in stamps]
    emptied = bytes(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    start = draw(st.integers(0, 500))
    sizes = np.cumsum(draw(st.lists(st.integers(0, 40), min_size=n, max_size=n)))
    total = int(sizes[-1])
    inside = st.integers(1, total) if total else st.nothing()
    ends = sorted(
        draw(st.sets(inside | st.sampled_from(sizes[sizes > 0].tolist() or [1]), max_size=25)) if total else ()
    )
    kinds = bytes(draw(st.lists(st.booleans(), min_size=len(ends), max_size=len(ends))))
    kinds = kinds[: draw(st.integers(0, len(kinds)))]  # they end in front of a bad event
    before = draw(st.sampled_from([0, 1, 7]))
    first = draw(st.integers(T0 - 100 * MS, T0 + 100 * MS)) if before else -1
    answer = draw(st.integers(-1, before + 12))
    sent = T0 - draw(st.sampled_from([0, 50 * MS, 10_000 * MS]))
    earlier = draw(st.sampled_from([0, T0 - 20 * MS]))
    columns = (array("q", stamps), array("q", [a + b for a, b in zip(stamps, lags, strict=True)]), array("q", unseen))
    read_ends = array("q", (start + sizes).tolist())
    return (
        *columns,
        bytearray(emptied),
        read_ends,
        kinds,
        np.array(ends, np.int64),
        sent,
        earlier,
        start,
        before,
        first,
        answer,
        MS,
    )


ONE = (array("q", [T0]), array("q", [T0 + 5 * MS]), array("q", [T0 - MS]), bytearray(b"\1"), array("q", [30]))


@given(digests())
@settings(max_examples=500)
@example((*ONE, b"\1\1\1", np.array([10, 20, 30]), T0 - 50 * MS, 0, 0, 0, -1, 1, MS))
@example((*ONE, b"\1\1\1", np.array([10, 20, 29]), T0 - 50 * MS, 0, 0, 5, T0 - 9 * MS, 7, MS))
@example((*ONE, b"", np.array([], np.int64), T0, 0, 0, 0, -1, -1, MS))
def test_it_says_what_python_says(given_to: tuple[Any, ...]) -> None:
    assert TokenArrivals(*_events.arrivals(*given_to)) == TokenArrivals(*in_python(*given_to))


def test_three_tokens_of_a_late_read_are_spread_over_their_interval() -> None:
    found = TokenArrivals(*_events.arrivals(*ONE, b"\1\1\1", np.array([10, 20, 30]), T0 - 50 * MS, 0, 0, 0, -1, 0, MS))
    assert np.frombuffer(found.arrivals_us, np.uint32).tolist() == [0, 333, 666]
    assert np.frombuffer(found.censored, CENSORED).tolist() == [(0, 3, -334, True)]
    assert (found.client_coalesced, found.server_coalesced, found.first_token_coalesced) == (3, 0, True)
    assert (found.last_ns, found.answer_ns, found.lag_max_ns) == (T0, found.first_ns, 5 * MS)


def test_columns_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        _events.arrivals(*ONE[:4], array("q", [30, 40]), b"\1", np.array([10]), T0, 0, 0, 0, -1, -1, MS)
