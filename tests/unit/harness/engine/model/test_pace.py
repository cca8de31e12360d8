"""What makes one step unlike another: seeded, of mean 1, and nothing where it is off."""

import numpy as np
import pytest

from tailgate.harness.engine.model.pace import StepPace, Variation
from tailgate.harness.engine.model.step_law import StepShape

STEP = StepShape()


class Tenth:
    """Every step takes 0.1 s."""

    def seconds(self, _step: StepShape) -> float:
        return 0.1


def lengths(pace: StepPace, count: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """How long steps take, one after the other."""
    now, ends = 0.0, [0.0]
    for _ in range(count):
        now = pace.end(now, STEP)
        pace.advance()
        ends.append(now)
    return np.diff(ends)


def test_by_default_a_step_takes_what_the_model_says() -> None:
    assert StepPace(Tenth()).end(1.5, STEP) == 1.5 + 0.1


def test_jitter_is_seeded_lognormal_of_mean_one_and_drawn_once_a_step() -> None:
    pace = StepPace(Tenth(), Variation(jitter=0.2), seed=4)
    assert pace.end(0.0, STEP) == pace.end(0.0, STEP)
    factors = lengths(pace, 20_000) / 0.1
    assert abs(factors.mean() - 1) < 0.01 and abs(np.log(factors).std() - 0.2) < 0.01
    assert np.array_equal(factors[:100], lengths(StepPace(Tenth(), Variation(jitter=0.2), seed=4), 100) / 0.1)
    assert not np.array_equal(factors[:100], lengths(StepPace(Tenth(), Variation(jitter=0.2), seed=5), 100) / 0.1)


def test_launches_differ_by_a_factor_that_each_keeps() -> None:
    launches = [lengths(StepPace(Tenth(), Variation(launch_spread=0.1), launch=k), 3) for k in range(400)]
    assert all(np.allclose(launch, launch[0]) for launch in launches)
    spread = np.log([launch[0] for launch in launches]).std()
    assert 0.09 < spread < 0.11


def test_drift_is_slow() -> None:
    steps = lengths(StepPace(Tenth(), Variation(drift=0.1)), 20_000)
    assert 0.05 < np.log(steps / 0.1).std() < 0.12
    assert np.abs(np.diff(np.log(steps))).max() < 0.003


def test_stalls_come_at_equal_times_and_lengthen_the_step_that_they_fall_into() -> None:
    steps = lengths(StepPace(Tenth(), Variation(stall_every_s=1.05, stall_s=0.5)), 40)
    stalled = np.isclose(steps, 0.6)
    assert np.isclose(steps[~stalled], 0.1).all()
    assert stalled.sum() == int(steps.sum() / 1.05)


def test_a_slow_start_is_over_when_it_is_over() -> None:
    pace = StepPace(Tenth(), Variation(slow_start_s=10.0), launched_s=100.0)
    taken = [pace.end(100.0 + at, STEP) - 100.0 - at for at in (0.0, 5.0, 10.0, 50.0)]
    assert taken == pytest.approx([0.3, 0.2, 0.1, 0.1])


def test_half_the_speed_takes_twice_as_long() -> None:
    pace = StepPace(Tenth())
    pace.speed = 0.5
    assert pace.end(0.0, STEP) == 0.2
