"""`tailgate report` of several runs: each one's documents, and one table of all."""

import csv
import io
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from tests.kit.fabricate import Row, fabricate

from tailgate.harness.cli.report import run as command

BROKEN = {"state": "interrupted", "ended_ns": 1_000_000_000}


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """A run that passes, one that fails its objective, and one that was cut off."""
    for name, ttft, more in (("good", 100.0, {}), ("slow", 900.0, {}), ("cut", 100.0, BROKEN)):
        rows = [Row(at=20.0 * n, ttft=ttft, gaps=[20.0] * 3) for n in range(100)]
        fabricate(tmp_path / name, rows, slo={"ttft": "p90 < 500ms"}, **more)
    return [str(tmp_path / name) for name in ("good", "slow", "cut")]


def test_each_has_its_report_and_all_stand_in_one_table(runs: list[str], capsys):
    assert command(runs) == 4
    out = capsys.readouterr().out
    for path, verdict in zip(runs, ("PASS", "FAIL", "INVALID"), strict=True):
        assert any(path in line and verdict in line for line in out.splitlines())
        assert Path(path, "report.html").exists() and Path(path, "summary.json").exists()
        assert f"report: {path}/report.html" in out


def test_the_exit_code_is_the_worst_runs_and_quiet_says_how_many_are_what(runs: list[str], capsys):
    assert [command([runs[0], other, "--quiet"]) for other in runs[1:]] == [1, 4]
    assert capsys.readouterr().out.splitlines() == [
        "FAIL  2 runs: 1 FAIL, 1 PASS.",
        "INVALID  2 runs: 1 INVALID, 1 PASS.",
    ]


def test_a_run_that_is_named_twice_or_by_a_glob_is_one_run(runs: list[str], capsys, tmp_path: Path):
    command([runs[0], runs[0], "--json"])
    assert json.loads(capsys.readouterr().out)["schema"] == "tailgate.summary/1"
    command([f"{tmp_path}/*o*", "--json"])
    assert [Path(run["directory"]).name for run in json.loads(capsys.readouterr().out)["runs"]] == ["good", "slow"]


def test_dollars_and_per_cents_are_named_as_such(tmp_path: Path, capsys):
    rows = [Row(at=20.0 * n, ttft=100.0, gaps=[20.0] * 3) for n in range(100)]
    spec = {"gpus": {"price_per_hour": 3.6, "count": 1}}
    found = [str(fabricate(tmp_path / name, rows, spec=spec)) for name in ("a", "b")]
    command([*found, "--format", "md"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    head, _, first, *_ = [[cell.strip() for cell in line.split("|")] for line in lines]
    cells = dict(zip(head, first, strict=True))
    assert cells["$ per million output tokens"].startswith("$")
    assert cells["failed, %"] == "0" and "output tokens/s" in cells


def test_csv_has_a_line_a_run_and_numbers_in_it(runs: list[str], capsys):
    command([*runs, "--format", "csv"])
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(Path(row["run"]).name, row["verdict"]) for row in found] == [
        ("good", "PASS"), ("slow", "FAIL"), ("cut", "INVALID"),
    ]  # fmt: skip
    assert [float(row["ttft.p50"]) for row in found[:2]] == pytest.approx([100.0, 900.0])
    assert found[0]["cost.per_million_output"] == ""


def test_markdown_is_one_table_and_says_why_a_run_does_not_pass(runs: list[str], capsys):
    command([*runs, "--format", "md"])
    out = capsys.readouterr().out
    assert sum(line.startswith("| run |") for line in out.splitlines()) == 1
    assert "Broken: ttft: p90 &lt; 500ms" in out


def test_junit_tells_the_runs_apart(runs: list[str], capsys):
    command([*runs, "--format", "junit"])
    names = [case.get("name") for case in ET.fromstring(capsys.readouterr().out)]
    assert {f"{path}: ttft: p90 < 500ms" for path in runs} <= set(names)


def test_what_is_no_run_is_named_before_anything_is_written(runs: list[str], capsys):
    from tailgate.harness.cli import main

    assert main(["report", runs[0], "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err and not Path(runs[0], "report.html").exists()
