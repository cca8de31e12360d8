"""Who hangs up, and when, is a function of seed and row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailgate.loadgen.injector.api.request_builder import Patience


@given(st.integers(0, 2**40), st.integers(0, 2**32))
def test_patience_is_a_function_of_seed_and_row(index: int, seed: int) -> None:
    one, two = Patience("lognormal(1, 1)", 0.7, seed), Patience("lognormal(1, 1)", 0.7, seed)
    two.ns(index + 1)  # no state between rows
    assert one.ns(index) == two.ns(index)


def test_share_and_law_are_kept_over_many_rows() -> None:
    patience = Patience("exponential(5)", 0.3, 11)
    drawn = [patience.ns(k) for k in range(8_000)]
    waits = np.array([wait for wait in drawn if wait is not None]) / 1e9
    # Binomial and exponential standard errors, five of them.
    assert abs(len(waits) / 8_000 - 0.3) < 5 * (0.3 * 0.7 / 8_000) ** 0.5
    assert waits.mean() == pytest.approx(5.0, rel=5 / len(waits) ** 0.5)
