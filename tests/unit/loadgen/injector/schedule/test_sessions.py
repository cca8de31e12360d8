"""Whose rows are whose: the injectors' shares of a plan."""

from collections import Counter
from itertools import pairwise

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from tests.kit.driving import plan

from tailgate.loadgen.injector.schedule.plan_share import PlanShare


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, unique=True), st.integers(1, 5))
def test_any_number_of_shares_holds_every_row_once_and_every_follower_with_its_predecessor(
    pairs: list[tuple[int, int]], injectors: int
) -> None:
    table = plan({"at_ms": 0.0 if turn == 0 else None, "session": session, "turn": turn} for session, turn in pairs)
    whole = PlanShare(table)
    seen: list[int] = []
    for k in range(injectors):
        share = PlanShare(table.filter(pa.array(table["session"].to_numpy() % injectors == k)))
        for position in range(len(share)):
            row, follower = share.row(position), share.follower(position)
            seen.append(row.index)
            after = whole.follower(row.index)  # in the whole plan the position is the index
            assert (follower is None) == (after is None)
            if follower is not None:
                next_row = share.row(follower)
                assert next_row.index == after
                assert (next_row.session, next_row.turn) == (row.session, row.turn + 1)
    assert sorted(seen) == list(range(len(pairs)))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.lists(st.integers(0, 12), max_size=8))
def test_a_share_that_grows_is_the_share_of_the_whole_plan(sessions: list[int], lengths: list[int]) -> None:
    taken: Counter[int] = Counter()
    rows = []
    for session in sessions:  # of interleaved sessions, as in a trace
        rows.append({"at_ms": None, "session": session, "turn": taken[session], "class": f"c{session}"})
        taken[session] += 1
    cuts = sorted(
        {0, len(rows), *(sum(lengths[: k + 1]) for k in range(len(lengths)) if sum(lengths[: k + 1]) < len(rows))}
    )
    pieces = iter([plan(rows).slice(a, b - a) for a, b in pairwise(cuts)])
    grown = PlanShare(next(pieces), 0, lambda _start, _count: next(pieces))
    starts = grown.session_starts().tolist()
    for _ in range(len(cuts) - 2):
        starts += grown.extend().tolist()
    whole = PlanShare(plan(rows))
    assert len(grown) == len(whole) == len(rows) and grown.endless and not whole.endless
    assert starts == whole.session_starts().tolist()
    for position in range(len(rows)):
        assert grown.row(position) == whole.row(position)
        assert grown.follower(position) == whole.follower(position)
        assert grown.class_of(position) == whole.class_of(position)
