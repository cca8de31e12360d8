"""`tailgate.load_run` and `tailgate.compare`: stored runs in Python."""

from pathlib import Path

import pytest
from tests.kit.fabricate import Row, fabricate

import tailgate

ROWS = [Row(at=40.0 * i, ttft=100.0 + i % 7, gaps=[20.0] * 4) for i in range(200)]


def test_a_run_is_loaded_with_its_summary_and_its_tables(tmp_path: Path) -> None:
    run = tailgate.load_run(str(fabricate(tmp_path / "run", ROWS)))
    assert run.path == tmp_path / "run"
    assert run.summary.exit_code in (0, 4)
    assert len(run.requests) == 200
    assert run.requests["ttft_ms"].between(99, 108).all()
    assert run.arrivals.loc[0].tolist() == pytest.approx([0.0, 20.0, 40.0, 60.0, 80.0])
    assert run.requests is run.requests  # read once


def test_loading_again_reads_the_stored_summary_and_writes_nothing(tmp_path: Path) -> None:
    folder = fabricate(tmp_path / "run", ROWS)
    first = tailgate.load_run(folder).summary
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert tailgate.load_run(folder).summary == first
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_what_is_no_run_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(tailgate.UserError, match="nothing"):
        tailgate.load_run(tmp_path / "nothing")


def test_runs_are_compared_and_the_page_is_written(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fabricate(tmp_path / name, ROWS)
    page = tmp_path / "compare.html"
    comparison = tailgate.compare(f"first={tmp_path / 'a'}", f"second={tmp_path / 'b'}", anyway=True, html=page)
    assert [point.label for point in comparison.points] == ["first", "second"]
    assert comparison.points[1].ratios["ttft.p50"].value == pytest.approx(1.0)
    assert page.read_text().startswith("<!doctype html>")


def test_a_comparison_with_nothing_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(tailgate.UserError, match="no run directory matches"):
        tailgate.compare(tmp_path / "*")


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'loadrun'"):
        _ = tailgate.loadrun  # type: ignore[attr-defined]
