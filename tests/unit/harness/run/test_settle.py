"""When a series of rounds counts as steady."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailgate.harness.run.warmup import WINDOW, is_steady


@pytest.mark.parametrize(
    ("rounds", "verdict"),
    [
        ([1.0] * (WINDOW - 1), False),
        ([1.0] * WINDOW, True),
        ([9.0, 4.0, *[1.0] * WINDOW], True),
        ([2.0, 1.8, 1.6, 1.4, 1.2, 1.0], False),
        ([1.0, 1.0, 1.0, 1.9, 1.0, 1.0], False),
        ([1.0, 1.01, 0.99, 1.02, 1.0, 0.98], True),
    ],
)
def test_steady_means_no_trend_and_no_late_hiccup(rounds: list[float], verdict: bool):
    assert is_steady(rounds) is verdict


@given(st.lists(st.floats(0.01, 10), min_size=WINDOW, max_size=20), st.sampled_from([0.25, 2.0, 1024.0]))
def test_steadiness_knows_no_unit(rounds: list[float], factor: float):
    assert is_steady(rounds) == is_steady([r * factor for r in rounds])
