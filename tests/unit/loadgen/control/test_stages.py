"""How many users there are at which time."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailgate.loadgen.control.stages import Stage, moments, users_at

S = 1_000_000_000
THREE = (Stage(8, 60 * S), Stage(64, 300 * S, ramp_ns=30 * S), Stage(0, 10 * S, ramp_ns=4 * S))
STAGES = st.lists(
    st.builds(
        lambda users, seconds, share: Stage(users, seconds * S, int(seconds * S * share)),
        st.integers(0, 1000), st.integers(1, 100), st.floats(0, 1),
    ), min_size=1, max_size=5,
)  # fmt: skip


@pytest.mark.parametrize(
    ("second", "users"), [(0, 8), (59.9, 8), (60, 8), (75, 36), (90, 64), (359, 64), (360, 64), (362, 32), (364, 0)]
)
def test_users_follow_the_stages_in_straight_lines(second: float, users: int) -> None:
    assert users_at(THREE, int(second * S)) == users


def test_a_ramp_starts_from_what_was_there_before() -> None:
    assert users_at((Stage(10, 10 * S, 10 * S),), 5 * S) == 5
    assert users_at((Stage(10, 10 * S, 10 * S),), 5 * S, before=20) == 15


@given(STAGES, st.integers(0, 600 * S))
def test_users_stay_between_the_neighbouring_stages(stages: list[Stage], t_ns: int) -> None:
    levels = [0, *(stage.users for stage in stages)]
    begin = 0
    for before, stage in zip(levels, stages, strict=False):
        if begin <= t_ns < begin + stage.for_ns:
            assert min(before, stage.users) <= users_at(stages, t_ns) <= max(before, stage.users)
        begin += stage.for_ns
    if t_ns >= begin:
        assert users_at(stages, t_ns) == levels[-1]


@given(STAGES)
def test_without_ramps_nothing_changes_between_two_moments(stages: list[Stage]) -> None:
    flat = [Stage(stage.users, stage.for_ns) for stage in stages]
    at = moments(flat)
    for here, after in pairwise(at):
        assert users_at(flat, after - 1) == users_at(flat, here)


def test_a_ramp_has_a_moment_every_second_and_one_at_its_end() -> None:
    ramped = (Stage(8, 5 * S), Stage(20, 60 * S, ramp_ns=5 * S // 2))
    assert [t / S for t in moments(ramped)] == [0, 5, 6, 7, 7.5]
