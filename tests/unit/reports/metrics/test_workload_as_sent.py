"""What was sent beside what was planned: dispersion, gaps, lengths."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as truth
from tests.kit.fabricate import Row, fabricate

from tailgate.reports.metrics.analysis import analyse
from tailgate.reports.metrics.workload_as_sent import workload_as_sent
from tailgate.reports.rundir.collect import collect
from tailgate.reports.rundir.manifest import TargetRecord
from tailgate.workloads.statistics.arrivals import dispersion, ks_distance


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
        inside += low <= dispersion(times / 1e9, 1, 100).value <= high
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


def test_the_dispersions_own_interval_is_that_of_its_variance(tmp_path):
    rng = np.random.default_rng(1)
    rows = [Row(at=t) for t in np.sort(rng.uniform(0, 40_000, 400))]
    (one,) = [d for d in sent(tmp_path / "run", rows, seconds=40.0).dispersion if d.window_s == 1]
    low, high = truth.chi2.ppf([0.025, 0.975], 39)
    assert (one.sent_low, one.sent_high) == (pytest.approx(39 * one.sent / high), pytest.approx(39 * one.sent / low))


class TestReuse:
    """Prompts of 100 tokens that begin with the same two blocks of 16, then have content of their own."""

    SHARED = [Row(at=100.0 * i, prompt_tokens=100, cached_tokens=16, blocks=(1, 2)) for i in range(10)]

    def test_all_but_the_first_find_what_they_share(self, tmp_path):
        found = sent(tmp_path / "run", self.SHARED)
        assert (found.planned_reuse, found.cached_share) == (pytest.approx(0.9 * 0.32), pytest.approx(0.16))

    def test_hits_count_in_whole_blocks_of_the_servers_cache(self, tmp_path):
        config = {"config": {"cache_config": {"block_size": 24}}}
        target = TargetRecord(kind="url", urls=["http://127.0.0.1:8000"], fingerprint=config)
        found = sent(tmp_path / "run", self.SHARED, target=target)
        assert (found.cache_block_tokens, found.planned_reuse) == (24, pytest.approx(0.9 * 0.24))

    def test_what_was_sent_first_comes_first_whatever_the_plan_says(self, tmp_path):
        long, short = (Row(at=0.0, prompt_tokens=100, blocks=(1, 2, 3)), Row(at=0.0, prompt_tokens=100, blocks=(1,)))
        third = Row(at=20.0, prompt_tokens=100, blocks=(1, 2, 3))
        found = [
            sent(tmp_path / name, [replace(long, late=late), short, third]).planned_reuse
            for name, late in (("in order", 0.0), ("the first one late", 50.0))
        ]
        # Without the long one, what comes before the third holds one of its blocks; it then finds the third's.
        assert found == [pytest.approx((16 + 48) / 300), pytest.approx((16 + 48) / 300)]

    def test_what_was_never_sent_leaves_nothing_behind(self, tmp_path):
        rows = [replace(self.SHARED[0], status="not_sent", ttft=None), *self.SHARED[1:2]]
        assert sent(tmp_path / "run", rows).planned_reuse == 0.0

    def test_a_plan_without_blocks_says_nothing(self, tmp_path):
        assert sent(tmp_path / "run", [Row(at=100.0 * i) for i in range(10)]).planned_reuse is None


def test_ks_distance_agrees_with_scipy():
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 50, 300).astype(float), rng.integers(5, 60, 200).astype(float)
    assert ks_distance(a, b) == pytest.approx(truth.ks_2samp(a, b).statistic)


def test_answers_of_another_length_are_counted(tmp_path):
    rows = [Row(at=100.0 * i, gaps=[1.0] * (3 if i else 2), output_planned=4) for i in range(20)]
    found = sent(tmp_path / "run", rows)
    assert (found.mismatched, found.output_ks) == (1, pytest.approx(0.05))


def test_long_requests_that_are_refused_show_in_the_lengths(tmp_path):
    rows = [Row(at=100.0 * i) for i in range(20)]
    rows[10:] = [replace(row, prompt_tokens=5000, status="rejected", ttft=None) for row in rows[10:]]
    assert sent(tmp_path / "run", rows).prompt_ks == pytest.approx(0.5)


def test_what_is_sent_behind_the_window_was_not_sent_in_it(tmp_path):
    rows = [Row(at=100.0 * i, late=0.0 if i < 50 else 60_000.0) for i in range(100)]
    collect(fabricate(tmp_path / "run", rows, client=[], seconds=10.0))
    found = analyse(tmp_path / "run")
    assert found.sent_rps == workload_as_sent(found).sent_rps == 5.0
