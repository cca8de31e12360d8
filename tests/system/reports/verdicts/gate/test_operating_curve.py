"""docs/gate-operating-tables.md keeps its promises, and the simulation decides as the code does."""

import numpy as np
import pytest
from tests.kit.gate_runs import campaign, pairs, policy, run, summary

from tailgate.reports.documents.gate.operating_curve import report
from tailgate.reports.stats.sequential_design import Design
from tailgate.reports.verdicts.gate.error_rule import error_rule
from tailgate.reports.verdicts.gate.operating_curve import decide, differences, failing, grid
from tailgate.reports.verdicts.gate.verdict import judge


def test_every_promise_holds():
    found = report(20_000)
    assert len(found.promises) == 9
    assert {one.what: one.measured for one in found.promises if not one.holds} == {}


def test_the_grid_has_every_condition():
    cells = list(grid(sets=200))
    assert {c.spread for c in cells} == {0.01, 0.02, 0.04, 0.08}
    assert {c.drift for c in cells} == {0.0, 0.03} and len({c.correlation for c in cells}) == 2
    assert {(c.design.pairs, c.design.extended) for c in cells} == {(3, None), (5, None), (10, None), (5, 10)}
    assert len(cells) == 4 * 2 * 2 * 4 * 5
    assert all(c.passed.hits + c.failed.hits + c.unsure.hits == 200 for c in cells)


@pytest.mark.parametrize("extended", [None, 10])
def test_simulated_sets_are_decided_as_real_runs_are(extended: int | None):
    n = extended or 5
    d = differences(60, n, 0.04, 0.0, 0.5, seed=1) + np.linspace(0.0, 0.2, 60)[:, None]
    outcome = decide([(d, np.log1p(0.05)), (d, np.log1p(0.05))], Design(5, extended))
    p = policy(metrics={"ttft.p50": "5%", "tpot.p50": "5%"}, pairs=5, extension=extended)
    seen = set()
    for k in range(60):
        found = judge(pairs(np.exp(d[k, :5])), p, campaign(5))
        if found.extend:
            found = judge(pairs(np.exp(d[k])), p, campaign(n))
        expected = "PASS" if outcome.passed[k] else "FAIL" if outcome.failed[k] else "INCONCLUSIVE"
        assert found.verdict == expected
        seen.add(expected)
    assert seen == {"PASS", "FAIL", "INCONCLUSIVE"}


def test_simulated_failures_are_decided_as_real_ones_are():
    base, other = (np.random.default_rng(seed).binomial(1000, 0.02 * seed, (40, 5)).astype(float) for seed in (1, 2))
    design = Design(5, None)
    expected = failing(base, other, design)
    for k in range(40):
        sides = [[run("", n, summary(failed=int(x))) for n, x in enumerate(hits[k])] for hits in (base, other)]
        assert (error_rule(*sides, allowed=0.001).outcome == "fail") == expected[k]
    assert 0 < expected.sum() < 40


def test_a_drift_that_both_sides_share_cancels_in_pairs_of_alternating_order():
    d = differences(50, 10, 1e-9, 0.03, 0.0, seed=0)
    assert abs(d.mean()) < 1e-6
    assert np.abs(d).max() > 1e-3
