"""Arrival processes have the laws they name; truths are closed forms of renewal theory or of the spec itself."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from tailgate.workloads.arrivals.spec import ArrivalSpec, build
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.sampling.random_streams import RandomStream
from tailgate.workloads.statistics.arrivals import counts_in, dispersion, gap_cv

SPAN = 2000.0


def times(seed: int = 1, until: float = SPAN, span: float | None = None, **spec: Any) -> np.ndarray:
    process = build(ArrivalSpec.model_validate({"rate": "10/s"} | spec))
    return process.times_ns(partial(RandomStream, seed, "arrivals"), until, span or until) / 1e9


def test_constant_arrivals_are_equally_spaced_from_zero_on() -> None:
    assert times(process="constant", until=1.0).tolist() == pytest.approx([k / 10 for k in range(10)])


def test_poisson_gaps_are_exponential_with_the_asked_mean() -> None:
    gaps = np.diff(times(process="poisson"))
    assert stats.kstest(gaps, "expon", args=(0, 0.1)).pvalue > 1e-3


@pytest.mark.parametrize("shape", [0.35, 0.5, 2.0])  # below 0.3, 1 ns is coarse against the law
def test_gamma_gaps_have_the_coefficient_of_variation_of_their_shape(shape: float) -> None:
    gaps = np.diff(times(process="gamma", shape=shape))
    assert gaps.mean() == pytest.approx(0.1, rel=0.05)
    assert stats.kstest(gaps, "gamma", args=(shape, 0, 0.1 / shape)).pvalue > 1e-3


def test_weibull_gaps_are_weibull_with_the_asked_mean() -> None:
    gaps = np.diff(times(process="weibull", shape=0.6))
    assert gaps.mean() == pytest.approx(0.1, rel=0.07)
    assert stats.kstest(gaps, "weibull_min", args=(0.6, 0, 0.1 / stats.weibull_min.mean(0.6))).pvalue > 1e-3


@pytest.mark.parametrize(("process", "shape"), [("gamma", 0.1), ("gamma", 0.5), ("weibull", 0.5)])
def test_a_process_is_stationary_from_its_start(process: str, shape: float) -> None:
    # Ordinary renewal processes begin with an arrival, and bursty ones then with a crowd: (CV^2 - 1)/2 too many.
    first_second = [int((times(seed, 1.0, process=process, shape=shape) < 1.0).sum()) for seed in range(1500)]
    error = np.std(first_second) / np.sqrt(1500)
    assert abs(np.mean(first_second) - 10.0) < 4 * error


def test_gammas_dispersion_tends_to_one_over_its_shape() -> None:
    found = dispersion(times(process="gamma", shape=0.25), 20.0, SPAN)
    assert found.low is not None and found.high is not None
    assert found.low < 4.0 < found.high


def test_modulation_makes_the_dispersion_grow_with_the_window() -> None:
    spec = {"process": "poisson", "modulation": [{"cv": 0.5, "correlation": "50s"}]}
    values = [np.mean([dispersion(times(s, **spec), w, SPAN).value or 0 for s in range(12)]) for w in (1, 10, 50)]
    # 1 + rate * w * variance of the rate's mean over w (Ornstein-Uhlenbeck: 2 (x - 1 + e^-x) / x^2, x = w / 50)
    expected = [1 + 10 * w * 0.25 * 2 * (w / 50 - 1 + np.exp(-w / 50)) / (w / 50) ** 2 for w in (1, 10, 50)]
    assert values == pytest.approx(expected, rel=0.35)
    assert values[0] < values[1] < values[2]


def test_a_random_rate_has_the_asked_mean_over_its_span() -> None:
    spec = {"process": "constant", "modulation": [{"cv": 0.8, "correlation": "200s"}]}
    assert len(times(3, **spec)) == pytest.approx(10 * SPAN, abs=2)


def test_bursts_and_pauses_have_the_asked_lengths() -> None:
    from tailgate.workloads.statistics.arrivals import on_off

    found = on_off(times(2, 20_000.0, process="constant", bursts={"burst": 20, "pause": 30}), gap_s=10)
    assert np.median(found.on_s) == pytest.approx(20, abs=0.5)
    assert np.median(found.off_s) == pytest.approx(30, abs=0.5)
    assert found.duty == pytest.approx(0.4, abs=0.02)


def test_pauses_that_leave_too_little_of_the_rate_are_refused() -> None:
    with pytest.raises(UserError, match="on for too little of the 10 s to reach 10 requests/s"):
        times(1, 10.0, bursts={"burst": 1, "pause": 500})


def test_stages_are_ramped_and_held_as_written() -> None:
    stages = [{"rate": "10/s", "for": "100s"}, {"rate": "50/s", "for": "100s", "ramp": "50s"}]
    found = times(rate=None, process="constant", stages=stages, until=200.0)
    counts = counts_in(found, 50.0, 4)
    assert counts.tolist() == pytest.approx([500, 500, 50 * 30, 2500], abs=3)


def test_a_spike_rises_holds_and_decays() -> None:
    found = times(process="constant", until=400.0, spike={"at": 100, "factor": 5, "rise": 50, "hold": 50, "decay": 100})
    assert counts_in(found, 50.0, 8).tolist() == pytest.approx([500, 500, 1500, 2500, 2000, 1000, 500, 500], abs=3)


def test_a_day_has_its_hours_its_weekday_and_its_mean() -> None:
    hours = [1.0] * 12 + [3.0] * 12
    days = [1, 1, 1, 1, 1, 0.5, 0.5]
    found = times(process="constant", until=7 * 240.0, daily={"hours": hours, "days": days, "day": 240})
    counts = counts_in(found, 240.0, 7)
    assert len(found) == pytest.approx(10 * 7 * 240, rel=0.01)
    assert counts[0] / counts[6] == pytest.approx(2.0, rel=0.02)
    night, noon = counts_in(found, 10.0, 24)[[5, 18]]
    assert noon / night == pytest.approx(3.0, rel=0.03)


def test_a_day_can_begin_at_any_hour() -> None:
    hours = [0.0] * 12 + [2.0] * 12
    found = times(process="constant", until=240.0, daily={"hours": hours, "day": 240, "start_hour": 13})
    assert counts_in(found, 10.0, 24)[[0, 5, 14, 23]].tolist() == pytest.approx([200, 200, 0, 175], abs=30)


def test_clients_shares_fall_by_their_skew_and_add_up_to_the_rate() -> None:
    assert len(times(process="poisson", clients={"count": 50, "skew": 1.2})) == pytest.approx(10 * SPAN, rel=0.03)


def test_a_few_bursty_clients_make_the_whole_bursty() -> None:
    calm = gap_cv(times(process="poisson", clients={"count": 20, "skew": 1.0}))
    wild = gap_cv(times(process="gamma", clients={"count": 20, "skew": 1.0, "shapes": 0.05}))
    assert calm == pytest.approx(1.0, abs=0.05)
    assert wild is not None and wild > 1.3


PROCESSES = [
    {"process": "poisson"},
    {"process": "gamma", "shape": 0.3},
    {"process": "weibull", "shape": 0.7, "modulation": [{"cv": 0.4, "correlation": 20}]},
    {"process": "poisson", "bursts": {"burst": "exponential(20)", "pause": "exponential(20)", "pause_level": 0.5}},
    {"process": "gamma", "clients": {"count": 5, "skew": 1, "shapes": "uniform(1, 3)"}},
]


@settings(max_examples=25, deadline=None)
@example(537, {"process": "gamma", "shape": 0.3}, 1.0)  # 1 ns off, when the last cell's end counted
@given(st.integers(0, 2**31), st.sampled_from(PROCESSES), st.floats(1.0, 300.0))
def test_a_longer_look_only_appends(seed: int, spec: dict[str, Any], more: float) -> None:
    short = times(seed, 100.0, 100.0, **spec)
    long = times(seed, 100.0 + more, 100.0, **spec)
    assert np.array_equal(short, long[: len(short)])
    assert (np.diff(long) >= 0).all()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"process": "gamma"}, "needs `shape`"),
        ({"process": "poisson", "shape": 2}, "not for poisson"),
        ({"process": "gama", "shape": 2}, "'constant', 'poisson', 'gamma' or 'weibull'"),
        ({"stages": [{"rate": 1, "for": 1}]}, "leave `rate` out"),
        ({"rate": None, "stages": [{"rate": 1, "for": 10, "ramp": 20}]}, "doesn't fit"),
        ({"daily": {"hours": [1] * 23}}, "24 items"),
        ({"bursts": {"burst": "often", "pause": 1}}, "expected '\\('"),
    ],
)
def test_what_doesnt_fit_together_is_refused(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ArrivalSpec.model_validate({"rate": "10/s"} | spec)
