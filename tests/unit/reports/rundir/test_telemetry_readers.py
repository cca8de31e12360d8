"""Counters become rates, gauges means, histograms differences: on series whose truth is known."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.kit.fabricate import Row, fabricate

from tailgate.reports.metrics.analysis import analyse
from tailgate.reports.rundir.collect import collect
from tailgate.reports.rundir.manifest import TargetRecord
from tailgate.reports.rundir.telemetry import SERVER_SCHEMA, Series, histogram, on_grid, rate_on_grid, read_server
from tailgate.reports.summary.summary import summary_of
from tailgate.workloads.common.errors import UserError

S = 1_000_000_000


def series(*points):
    times, values = zip(*points, strict=True)
    return Series(("e", ""), np.array([round(t * S) for t in times]), np.array(values, float))


def server(tmp_path, rows):
    table = pa.Table.from_pylist(
        [
            {"t_ns": round(t * S), "endpoint": e, "name": n, "labels": json.dumps(labels, sort_keys=True), "value": v}
            for t, e, n, labels, v in rows
        ],
        SERVER_SCHEMA,
    )
    pq.write_table(table, tmp_path / "server.parquet")
    return read_server(tmp_path)


def test_a_counters_growth_is_interpolated_at_the_windows_edges():
    counter = series((0, 100), (10, 200), (20, 400))
    assert counter.delta() == 300
    assert counter.delta(5 * S, 15 * S) == 50 + 100


def test_a_counter_that_restarts_counts_on_from_zero():
    counter = series((0, 100), (10, 150), (20, 30), (30, 40))
    assert counter.delta() == 50 + 30 + 10


def test_a_gauge_holds_until_its_next_sample():
    gauge = series((0, 2), (1, 4), (3, 10))
    assert gauge.mean(0, 4 * S) == (2 * 1 + 4 * 2 + 10 * 1) / 4
    assert gauge.mean(1 * S, 3 * S) == 4
    assert gauge.most(0, 2 * S) == 4
    assert gauge.before(2.9 * S) == 4


def test_gauges_of_several_engines_add_up_on_a_grid():
    grid = np.array([0, 1, 2]) * S
    total = on_grid([series((0, 1), (2, 5)), series((1, 10))], grid)
    assert np.isnan(total[0])
    assert total[1:].tolist() == [11, 15]


def test_counters_become_rates():
    edges = np.array([0, 10, 20]) * S
    assert rate_on_grid([series((0, 0), (10, 100), (20, 400))], edges).tolist() == [10, 30]


def test_sources_are_kept_apart_and_summed(tmp_path):
    rows = [
        (t, endpoint, "n_total", {"engine": engine}, value * t)
        for t in (0, 10)
        for endpoint in ("http://a", "http://b")
        for engine, value in (("0", 1.0), ("1", 2.0))
    ]
    found = server(tmp_path, rows)
    assert sorted(one.key for one in found.series("n_total")) == [
        ("http://a", '{"engine": "0"}'),
        ("http://a", '{"engine": "1"}'),
        ("http://b", '{"engine": "0"}'),
        ("http://b", '{"engine": "1"}'),
    ]
    assert found.delta("n_total") == 60
    assert found.delta("missing", "n_total") == 60
    assert found.delta("missing") is None


class TestHistogram:
    def of(self, tmp_path, before, after):
        edges = ["0.1", "0.2", "+Inf"]
        rows = [
            (t, "e", "x_bucket", {"le": edge}, count)
            for t, counts in ((0, before), (10, after))
            for edge, count in zip(edges, counts, strict=True)
        ]
        rows += [(0, "e", "x_sum", {}, 5.0), (10, "e", "x_sum", {}, 5.0 + 1.3)]
        return histogram(server(tmp_path, rows), "x")

    def test_its_growth_is_counted_per_bucket(self, tmp_path):
        found = self.of(tmp_path, (3, 4, 4), (8, 13, 14))
        assert found.counts.tolist() == [5, 4, 1]
        assert found.n == 10
        assert found.mean == pytest.approx(0.13)

    def test_percentiles_are_interpolated_and_say_their_bucket(self, tmp_path):
        found = self.of(tmp_path, (0, 0, 0), (5, 10, 10))
        assert found.percentile(50) == pytest.approx((0.1, 0.0, 0.1))
        assert found.percentile(80) == pytest.approx((0.16, 0.1, 0.2))

    def test_a_percentile_in_the_last_bucket_is_its_lower_edge(self, tmp_path):
        found = self.of(tmp_path, (0, 0, 0), (0, 0, 10))
        assert found.percentile(50) == (0.2, 0.2, np.inf)

    def test_nothing_counted_has_no_percentile(self, tmp_path):
        found = self.of(tmp_path, (3, 3, 3), (3, 3, 3))
        assert (found.mean, found.percentile(50)) == (None, None)


def test_no_file_and_no_samples_are_none(tmp_path):
    assert read_server(tmp_path) is None
    assert server(tmp_path, []) is None


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "server.parquet").write_bytes(b"PAR1 what")
    with pytest.raises(UserError, match=r"server\.parquet"):
        read_server(tmp_path)


@pytest.mark.parametrize(("late_ms", "said"), [(0.1, False), (6.0, True)])
def test_a_simulation_that_could_not_keep_its_time_says_so(tmp_path, late_ms, said):
    rows = [Row(at=100.0 * i, gaps=[20.0] * 9) for i in range(100)]
    target = TargetRecord(kind="sim", simulated=True)
    run = fabricate(tmp_path / "run", rows, client=[], seconds=10.0, target=target)
    collect(run)
    name = "tailgate_engine_step_lateness_seconds"
    samples = [
        {"t_ns": t * S, "endpoint": "e", "name": f"{name}_{part}", "labels": "{}", "value": value * t}
        for t in (0, 10)
        for part, value in (("sum", late_ms / 1000 * 50), ("count", 50.0))
    ]
    pq.write_table(pa.Table.from_pylist(samples, SERVER_SCHEMA), run / "server.parquet")
    notices = summary_of(analyse(run)).notices
    assert any("too slow for the load that it simulates" in notice for notice in notices) is said
