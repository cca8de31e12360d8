"""The statistics against SciPy, enumeration and laws that must hold."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as truth

from tailgate.reports.stats.between_runs import (
    Shift,
    detectable,
    drifting,
    hodges_lehmann,
    hodges_lehmann_shift,
    p_worse,
    paired,
    pairs_to_settle,
    rank_sum_p,
    signed_rank_p,
    t_point,
    unpaired,
)
from tailgate.reports.stats.proportions import counts, fisher_more, p_more, shares
from tailgate.reports.stats.sequential_design import FAIL_ERROR, PASS_ERROR_PAIRED, Design, second_tail
from tailgate.reports.verdicts.gate.operating_curve import decide

MARGIN = math.log1p(0.05)
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


BURST = [(50, 1000), (0, 1000), (0, 1000), (0, 1000), (0, 1000)]


def test_counts_in_bursts_are_worth_less_than_as_many_independent_ones():
    (even,), (bursts,) = (shares([[counts(runs)]]) for runs in ([(10, 1000)] * 5, BURST))
    assert (even.dispersion, even.share) == (0.0, bursts.share)
    assert bursts.dispersion == pytest.approx(50.5, rel=0.01)
    assert even.bounds(0.025)[1] < 0.02
    assert bursts.bounds(0.025)[1] > 0.05


def test_bounds_allow_for_the_few_runs_that_the_dispersion_comes_from():
    """Twice the dispersion that chance has, from five runs of each side: 2 * (t / z)^2 times fewer requests."""
    (found,) = shares([[counts([(10, 1000), (14, 1000), (6, 1000), (10, 1000), (14, 1000)])]])
    few = (truth.t.isf(0.025, 4) / truth.norm.isf(0.025)) ** 2
    inflation = found.dispersion * few
    expected = truth.beta.isf(0.025, round(54 / inflation) + 1, round(5000 / inflation) - round(54 / inflation))
    assert found.bounds(0.025)[1] == pytest.approx(expected, rel=1e-4)


def test_more_hits_need_both_the_exact_test_and_the_runs_to_say_so():
    quiet, even = counts([(0, 1000)] * 5), counts([(10, 1000)] * 5)
    assert p_more([[quiet, even]]) == pytest.approx(fisher_more((0, 5000), (50, 5000)))
    in_bursts = p_more([[quiet, counts(BURST)]])
    assert in_bursts == pytest.approx(
        truth.ttest_ind([50, 0, 0, 0, 0], [0] * 5, alternative="greater").pvalue, rel=0.02
    )


def test_a_trend_that_both_sides_share_is_no_difference():
    at = np.arange(10.0)
    noise = np.random.default_rng(3).normal(0, 1e-4, 13)
    base, other = 0.02 * at + noise[:10], 0.02 * np.array([10.0, 11, 12]) + noise[10:]
    assert drifting(base, at, other, np.array([10.0, 11, 12])).mean == pytest.approx(0, abs=1e-3)
    assert unpaired(base, other).mean > 0.1


def decided(effect: float, deviation: float, n: int) -> tuple[float, float]:
    """How often simulated pairs PASS and FAIL: by the very code that the operating curve decides with."""
    d = effect + deviation * np.random.default_rng(5).standard_normal((40_000, n))
    found = decide([(d, MARGIN)], Design(n))
    return float(found.passed.mean()), float(found.failed.mean())


@pytest.mark.parametrize("spread", [0.02, 0.04, 0.08])
@pytest.mark.parametrize("effect", [0.0, 0.02, 0.06, 0.075, 0.10])
def test_what_would_settle_it_does_so_in_four_of_five_cases(spread: float, effect: float):
    mean, deviation = math.log1p(effect), spread * math.sqrt(2)
    design = Design(5)
    n = pairs_to_settle(deviation, mean, MARGIN, (design.pass_tail(), design.fail_tail()))
    if n is None:
        assert effect == 0.06 and spread == 0.08  # too near the margin for so much noise
        return
    right = decided(mean, deviation, n)[effect > 0.05]
    assert right > 0.79
    assert n == 3 or decided(mean, deviation, n - 1)[effect > 0.05] < 0.81  # and no more than are needed


def test_what_would_settle_stored_runs_is_runs_a_side():
    """Welch's degrees of freedom grow by two with a run more on each side."""
    tails = Design(8, paired=False).pass_tail(), Design(8, paired=False).fail_tail()
    rng = np.random.default_rng(8)
    seen = unpaired(*(np.array([-1.0, 1.0, -1.0, 1.0]) * 0.04 * math.sqrt(0.75) for _ in range(2)))
    deviation = seen.error * math.sqrt(seen.n)
    n = pairs_to_settle(deviation, 0.0, MARGIN, tails, seen.df / (seen.n - 1))
    assert n is not None and deviation == pytest.approx(0.04 * math.sqrt(2))
    sets = [unpaired(rng.normal(0, 0.04, n), rng.normal(0, 0.04, n)) for _ in range(4000)]
    passed = np.mean([s.mean + t_point(tails[0], s.df) * s.error < MARGIN for s in sets])
    assert 0.78 < passed < 0.85


def test_a_difference_as_large_as_the_margin_is_never_settled():
    assert pairs_to_settle(0.05, MARGIN - 1e-6, MARGIN, (0.05, 0.025)) is None
    assert pairs_to_settle(0.05, MARGIN, MARGIN, (0.05, 0.025)) is None


@pytest.mark.parametrize("spread", [0.005, 0.02, 0.04, 0.08])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_a_detectable_effect_fails_in_four_of_five_cases(spread: float, n: int):
    deviation = spread * math.sqrt(2)
    effect = detectable(Shift(0.0, deviation / math.sqrt(n), n - 1.0, n), MARGIN, Design(n).fail_tail())
    assert decided(effect, deviation, n)[1] == pytest.approx(0.8, abs=0.01)


def test_without_any_noise_the_margin_itself_is_detected():
    assert detectable(Shift(0.0, 0.0, 4.0, 5.0), MARGIN, 0.025) == MARGIN


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
