"""Every figure against hand-computed truth, and the laws that any set of requests obeys."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.kit.fabricate import Row, fabricate

from tailgate.reports.metrics.analysis import analyse
from tailgate.reports.rundir.collect import collect
from tailgate.reports.summary.summary import summarize


def analysed(run_dir, rows, **options):
    collect(fabricate(run_dir, rows, **options))
    return analyse(run_dir)


# scheduled 1000, dispatched 1002, sent 1005, first token 1105, then 20, 50 and 30 ms: last 1205
ONE = Row(at=1000.0, late=2.0, connect=3.0, ttft=100.0, gaps=[20.0, 50.0, 30.0])


@pytest.mark.parametrize(
    ("figure", "ms"),
    [
        ("ttft", 105.0),
        ("ttft_from_send", 100.0),
        ("tpot", 100.0 / 3),
        ("stall", 50.0),
        ("e2e", 205.0),
        ("normalized_e2e", 205.0 / 4),
        ("ttfa", 105.0),
    ],
)
def test_open_loop_figures_count_from_the_planned_arrival(tmp_path, figure, ms):
    found = analysed(tmp_path / "run", [ONE])
    assert found.figures.ms[figure][0] == pytest.approx(ms, abs=1e-6)


@pytest.mark.parametrize(
    ("figure", "ms"), [("ttft", 100.0), ("e2e", 200.0), ("ttft_from_send", 100.0), ("stall", 50.0)]
)
def test_closed_loop_figures_count_from_the_sending(tmp_path, figure, ms):
    found = analysed(tmp_path / "run", [ONE], loop="closed")
    assert found.figures.ms[figure][0] == pytest.approx(ms, abs=1e-6)


def test_lags_count_from_what_was_due(tmp_path):
    found = analysed(tmp_path / "run", [ONE])
    assert found.dispatch_lag_ms.tolist() == [2.0]
    assert found.send_lag_ms.tolist() == [5.0]


def test_tpot_leaves_out_the_tokens_of_the_first_chunk(tmp_path):
    # 9 tokens, 3 of them in the first chunk: 100 ms for the 6 others
    found = analysed(tmp_path / "run", [replace(ONE, output_tokens=9, first_chunk_tokens=3)])
    assert found.figures.ms["tpot"][0] == pytest.approx(100.0 / 6)


def test_a_single_chunk_answer_has_no_tpot_and_no_stall(tmp_path):
    found = analysed(tmp_path / "run", [Row(at=0.0, gaps=[])])
    assert np.isnan(found.figures.ms["tpot"][0])
    assert np.isnan(found.figures.ms["stall"][0])
    assert found.figures.ms["e2e"][0] == 100.0


def test_itl_pools_the_gaps_of_ok_requests_of_the_measure_phase_only(tmp_path):
    rows = [
        Row(at=0.0, gaps=[10.0, 30.0]),
        Row(at=10.0, gaps=[20.0]),
        Row(at=20.0, gaps=[999.0], status="reset"),
        Row(at=30.0, gaps=[888.0], phase="warmup"),
    ]
    gaps = analysed(tmp_path / "run", rows).scan.gaps
    assert [gaps.at_rank(rank) for rank in (1, 2, 3)] == [10.0, 20.0, 30.0]
    assert (gaps.size, gaps.requests, gaps.sum_us()) == (3, 2, 60_000)


def test_long_gaps_are_as_exact_as_short_ones(tmp_path):
    gaps = analysed(tmp_path / "run", [Row(at=0.0, gaps=[5.0, 262.143, 262.144, 70_000.001])]).scan.gaps
    assert [gaps.at_rank(rank) for rank in (1, 2, 3, 4)] == [5.0, 262.143, 262.144, 70_000.001]


class TestSteadyWindow:
    """Warm-up to 2 s, measured to 4 s; one token every 100 ms."""

    def rates(self, tmp_path, *rows, **options):
        options = {"warmup": 2.0, "seconds": 2.0} | options
        return analysed(tmp_path / "run", list(rows), **options).throughput

    def test_tokens_count_when_they_arrive(self, tmp_path):
        # tokens at 1.5, 1.6 ... 2.9: nine of them (2.0 to 2.9: ten) inside
        row = Row(at=1400.0, ttft=100.0, gaps=[100.0] * 14, phase="warmup")
        assert self.rates(tmp_path, row).output_tokens_per_s == 10 / 2

    def test_an_answer_that_outlives_the_window_counts_for_what_fell_inside(self, tmp_path):
        # tokens at 3.5, 3.6 ... 5.4: five inside
        row = Row(at=3400.0, ttft=100.0, gaps=[100.0] * 19)
        rates = self.rates(tmp_path, row)
        assert rates.output_tokens_per_s == 5 / 2
        assert rates.requests_per_s == 0  # it ended in the drain
        assert rates.input_tokens_per_s == 10 / 2  # its prompt was done inside

    def test_chunks_of_several_tokens_count_by_usage(self, tmp_path):
        # four chunks of 5 tokens at 3.7, 3.8, 3.9, 4.0: three inside
        row = Row(at=3600.0, ttft=100.0, gaps=[100.0] * 3, output_tokens=20)
        assert self.rates(tmp_path, row).output_tokens_per_s == 15 / 2

    def test_a_first_chunk_of_its_own_size_counts_as_such(self, tmp_path):
        # 8 tokens in the first chunk at 3.8, then 2 each at 3.9 and 4.0: 10 inside
        row = Row(at=3700.0, ttft=100.0, gaps=[100.0] * 2, output_tokens=12, first_chunk_tokens=8)
        assert self.rates(tmp_path, row).output_tokens_per_s == 10 / 2

    def test_tokens_of_a_cut_off_answer_are_estimated_and_said(self, tmp_path):
        whole = Row(at=2000.0, ttft=100.0, gaps=[100.0] * 9, output_tokens=20)  # two tokens a chunk
        cut = Row(at=2000.0, ttft=100.0, gaps=[100.0] * 4, status="truncated")
        rates = self.rates(tmp_path, whole, cut)
        assert rates.output_tokens_per_s == (20 + 10) / 2
        assert rates.estimated_share == pytest.approx(10 / 30)

    def test_a_longer_drain_changes_nothing(self, tmp_path):
        row = Row(at=3400.0, ttft=100.0, gaps=[100.0] * 19)
        short = self.rates(tmp_path / "a", row, drain=5.0)
        assert self.rates(tmp_path / "b", row, drain=300.0) == short

    def test_an_answer_that_was_not_streamed_arrives_at_its_end(self, tmp_path):
        inside = Row(at=2000.0, ttft=None, end_after=900.0, output_tokens=40)
        before = Row(at=500.0, ttft=None, end_after=900.0, output_tokens=40, phase="warmup")
        over_the_edge = Row(at=3500.0, ttft=None, end_after=900.0, output_tokens=40)
        rates = self.rates(tmp_path, inside, before, over_the_edge)
        assert (rates.output_tokens_per_s, rates.input_tokens_per_s, rates.requests_per_s) == (40 / 2, 10 / 2, 1 / 2)
        assert rates.estimated_share == 0

    def test_an_interruption_ends_the_window(self, tmp_path):
        row = Row(at=2000.0, ttft=100.0, gaps=[100.0] * 9)
        rates = self.rates(tmp_path, row, state="interrupted", ended_ns=3_000_000_000)
        assert rates.output_tokens_per_s == 9 / 1  # 2.1 ... 2.9; the one at 3.0 is outside


def test_failures_are_infinitely_late_where_failures_count(tmp_path):
    rows = [Row(at=10.0 * i, ttft=100.0 + 37 * i % 60) for i in range(60)]
    for at in (50, 30, 10):
        rows.insert(at, Row(at=10.0 * at, status="timeout", ttft=None))
    collect(fabricate(tmp_path / "run", rows))
    summary = summarize(tmp_path / "run").to_json()
    assert summary["latency_ms"]["ttft"]["n"] == 60
    assert summary["latency_ms"]["ttft"]["max"] == 159.0
    worst = summary["latency_failed_as_inf_ms"]["ttft"]
    assert (worst["n"], worst["p50"], worst["p95"], worst["max"]) == (63, 131.0, 159.0, "inf")


def test_a_user_who_hangs_up_after_the_first_token_is_neither_good_nor_bad(tmp_path):
    rows = [Row(at=0.0), Row(at=10.0, status="cancelled", gaps=[5.0]), Row(at=20.0, status="cancelled", ttft=None)]
    found = analysed(tmp_path / "run", rows)
    assert found.judged.tolist() == [True, False, True]
    assert found.failed.tolist() == [False, False, True]


def test_attainment_counts_everything_that_was_scheduled(tmp_path):
    rows = [
        Row(at=0.0, ttft=50.0),
        Row(at=10.0, ttft=500.0),
        Row(at=20.0, status="rejected", http_status=429, ttft=None),
    ]
    rows.append(Row(at=30.0, status="not_sent", ttft=None))
    collect(fabricate(tmp_path / "run", rows, slo={"good": "ttft < 100ms"}))
    slo = summarize(tmp_path / "run").to_json()["slo"]
    assert slo["attained"] == 1 / 4
    assert slo["attained_of_admitted"] == 1 / 3
    assert slo["goodput_rps"] == 1 / 10


def test_statuses_add_up_to_what_was_planned(tmp_path):
    rows = [
        Row(at=0.0),
        Row(at=1.0, status="reset", ttft=None),
        Row(at=2.0, reported=False),
        Row(at=3.0, phase="warmup"),
    ]
    collect(fabricate(tmp_path / "run", rows))
    load = summarize(tmp_path / "run").to_json()["load"]
    assert load["requests"] == {"planned": 3, "ok": 1, "reset": 1, "not_sent": 1}
    assert load["all_phases"] == {"planned": 4, "ok": 2}


requests = st.lists(
    st.builds(
        Row,
        at=st.floats(0, 9000).map(round),
        ttft=st.integers(1, 3000),
        gaps=st.lists(st.integers(0, 400), max_size=6),
        status=st.sampled_from(["ok", "ok", "ok", "timeout", "reset"]),
    ),
    min_size=1,
    max_size=40,
).map(lambda rows: sorted(rows, key=lambda row: row.at))
fast = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def inf_quantiles(run_dir, rows):
    found = analysed(run_dir, rows).latencies_failed_as_inf["ttft"]
    return [np.inf if q.value is None else q.value for q in found.quantiles if q.value is not None]


@fast
@given(rows=requests)
def test_adding_a_failed_request_never_improves_a_figure_that_counts_failures(tmp_path_factory, rows):
    before = analysed(tmp_path_factory.mktemp("a") / "run", rows)
    after = analysed(tmp_path_factory.mktemp("b") / "run", [*rows, Row(at=9000.0, status="timeout", ttft=None)])
    for name in ("ttft", "e2e"):
        pairs = zip(
            before.latencies_failed_as_inf[name].quantiles, after.latencies_failed_as_inf[name].quantiles, strict=True
        )
        for old, new in pairs:
            assert old.value is None or new.value is None or new.value >= old.value


@fast
@given(rows=requests, shift=st.integers(1, 5000))
def test_shifting_all_times_changes_no_figure(tmp_path_factory, rows, shift):
    here = analysed(tmp_path_factory.mktemp("a") / "run", rows, warmup=1.0)
    moved = [replace(row, at=row.at + 1000.0 * shift) for row in rows]
    there = analysed(tmp_path_factory.mktemp("b") / "run", moved, warmup=1.0 + shift, client=[])
    assert here.latencies == there.latencies
    assert here.throughput == there.throughput


@fast
@given(rows=requests, at=st.integers(0, 40))
def test_gaps_of_merged_parts_are_those_of_the_whole(tmp_path_factory, rows, at):
    whole = analysed(tmp_path_factory.mktemp("w") / "run", rows).scan.gaps
    first, second = (
        analysed(tmp_path_factory.mktemp("p") / "run", part).scan.gaps if part else None
        for part in (rows[:at], rows[at:])
    )
    merged = first + second if first and second else first or second
    assert merged.size == whole.size
    ranks = np.arange(1, whole.size + 1)
    assert merged.at_ranks(ranks).tolist() == whole.at_ranks(ranks).tolist()


def test_a_large_run_agrees_with_numpy_on_the_raw_columns(tmp_path):
    rng = np.random.default_rng(5)
    rows = [
        Row(
            at=2.0 * i, ttft=float(rng.gamma(2, 60)), gaps=list(rng.gamma(4, 5, rng.integers(1, 20))), late=rng.random()
        )
        for i in range(3999)
    ]
    found = analysed(tmp_path / "run", rows, client=[])
    columns = {
        name: found.run.requests[name].to_numpy() for name in ("scheduled_ns", "first_token_ns", "last_token_ns")
    }
    ttft = (columns["first_token_ns"] - columns["scheduled_ns"]) / 1e6
    e2e = (columns["last_token_ns"] - columns["scheduled_ns"]) / 1e6
    gaps = np.concatenate([np.diff(np.rint(1000 * np.cumsum([0.0, *row.gaps]))) for row in rows]) / 1000
    for name, truth in (("ttft", ttft), ("e2e", e2e), ("itl", gaps)):
        for quantile in found.latencies[name].quantiles:
            expected = np.percentile(truth, quantile.q, method="inverted_cdf")
            assert quantile.value == pytest.approx(expected, abs=1e-9), (name, quantile.q)
        assert found.latencies[name].mean == pytest.approx(truth.mean())
    stalls = [max(row.gaps) for row in rows]
    assert np.allclose(found.figures.ms["stall"], stalls, atol=0.0011)
