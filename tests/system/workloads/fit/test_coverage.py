"""Intervals of a fit cover the truth as often as they say: simulated many times."""

import numpy as np
import pytest
from tests.kit.fits import covered, fitted, holds, times_ns

from tailgate.workloads.config.workload import WorkloadSpec
from tailgate.workloads.fit.sessions import fit_sessions
from tailgate.workloads.plan.plan import make_plan
from tailgate.workloads.table.columns import stateless


def test_rate_and_shape_of_a_renewal_process_are_covered_by_their_intervals() -> None:
    found = [fitted(times_ns(seed, 10.0, 0.7)) for seed in range(40)]
    assert all(one.cv is None for one in found[:35])
    assert covered([holds(one.rate, 10.0) for one in found])
    assert covered([holds(one.shape, 0.7) for one in found])


@pytest.mark.parametrize(
    ("shape", "rate", "tick_ns"), [(0.94, 5.0, 1_000_000), (0.5, 20.0, 1000), (0.3, 5.0, 100), (0.3, 5.0, 1_000_000)]
)
def test_the_shape_is_covered_whatever_the_resolution_of_stamps(shape: float, rate: float, tick_ns: int) -> None:
    found = [fitted(times_ns(seed, rate, shape), tick_ns) for seed in range(40)]
    assert covered([holds(one.shape, shape) for one in found])
    assert np.mean([one.shape.value for one in found if one.shape]) == pytest.approx(shape, rel=0.01)


def test_a_modulation_is_covered_by_its_intervals() -> None:
    found = [fitted(times_ns(seed, 10.0, 0.7, 0.4, 30.0)) for seed in range(40)]
    for name, truth in (("rate", 10.0), ("shape", 0.7), ("cv", 0.4), ("correlation_s", 30.0)):
        assert covered([holds(getattr(one, name), truth) for one in found]), name


def test_a_rate_that_changes_faster_than_counts_tell_has_its_dispersion_and_a_true_interval_of_the_mean() -> None:
    found = [fitted(times_ns(seed, 5.0, 1.0, 0.5, 5.0)) for seed in range(40)]
    assert covered([holds(one.rate, 5.0) for one in found])
    assert np.mean([one.rate.value for one in found]) == pytest.approx(5.0, rel=0.01)
    assert all(one.cv is not None and not one.cv.known for one in found)
    assert np.median([one.cv.value for one in found if one.cv]) == pytest.approx(0.5, rel=0.1)
    assert np.median([one.correlation_s.value for one in found if one.correlation_s]) == pytest.approx(5.0, rel=0.2)


def test_turns_and_pauses_are_covered_though_the_log_cuts_conversations() -> None:
    hits: dict[str, list[bool]] = {"turns": [], "think_s": []}
    for seed in range(12):
        spec = WorkloadSpec.model_validate(
            {
                "prompt_tokens": 100,
                "output_tokens": 100,
                "sessions": {"turns": "uniform(1, 8)", "think": "lognormal(4.885, 0.984)", "pace": "clock"},
                "arrivals": {"rate": "0.5/s"},
                "duration": "1h",
            }
        )
        table = make_plan(spec, seed).table
        names = ("at_ns", "session", "turn", "prompt_tokens", "output_tokens")
        found = fit_sessions(stateless(len(table), **{name: table[name].to_numpy().astype(np.int64) for name in names}))
        assert found is not None
        hits["turns"].append(holds(found.turns, 4.5))
        hits["think_s"].append(holds(found.think_s, float(np.exp(4.885))))
    assert covered(hits["turns"]) and covered(hits["think_s"])
