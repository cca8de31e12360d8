"""A shift at the ends of its values: no value between the ends gives more or less."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tailgate.reports.stats.between_runs import at_ends, drifting, paired, unpaired

NIGHTS = np.repeat(np.arange(4.0), 5)


@given(st.integers(0, 2), st.data())
def test_no_values_between_the_ends_go_beyond(kind: int, data: st.DataObject) -> None:
    n, m = (20, 5) if kind == 2 else (6, 6)
    shift_of = [
        lambda z: paired(z[n:] - z[:n]),
        lambda z: unpaired(z[:n], z[n:]),
        lambda z: drifting(z[:n], NIGHTS, z[n:], np.full(m, 4.0)),
    ][kind]
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    values = rng.normal(size=n + m)
    low, high = values - rng.exponential(size=n + m), values + rng.exponential(size=n + m)
    least, most = at_ends(shift_of, values, low, high)
    for _ in range(20):
        between = float(shift_of(rng.uniform(low, high)).mean)
        assert least.mean - 1e-9 <= between <= most.mean + 1e-9
