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
from tailgate.workloads.statistics.prefix_reuse import implied_reuse, lru_curve, lru_hit_tokens

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


@pytest.mark.parametrize("cache_tokens", [60_000, 200_000, 800_000])
def test_prompts_find_what_a_simulated_cache_of_that_size_holds(cache_tokens: int) -> None:
    plan = make_plan(WorkloadSpec.model_validate({"profile": "chat", "duration": "20m"}), 3)
    table, size = plan.table, plan.block_tokens
    found = lru_hit_tokens(table, size, cache_tokens)
    cache: OrderedDict[object, None] = OrderedDict()
    hits, at = 0, table["at_ns"].to_pylist()
    when, clock = [], 0
    for time, think in zip(at, table["think_ns"].to_pylist(), strict=True):
        clock = time if time is not None else clock + think
        when.append(clock)
    rows = table.select(["prefix_blocks", "prompt_tokens", "output_tokens"]).to_pylist()
    for k in np.argsort(when, kind="stable").tolist():
        prompt, whole = rows[k]["prompt_tokens"], rows[k]["prompt_tokens"] // size
        blocks = [tuple(rows[k]["prefix_blocks"][: n + 1]) for n in range(min(whole, len(rows[k]["prefix_blocks"])))]
        there = next((n for n, block in enumerate(blocks) if block not in cache), len(blocks))
        hits += min(there * size, prompt - 1) // 16 * 16
        alone = (prompt + rows[k]["output_tokens"]) // size - len(blocks)
        for block in [*blocks, *((k, n) for n in range(alone))]:
            cache[block] = None
            cache.move_to_end(block)
        while len(cache) > cache_tokens // size:
            cache.popitem(last=False)
    total = int(table["prompt_tokens"].to_numpy().sum())
    assert hits / total > 0.05
    assert found.sum() / total == pytest.approx(hits / total, abs=0.03)


def test_a_cache_that_holds_everything_finds_what_is_implied_in_whole_blocks() -> None:
    plan = make_plan(WorkloadSpec.model_validate({"profile": "rag", "duration": "5m"}), 3)
    found = lru_hit_tokens(plan.table, plan.block_tokens, 10**12)
    implied = implied_reuse(plan.table, plan.block_tokens, 16).hit_tokens
    assert (found <= implied).all() and (implied - found < plan.block_tokens).all() and found.sum() > 0


def test_nothing_is_found_where_nothing_is_shared_or_no_room() -> None:
    alone = make_plan(WorkloadSpec.model_validate({"profile": "api-burst", "duration": "1m"}), 3)
    assert not lru_hit_tokens(alone.table, 64, 10**9).any()
    shared = make_plan(WorkloadSpec.model_validate({"profile": "rag", "duration": "1m"}), 3)
    assert not lru_hit_tokens(shared.table, shared.block_tokens, 0).any()
