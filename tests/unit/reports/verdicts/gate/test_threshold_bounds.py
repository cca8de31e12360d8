"""Bounds of a threshold's figure over several runs: the run is the sample."""

import math

import pytest
from scipy import stats as truth

from tailgate.reports.metrics.slo import parse
from tailgate.reports.stats.between_runs import over_runs
from tailgate.reports.summary.objective_model import BeyondLimit, Judgement
from tailgate.reports.summary.objectives import Judged
from tailgate.reports.verdicts.gate.thresholds import _between, _together
from tailgate.reports.verdicts.gate.wording import threshold_figures


def judged(*values):
    threshold = parse("goodput: > 1/s").thresholds[0]
    return [Judged(threshold, value, None, None, Judgement.UNDECIDED, "") for value in values]


def test_they_are_students_of_the_logarithms():
    mean, low, high = over_runs([90.0, 100.0, 110.0], 0.05)
    logs = [math.log(v) for v in (90, 100, 110)]
    half = truth.t.isf(0.05, 2) * truth.sem(logs)
    assert mean == pytest.approx(math.exp(sum(logs) / 3))
    assert (low, high) == pytest.approx((mean * math.exp(-half), mean * math.exp(half)))


def test_a_run_with_nothing_leaves_them_bounds_and_not_the_smallest_and_largest_run():
    mean, low, high = over_runs([0.0, 4.0, 5.0, 4.0, 5.0], 0.05)
    half = truth.t.isf(0.05, 4) * truth.sem([0, 4, 5, 4, 5])
    assert (mean, low, high) == pytest.approx((3.6, 3.6 - half, 3.6 + half))
    assert _between(judged(0.0, 0.0, 1.0))[1] == 0.0  # there is no less than nothing
    assert _between(judged(0.0, 0.0))[:3] == (0.0, 0.0, 0.0)


def test_runs_too_short_for_a_percentile_say_how_many_requests_are_over_its_limit():
    (threshold,) = parse("ttft: p99 < 800ms").thresholds
    runs = [
        Judged(threshold, None, None, None, Judgement.UNDECIDED, "this percentile needs 299 requests, there are 40",
               beyond=BeyondLimit(over, 40, "requests", 800.0, "<", 0.01, 0.0, 0.1))
        for over in (0, 2, 1)
    ]  # fmt: skip
    found = _together("load", threshold, runs, [])
    assert threshold_figures(found) == "3 of 120 over 800 ms; 1 % allowed"
    assert threshold_figures(_together("load", threshold, runs[1:2], [])) == "2 of 40 over 800 ms; 1 % allowed"
