"""Figures of arrivals against SciPy, closed forms and simulations."""

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tailgate.workloads.config.workload import WorkloadSpec
from tailgate.workloads.plan.plan import make_plan
from tailgate.workloads.statistics.arrivals import (
    dispersion,
    gap_cv,
    ks_distance,
    mean_ranks,
    on_off,
    peak_to_mean,
    spearman,
)
from tailgate.workloads.statistics.prefix_reuse import lru_curve

small = st.lists(st.integers(0, 30), min_size=3, max_size=60)


def test_equally_spaced_arrivals_have_no_dispersion_and_no_variation() -> None:
    times = np.arange(1000) * 0.1 + 0.01
    assert dispersion(times, 1.0, 100.0).value == 0.0
    assert gap_cv(times) == pytest.approx(0.0, abs=1e-9)
    assert peak_to_mean(times, 10.0, 100.0) == 1.0


def test_the_interval_of_a_poisson_dispersion_covers_one_in_95_of_100_cases() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        found = dispersion(np.sort(rng.uniform(0, 100, rng.poisson(2000))), 1.0, 100.0)
        covered += found.low <= 1.0 <= found.high if found.low is not None and found.high is not None else 0
    assert 0.93 < covered / 1000 < 0.97


def test_too_few_windows_have_no_dispersion() -> None:
    assert dispersion(np.array([1.0, 2.0]), 1.0, 5.0).value is None


@given(small, small)
def test_the_ks_distance_is_scipys(a: list[int], b: list[int]) -> None:
    ours = ks_distance(np.array(a), np.array(b))
    assert ours == pytest.approx(stats.ks_2samp(a, b, method="asymp").statistic)


@given(small)
def test_ranks_are_scipys(values: list[int]) -> None:
    assert mean_ranks(np.array(values)).tolist() == stats.rankdata(values).tolist()


def test_the_rank_correlation_is_scipys() -> None:
    rng = np.random.default_rng(2)
    a = rng.integers(0, 50, 500)
    b = a + rng.integers(0, 80, 500)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_bursts_are_told_from_pauses() -> None:
    times = np.concatenate([np.arange(0, 10, 0.5), np.arange(30, 45, 0.5), np.arange(100, 105, 0.5)])
    found = on_off(times, 5.0)
    assert found.on_s.tolist() == [9.5, 14.5, 4.5] and found.off_s.tolist() == [20.5, 55.5]
    assert found.duty == pytest.approx(28.5 / 104.5)


def test_the_cache_curve_is_that_of_a_simulated_least_recently_used_cache() -> None:
    plan = make_plan(
        WorkloadSpec.model_validate(
            {
                "prompt_tokens": 640, "output_tokens": 1, "arrivals": {"rate": 10}, "duration": 200,
                "prefix": {"shared": {"pool": 400, "popularity": 0.8, "share": "uniform(0, 1)"}},
            }
        ),
        1,
    )  # fmt: skip
    ids = plan.table["prefix_blocks"].combine_chunks().flatten().to_numpy()
    sizes, hits = lru_curve(ids)
    for size in (200, 800, 2000):
        cache: OrderedDict[int, None] = OrderedDict()
        found = 0
        for block in ids.tolist():
            found += block in cache
            cache[block] = None
            cache.move_to_end(block)
            if len(cache) > size:
                cache.popitem(last=False)
        assert np.interp(size, sizes, hits) == pytest.approx(found / len(ids), abs=0.02)


def test_blocks_that_never_come_back_have_no_curve() -> None:
    assert len(lru_curve(np.arange(100))[0]) == 0
