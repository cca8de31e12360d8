"""The statistics against SciPy, enumeration and laws that must hold."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as truth

from reports.gate_design import FAIL_ERROR, PASS_ERROR_PAIRED, Design, second_tail
from reports.gate_stats import (
    detectable,
    drifting,
    fisher_more,
    hodges_lehmann,
    hodges_lehmann_shift,
    p_worse,
    paired,
    pairs_to_settle,
    rank_sum_p,
    shares,
    signed_rank_p,
    t_point,
    unpaired,
)

SMALL = st.lists(st.floats(-1, 1).filter(lambda x: abs(x) > 1e-3), min_size=3, max_size=9)


@given(SMALL)
def test_the_paired_p_value_is_scipys(d: list[float]):
    values = np.array(d) + np.linspace(0, 1e-3, len(d))  # never constant
    assert p_worse(paired(values)) == pytest.approx(truth.ttest_1samp(values, 0, alternative="greater").pvalue)


@given(SMALL, SMALL)
def test_the_unpaired_p_value_is_welchs(a: list[float], b: list[float]):
    x, y = (np.array(v) + np.linspace(0, 1e-3, len(v)) for v in (a, b))
    expected = truth.ttest_ind(y, x, equal_var=False, alternative="greater")
    found = unpaired(x, y)
    assert p_worse(found) == pytest.approx(expected.pvalue)
    assert found.df == pytest.approx(expected.df)


def test_differences_that_never_vary_decide_by_their_sign():
    assert p_worse(paired(np.zeros(5))) == 1.0
    assert p_worse(paired(np.full(5, 0.1))) == 0.0


@given(SMALL)
def test_wilcoxons_signed_rank_test_counts_every_assignment_of_signs(d: list[float]):
    values = np.array(d)
    ranks = truth.rankdata(np.abs(values))
    observed = ranks[values > 0].sum()
    sums = [
        sum(r for r, s in zip(ranks, signs, strict=True) if s) for signs in itertools.product([0, 1], repeat=len(d))
    ]
    assert signed_rank_p(values) == pytest.approx(np.mean([s >= observed - 1e-9 for s in sums]))


@given(st.lists(st.integers(0, 5), min_size=2, max_size=5), st.lists(st.integers(0, 5), min_size=2, max_size=5))
def test_wilcoxons_rank_sum_test_counts_every_choice(a: list[int], b: list[int]):
    x, y = np.array(a, float), np.array(b, float)
    ranks = truth.rankdata(np.concatenate([x, y]))
    observed = ranks[len(x) :].sum()
    sums = [sum(chosen) for chosen in itertools.combinations(ranks, len(y))]
    assert rank_sum_p(x, y) == pytest.approx(np.mean([s >= observed - 1e-9 for s in sums]))


def test_hodges_lehmann_is_the_median_of_pairwise_means_and_of_differences():
    assert hodges_lehmann(np.array([1.0, 2.0, 9.0])) == pytest.approx(3.5)  # of 1, 1.5, 2, 5, 5.5, 9
    assert hodges_lehmann_shift(np.array([0.0, 1.0]), np.array([2.0, 4.0])) == pytest.approx(2.5)


@given(st.integers(0, 30), st.integers(1, 30), st.integers(0, 30), st.integers(1, 30))
def test_the_exact_test_of_shares_is_fishers(h: int, n: int, k: int, m: int):
    h, k = min(h, n), min(k, m)
    expected = truth.fisher_exact([[k, m - k], [h, n - h]], alternative="greater").pvalue
    assert fisher_more((h, n), (k, m)) == pytest.approx(expected)


def test_counts_in_bursts_are_worth_less_than_as_many_independent_ones():
    even, bursts = shares([[(10, 1000)] * 5])[0], shares([[(50, 1000), (0, 1000), (0, 1000), (0, 1000), (0, 1000)]])[0]
    assert (even.inflation, even.effective) == (1.0, (50, 5000))
    assert bursts.inflation == pytest.approx(50.5, rel=0.01)
    assert bursts.effective == (1, 99)


def test_a_trend_that_both_sides_share_is_no_difference():
    at = np.arange(10.0)
    noise = np.random.default_rng(3).normal(0, 1e-4, 13)
    base, other = 0.02 * at + noise[:10], 0.02 * np.array([10.0, 11, 12]) + noise[10:]
    assert drifting(base, at, other, np.array([10.0, 11, 12])).mean == pytest.approx(0, abs=1e-3)
    assert unpaired(base, other).mean > 0.1


def test_what_would_settle_it_does_so_in_four_of_five_cases():
    deviation, margin = 0.0566, math.log(1.05)
    tails = 0.05, 0.025
    n = pairs_to_settle(deviation, 0.0, margin, tails)
    assert n is not None
    d = np.random.default_rng(5).normal(0, deviation, (20_000, n))
    found = paired(d)
    share = np.mean(found.mean + t_point(tails[0], n - 1) * found.error < margin)
    assert 0.78 < share < 0.85


def test_a_difference_as_large_as_the_margin_is_never_settled_as_a_pass():
    assert pairs_to_settle(0.05, math.log(1.05) - 1e-6, math.log(1.05), (0.05, 0.025)) is None


def test_a_detectable_effect_is_detected_in_four_of_five_cases():
    d = np.random.default_rng(6).normal(0, 0.05, (20_000, 8))
    effect = detectable(paired(np.array([0.05, -0.05] * 4) * math.sqrt(7 / 8)), 0.025)
    found = paired(d + effect)
    share = np.mean(found.mean - t_point(0.025, 7) * found.error > 0)
    assert 0.76 < share < 0.86


@pytest.mark.parametrize(("n", "total"), [(5, 10), (3, 6), (4, 5), (10, 20)])
def test_two_looks_together_spend_the_budget_and_no_more(n: int, total: int):
    budget = 0.05
    tail = second_tail(n, total, budget / 2, budget)
    z = np.random.default_rng(7).standard_normal((400_000, total))
    first, second = paired(z[:, :n]), paired(z)
    erred = (first.mean > t_point(budget / 2, n - 1) * first.error) | (
        second.mean > t_point(tail, total - 1) * second.error
    )
    assert np.mean(erred) == pytest.approx(budget, abs=0.0012)
    assert tail > budget / 2  # the looks share data: the second may spend more than the difference


def test_one_look_spends_all_of_the_budget():
    assert Design(5).pass_tail() == PASS_ERROR_PAIRED
    assert Design(5).fail_tail() == FAIL_ERROR
    assert Design(4, paired=False).pass_tail() == 0.05
    assert Design(5).fail_tail(2) == FAIL_ERROR / 2
