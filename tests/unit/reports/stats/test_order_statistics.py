"""Floors, intervals and effective sample sizes: exact where a formula exists, covering where one is claimed."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as truth

from tailgate.reports.stats import order_statistics


@pytest.mark.parametrize(("q", "needs"), [(50, 5), (90, 29), (95, 59), (99, 299), (99.9, 2995), (5, 59)])
def test_a_percentile_needs_as_many_requests_as_its_one_sided_bound(q, needs):
    assert order_statistics.floor(q) == needs
    assert order_statistics.quantile(np.arange(float(needs)), q).value is not None
    short = order_statistics.quantile(np.arange(float(needs - 1)), q)
    assert (short.value, short.needs) == (None, needs)


def test_autocorrelation_raises_the_floor():
    found = order_statistics.quantile(np.geomspace(1.0, 1000.0, 600), 99, n_eff=200.0)
    assert (found.value, found.needs) == (None, 897)  # 299 * 3


def test_a_series_that_is_as_good_as_constant_keeps_its_floor():
    drifting = np.linspace(50.0, 50.6, 600)  # wanders, but by about a hundredth
    assert order_statistics.quantile(drifting, 99, n_eff=20.0).value == pytest.approx(50.6, abs=0.01)
    assert order_statistics.quantile(drifting, 99, n_eff=20.0).high is None  # its interval stays honest
    bursts = np.concatenate([np.full(580, 50.0), np.full(20, 90.0)])
    assert order_statistics.quantile(bursts, 99, n_eff=20.0).value is None


@settings(max_examples=50, deadline=None)
@given(st.integers(100, 3000), st.floats(0.001, 0.05))
def test_the_share_beyond_a_limit_is_bounded_as_clopper_and_pearson_do(n, share):
    hits = round(share * n)
    series = np.random.default_rng(1).permutation(np.concatenate([np.full(n - hits, 10.0), np.full(hits, 100.0)]))
    low, high = order_statistics.tail_bounds(series, 50.0, inclusive=False)
    exact_low, exact_high = order_statistics.share_bounds(hits, n)
    assert low <= exact_low + 1e-9
    assert high >= exact_high - 1e-9


def test_nothing_near_the_limit_counts_every_request():
    # wandering between 10 and 14 ms, a limit of 800 ms: 299 requests without one beyond it certify a p99
    series = 12 + 2 * np.sin(np.arange(299) / 30)
    assert order_statistics.tail_bounds(series, 800.0, inclusive=True)[1] < 0.01
    assert order_statistics.tail_bounds(series[:-1], 800.0, inclusive=True)[1] > 0.01


def test_a_burst_near_the_limit_counts_as_one():
    calm, burst = np.full(900, 10.0), np.full(100, 700.0)
    together = np.concatenate([calm, burst])
    apart = np.random.default_rng(2).permutation(together)
    assert (
        order_statistics.tail_bounds(together, 800.0, inclusive=True)[1]
        > order_statistics.tail_bounds(apart, 800.0, inclusive=True)[1]
    )


def test_a_two_sided_p99_interval_has_no_upper_end_below_368_requests():
    assert order_statistics.quantile(np.arange(367.0), 99).high is None
    assert order_statistics.quantile(np.arange(368.0), 99).high == 367.0


@settings(max_examples=150, deadline=None)
@given(n=st.integers(5, 20_000), q=st.sampled_from([50.0, 90.0, 95.0, 99.0, 99.9]))
def test_interval_ranks_are_the_binomial_ones(n, q):
    found = order_statistics.quantile(np.arange(1.0, n + 1), q)
    if found.value is None:
        assert n < order_statistics.floor(q)
        return
    assert found.value == math.ceil(round(q * n / 100, 6))
    binomial = truth.binom(n, q / 100)
    if found.low is not None:
        assert binomial.cdf(found.low - 1) <= 0.025 + 1e-9
        assert binomial.cdf(found.low) > 0.025 - 1e-9
    if found.high is not None:
        assert binomial.cdf(found.high - 1) >= 0.975 - 1e-9
        assert binomial.cdf(found.high - 2) < 0.975 + 1e-9
    assert found.above is None or binomial.cdf(found.above - 1) >= 0.95 - 1e-9


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 5000), share=st.floats(0, 1))
def test_bounds_of_a_share_are_those_of_clopper_and_pearson(n, share):
    hits = round(share * n)
    low, high = order_statistics.share_bounds(hits, n)
    assert low == pytest.approx(truth.beta.ppf(0.05, hits, n - hits + 1) if hits else 0.0, abs=1e-6)
    assert high == pytest.approx(truth.beta.ppf(0.95, hits + 1, n - hits) if hits < n else 1.0, abs=1e-6)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 9, 30, 200])
def test_students_t_is_close_enough(df):
    assert order_statistics.t_quantile(0.975, df) == pytest.approx(truth.t.ppf(0.975, df), rel=5e-3)


def test_students_t_between_few_degrees_of_freedom_errs_to_the_wide_side():
    assert order_statistics.t_quantile(0.975, 1.7) == pytest.approx(truth.t.ppf(0.975, 1))


def test_an_independent_series_keeps_its_size():
    rng = np.random.default_rng(2)
    kept = [order_statistics.effective_size(rng.standard_normal(1000)) == 1000 for _ in range(400)]
    assert np.mean(kept) >= 0.93


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_the_effective_size_of_an_autoregressive_series_is_that_of_theory(rho):
    # For AR(1) the variance of the mean is inflated by (1 + rho) / (1 - rho).
    found = [1 / order_statistics.effective_size(x) for x in autoregressive(300, 4000, rho, seed=4)]
    assert 4000 * np.mean(found) == pytest.approx((1 + rho) / (1 - rho), rel=0.35)


def autoregressive(runs, n, rho, seed):
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((n, runs))
    x = np.empty((n, runs))
    x[0] = noise[0]
    for i in range(1, n):
        x[i] = rho * x[i - 1] + math.sqrt(1 - rho * rho) * noise[i]
    return x.T


# Runs of 2,000 whose sample supports the percentile, and those whose interval has both ends, in per cent.
@pytest.mark.parametrize(
    ("rho", "at_least", "given", "two_sided"),
    [
        (0.0, 0.93, {50.0: 100, 95.0: 100, 99.0: 100}, {50.0: 100, 95.0: 100, 99.0: 100}),
        (0.5, 0.90, {50.0: 100, 95.0: 100, 99.0: 99}, {50.0: 100, 95.0: 100, 99.0: 99}),
        (0.9, 0.90, {50.0: 100, 95.0: 99, 99.0: 45}, {50.0: 100, 95.0: 99, 99.0: 25}),
    ],
)
def test_intervals_cover_the_truth(rho, at_least, given, two_sided):
    """2,000 runs of 2,000 requests with lognormal latency: two-sided 95 % intervals of p50, p95 and p99.

    An interval without an upper end covers all above its lower one: those with both ends are judged apart.
    """
    hits, told = dict.fromkeys((50.0, 95.0, 99.0), 0), dict.fromkeys((50.0, 95.0, 99.0), 0)
    closed_hits, closed = dict.fromkeys(hits, 0), dict.fromkeys(hits, 0)
    for series in np.exp(0.5 * autoregressive(2000, 2000, rho, seed=7)):
        ordered = np.sort(series)
        for q in hits:
            found = order_statistics.quantile(ordered, q, order_statistics.effective_size_at(series, ordered, q))
            if found.value is None:
                continue
            known = math.exp(0.5 * truth.norm.ppf(q / 100))
            covers = (found.low or 0.0) <= known <= (math.inf if found.high is None else found.high)
            told[q] += 1
            hits[q] += covers
            if found.low is not None and found.high is not None:
                closed[q] += 1
                closed_hits[q] += covers
    for q in hits:
        assert told[q] / 20 >= given[q], q
        assert closed[q] / 20 >= two_sided[q], q
        assert hits[q] / told[q] >= at_least, q
        assert closed_hits[q] / closed[q] >= at_least, q


def test_the_mean_of_an_autocorrelated_series_is_covered():
    hits = 0
    for series in autoregressive(1000, 1000, 0.5, seed=9):
        low, high = order_statistics.mean_interval(series)
        hits += low <= 0 <= high
    assert hits / 1000 >= 0.90


def test_failures_at_infinity_stay_at_infinity():
    ordered = np.concatenate([np.arange(980.0), np.full(20, np.inf)])
    found = order_statistics.quantile(ordered, 99)
    assert math.isinf(found.value)
    assert math.isinf(found.high)
    assert order_statistics.mean_interval(ordered) is None
