"""What was sent beside what was planned: dispersion, gaps, lengths."""

import numpy as np
import pytest
from fabricate import Row, fabricate
from scipy import stats as truth

from reports.analysis import analyse
from reports.collect import collect
from reports.workload import index_of_dispersion, ks_distance, workload_as_sent


def sent(run_dir, rows, **options):
    collect(fabricate(run_dir, rows, client=[], **options))
    return workload_as_sent(analyse(run_dir))


def test_evenly_spaced_requests_have_no_dispersion(tmp_path):
    found = sent(tmp_path / "run", [Row(at=100.0 * i) for i in range(200)], seconds=20.0)
    assert (found.planned_rps, found.sent_rps) == (10.0, 10.0)
    assert found.gap_cv_sent == pytest.approx(0.0, abs=1e-9)
    (one,) = found.dispersion
    assert (one.window_s, one.sent) == (1, 0.0)


def test_a_poisson_process_lies_in_the_interval_of_poisson():
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(400):
        times = np.sort(rng.uniform(0, 100e9, rng.poisson(1000)))
        low, high = truth.chi2.ppf([0.025, 0.975], 99) / 99
        inside += low <= index_of_dispersion(times, 0, int(100e9), 1) <= high
    assert inside / 400 == pytest.approx(0.95, abs=0.04)


def test_the_interval_is_that_of_chi_square(tmp_path):
    found = sent(tmp_path / "run", [Row(at=100.0 * i) for i in range(400)], seconds=40.0)
    low, high = truth.chi2.ppf([0.025, 0.975], 39) / 39
    assert found.dispersion[0].poisson_low == pytest.approx(low, rel=0.02)
    assert found.dispersion[0].poisson_high == pytest.approx(high, rel=0.02)


def test_too_few_windows_say_nothing(tmp_path):
    assert sent(tmp_path / "run", [Row(at=100.0 * i) for i in range(50)], seconds=5.0).dispersion == ()


def test_lateness_shows_as_sent_not_as_planned(tmp_path):
    rows = [Row(at=100.0 * i, late=100.0 * (9 - i % 10)) for i in range(200)]  # bunched at each second's end
    found = sent(tmp_path / "run", rows, seconds=20.0)
    assert found.gap_cv_planned == pytest.approx(0.0, abs=1e-9)
    assert found.gap_cv_sent > 2


def test_ks_distance_agrees_with_scipy():
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 50, 300).astype(float), rng.integers(5, 60, 200).astype(float)
    assert ks_distance(a, b) == pytest.approx(truth.ks_2samp(a, b).statistic)
    assert ks_distance(a, np.zeros(0)) is None


def test_answers_of_another_length_are_counted(tmp_path):
    rows = [Row(at=100.0 * i, gaps=[1.0] * 3, output_tokens=4 if i else 3) for i in range(20)]
    found = sent(tmp_path / "run", rows)
    assert (found.mismatched, found.output_ks) == (1, pytest.approx(0.05))
