"""A run as pandas data frames: the same figures as everywhere else, ready for questions."""

import pytest
from tests.kit.fabricate import Row, fabricate

from tailgate.reports import frames
from tailgate.reports.rundir.collect import collect
from tailgate.workloads.common.errors import UserError


@pytest.fixture
def run(tmp_path):
    rows = [Row(at=0.0, ttft=100.0, gaps=(20.0, 30.0)), Row(at=50.0, ttft=300.0, gaps=(), status="ok")]
    folder = fabricate(tmp_path / "run", rows, server=[(1.0, "vllm:num_requests_running", "{}", 2.0)])
    collect(folder)
    return folder


def test_requests_have_their_figures_in_ms_and_one_row_each(run):
    frame = frames.requests(run)
    assert list(frame.index) == [0, 1]
    assert frame["ttft_ms"].tolist() == pytest.approx([100.0, 300.0])
    assert frame.query("ttft_ms > 200").index.tolist() == [1]
    assert frame.loc[0, "stall_ms"] == pytest.approx(30.0)
    assert frame["e2e_ms"].tolist() == pytest.approx([150.0, 300.0])


def test_arrivals_count_from_the_first_of_their_request(run):
    series = frames.arrivals(run)
    assert series.loc[0].tolist() == pytest.approx([0.0, 20.0, 50.0])
    assert series.loc[1].tolist() == [0.0]


def test_telemetry_stands_on_the_runs_clock(run):
    frame = frames.telemetry(run)
    assert frame.loc[frame["name"] == "vllm:num_requests_running", "t_s"].tolist() == [1.0]
    assert set(frame["source"]) == {"server"}


def test_a_folder_without_arrivals_is_named(tmp_path):
    with pytest.raises(UserError, match="arrivals"):
        frames.arrivals(tmp_path)
