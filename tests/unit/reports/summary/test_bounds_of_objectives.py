"""What "with 95 % confidence" is said of has a bound; what has none says so."""

import numpy as np
import pytest
from tests.kit.fabricate import Row, fabricate

from tailgate.reports.documents.run.write import export, report
from tailgate.reports.metrics.analysis import analyse
from tailgate.reports.metrics.rate_intervals import rate
from tailgate.reports.rundir.collect import collect
from tailgate.reports.stats.order_statistics import share_bounds
from tailgate.reports.summary.summary import summarize


def judged(run_dir, rows, slo, **options):
    collect(fabricate(run_dir, rows, slo=slo, **options))
    found = summarize(run_dir).to_json()
    return found, found["slo"]["thresholds"][0]


def test_a_rate_over_few_requests_is_not_certain(tmp_path):
    rows = [Row(at=700.0 * i, ttft=100.0, gaps=[10.0] * 9) for i in range(14)]
    found, one = judged(tmp_path / "run", rows, {"goodput": "> 1.3/s", "good": "ttft < 1s"})
    assert (one["value"], one["result"], found["exit_code"]) == (1.4, "can't tell", 3)
    assert one["lower_bound"] < 1.3 < one["upper_bound"]


def test_nothing_seen_bounds_a_rate_by_three_events(tmp_path):
    rows = [Row(at=10.0 * i, ttft=900.0) for i in range(500)]
    _, one = judged(tmp_path / "run", rows, {"goodput": "> 1/s", "good": "ttft < 100ms"})
    assert (one["value"], one["result"]) == (0.0, "broken")
    assert one["upper_bound"] == pytest.approx(0.3, abs=0.01)


def test_bounds_of_a_rate_cover_the_truth(tmp_path):
    """Poisson arrivals at 20/s for 60 s, 200 runs: each one-sided 95 % bound holds in 90 % of them or more."""
    rng = np.random.default_rng(5)
    below = above = 0
    collect(fabricate(tmp_path / "run", [Row(at=1000.0)], seconds=60.0))
    analysis = analyse(tmp_path / "run")
    from dataclasses import replace

    from tailgate.reports.metrics import rate_intervals

    for _ in range(200):
        times = np.sort(rng.uniform(0, 60e9, rng.poisson(1200)))
        found = rate_intervals._counted(replace(analysis), times, np.ones(len(times), np.bool_))
        below += found.below <= 20
        above += found.above >= 20
    assert below >= 180
    assert above >= 180
    assert below + above < 400  # they are bounds, not "anything goes"


def test_every_rate_has_its_bounds_around_it(tmp_path):
    rng = np.random.default_rng(1)
    rows = [
        Row(at=round(at), gaps=[20.0] * int(rng.integers(1, 9)), prompt_tokens=int(rng.integers(5, 15)))
        for at in sorted(rng.uniform(0, 9900, 1000))
    ]
    collect(fabricate(tmp_path / "run", rows))
    analysis = analyse(tmp_path / "run")
    everyone = np.ones(len(rows), np.bool_)
    for metric in ("requests_per_s", "input_tokens_per_s", "output_tokens_per_s", "total_tokens_per_s", "goodput"):
        found = rate(analysis, metric, everyone)
        assert found.below < found.value < found.above
        assert found.above - found.below < 0.3 * found.value


def test_a_burst_of_failures_is_not_as_many_independent_ones(tmp_path):
    def rows(failed):
        return [Row(at=3.0 * i, ttft=100.0, gaps=[10.0], status="reset" if i in failed else "ok") for i in range(3000)]

    together = judged(tmp_path / "a", rows(set(range(1000, 1120))), {"errors": "< 5%"})[1]
    apart = judged(tmp_path / "b", rows(set(range(0, 3000, 25))), {"errors": "< 5%"})[1]
    assert together["value"] == apart["value"] == 0.04
    assert (together["result"], apart["result"]) == ("can't tell", "met")


def test_a_largest_value_is_judged_as_measured_and_the_verdict_says_so(tmp_path):
    rows = [Row(at=10.0 * i, gaps=[20.0] * 4) for i in range(900)]
    found, one = judged(tmp_path / "run", rows, {"stall": "max < 21ms", "ttft": "p99 < 800ms"})
    assert (one["result"], one["lower_bound"], one["upper_bound"], one["as_measured"]) == ("met", None, None, True)
    assert found["why"] == (
        "Every objective is met: the others with 95 % confidence, as measured and without a bound "
        "stall: max < 21ms (found 20 ms)."
    )


def test_the_mean_gap_has_an_interval_over_requests(tmp_path):
    rng = np.random.default_rng(3)
    rows = [Row(at=10.0 * i, gaps=[float(rng.choice([10.0, 30.0]))] * 9) for i in range(900)]
    found, one = judged(tmp_path / "run", rows, {"itl": "mean < 30ms"})
    # 900 requests of two speeds: 20 ms with a standard error of a third of a millisecond, not of a ninth
    assert one["upper_bound"] - one["lower_bound"] == pytest.approx(2 * 1.645 / 3, rel=0.15)
    assert found["latency_ms"]["itl"]["mean_ci"] is not None


def test_a_percentile_without_bounds_of_its_own_says_how_it_was_told(tmp_path):
    # slow drift: the effective size supports no p99, but nothing comes near the limit
    rows = [Row(at=10.0 * i, ttft=100.0 + 50.0 * float(np.sin(i / 60))) for i in range(900)]
    found, one = judged(tmp_path / "run", rows, {"ttft": "p99 < 5s"})
    assert (one["value"], one["lower_bound"], one["upper_bound"]) == (None, None, None)
    assert (one["result"], one["why"]) == ("met", "judged by the share of requests beyond the limit")
    assert found["verdict"] == "PASS"
    assert (one["beyond"]["over"], one["beyond"]["of"]) == (0, 900)
    assert one["found"] == "0 of 900 over 5,000 ms; 1 % allowed"


class TestAnObjectiveAlwaysShowsItsNumber:
    """Also where too few requests give a percentile no value of its own."""

    def test_a_percentile_without_a_value_says_how_many_are_over_its_limit(self, tmp_path):
        rows = [Row(at=100.0 * i, ttft=900.0 if i % 10 else 100.0) for i in range(40)]
        found, one = judged(tmp_path / "run", rows, {"ttft": "p99 < 800ms"})
        assert (one["result"], one["value"], one["found"]) == ("broken", None, "36 of 40 over 800 ms; 1 % allowed")
        low, high = share_bounds(36, 40)
        assert (one["beyond"]["at_least"], one["beyond"]["at_most"]) == pytest.approx((low, high))
        assert "36 of 40 over 800 ms; 1 % allowed" in found["why"]
        summary = summarize(tmp_path / "run")
        for kind in ("md", "junit", "json"):
            text = export(tmp_path / "run", summary, kind)
            assert "36 of 40 over 800 ms; 1 % allowed" in text and "None" not in text
        page = report(summary, analyse(tmp_path / "run"))
        assert "36 of 40 over 800 ms; 1 % allowed" in page and "78.6 % to 96.5 % over" in page

    def test_those_at_the_limit_count_as_over_it_where_they_break_it(self, tmp_path):
        rows = [Row(at=100.0 * i, ttft=800.0) for i in range(40)]
        _, strict = judged(tmp_path / "a", rows, {"ttft": "p99 < 800ms"})
        _, loose = judged(tmp_path / "b", rows, {"ttft": "p99 <= 800ms"})
        assert (strict["beyond"]["over"], loose["beyond"]["over"]) == (40, 0)

    def test_failures_are_over_every_limit(self, tmp_path):
        rows = [Row(at=100.0 * i, **({"status": "timeout", "ttft": None} if i < 3 else {})) for i in range(40)]
        _, one = judged(tmp_path / "run", rows, {"e2e": "p99 < 60s"})
        assert (one["beyond"]["over"], one["beyond"]["of"]) == (3, 40)

    def test_of_itl_gaps_are_counted(self, tmp_path):
        rows = [Row(at=100.0 * i, gaps=[10.0, 30.0, 10.0]) for i in range(20)]
        _, one = judged(tmp_path / "run", rows, {"itl": "p99 < 20ms"})
        assert (one["value"], one["found"]) == (None, "20 of 60 gaps over 20 ms; 1 % allowed")

    def test_a_percentile_that_has_to_be_large_says_how_many_it_needs(self, tmp_path):
        rows = [Row(at=100.0 * i, ttft=900.0 if i >= 4 else 100.0) for i in range(40)]
        _, one = judged(tmp_path / "run", rows, {"ttft": "p99 > 800ms"})
        assert one["found"] == "36 of 40 over 800 ms; 1 % needed"

    def test_why_a_mean_has_no_bounds_says_how_many_there_are(self, tmp_path):
        rows = [Row(at=100.0 * i, ttft=100.0) for i in range(4)]
        _, one = judged(tmp_path / "run", rows, {"ttft": "mean < 800ms"})
        assert (one["found"], one["why"]) == ("100 ms", "a mean's bounds need 10 requests, there are 4")
