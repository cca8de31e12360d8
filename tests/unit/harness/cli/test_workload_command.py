"""`tailgate workload`: each command does its one thing, in words, in JSON and silently; wrong input says what to do."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from tests.kit.paths import ROOT

from tailgate.harness.cli import main
from tailgate.workloads.config.profiles import names
from tailgate.workloads.config.workload import WorkloadSpec
from tailgate.workloads.plan.plan import make_plan, read_plan
from tailgate.workloads.table.hashing import plan_hash

EXCERPT = ROOT / "workloads" / "data" / "azure-2023-conv-excerpt.csv"


def workload(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main(["workload", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Any:
    code, out, _ = workload(capsys, *arguments, "--json")
    assert code == 0
    return json.loads(out)


def test_list_names_every_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert [one["name"] for one in as_json(capsys, "list")] == names()
    assert "chat-gateway" in workload(capsys, "list")[1]


def test_show_gives_sources_and_figures(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = workload(capsys, "show", "chat-gateway")
    assert code == 0 and "Splitwise" in out and "dispersion at 10 s" in out
    assert as_json(capsys, "show", "chat-gateway", "--requests", "50")["figures"]["requests"] == 50


def test_plan_writes_the_rows_that_a_run_would_send(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "plan.parquet"
    found = as_json(capsys, "plan", "rag", "--rate", "3/s", "--duration", "60s", "--seed", "5", "-o", file)
    spec = WorkloadSpec.model_validate({"profile": "rag", "arrivals": {"rate": "3/s"}, "duration": "60s"})
    assert found["figures"]["plan_hash"] == make_plan(spec, 5).plan_hash == plan_hash(pq.read_table(file))


def test_a_plan_has_the_seed_of_its_spec(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    drawn = {"prompt_tokens": "uniform(1,9)", "output_tokens": 8, "arrivals": {"rate": 9}, "requests": 40}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({"seed": 7, "workload": drawn}))
    for flags, seed in (([], 7), (["--seed", "3"], 3)):
        as_json(capsys, "plan", tmp_path / "s.yaml", "-o", tmp_path / "p.parquet", *flags)
        expected = make_plan(WorkloadSpec.model_validate(drawn), seed).plan_hash
        assert plan_hash(read_plan(tmp_path / "p.parquet")) == expected


@pytest.mark.parametrize("kind", ["spec", "bare", "trace"])
def test_a_source_may_be_a_spec_a_workload_or_a_trace(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str
) -> None:
    trace = {"trace": {"file": str(EXCERPT), "format": "azure"}}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"target": {"kind": "sim"}, "workload": trace} if kind == "spec" else trace))
    source = EXCERPT if kind == "trace" else file
    assert as_json(capsys, "show", source)["figures"]["requests"] == 300


def test_a_traces_rate_and_slice_are_set_by_flags(capsys: pytest.CaptureFixture[str]) -> None:
    figures = as_json(capsys, "show", EXCERPT, "--start", "10s", "--duration", "20s", "--rate", "3/s")["figures"]
    assert figures["requests"] == pytest.approx(60, rel=0.4)
    assert "became 3" in figures["notices"][0]


def test_preview_writes_one_page_that_needs_no_network(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    code, out, _ = workload(capsys, "preview", "chat-long", "--duration", "5m", "-o", page)
    text = page.read_text()
    assert code == 0 and str(page) in out and "▂" in out
    for title in ("Arrivals per second", "Burstiness", "Prompt tokens", "Token load", "Shared prefixes", "cache"):
        assert title in text
    assert "src=" not in text.replace("default-src", "").replace("-src ", "")


def test_fit_writes_a_profile_that_can_be_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    profile = tmp_path / "mine.yaml"
    found = as_json(capsys, "fit", EXCERPT, "-o", profile)
    assert found["estimates"]["output_tokens.p50"]["low"] <= found["estimates"]["output_tokens.p50"]["high"]
    rate = next(check for check in found["checks"] if check["name"] == "requests per second")
    assert rate["error"] == pytest.approx(rate["fit"] / rate["log"] - 1.0) and rate["ok"]
    assert as_json(capsys, "show", profile, "--requests", "40")["figures"]["requests"] == 40


@pytest.mark.parametrize("format", ["mooncake", "azure", "csv", "jsonl", "parquet"])
def test_what_is_converted_reads_back_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path, format: str) -> None:
    suffix = {"mooncake": "jsonl", "azure": "csv"}.get(format, format)
    file = tmp_path / f"out.{suffix}"
    assert as_json(capsys, "convert", EXCERPT, file, "--to", format)["requests"] == 300
    names_ = ["time=time_s", "prompt_tokens=prompt_tokens", "output_tokens=output_tokens"]
    columns = [] if format in ("mooncake", "azure") else [word for name in names_ for word in ("--columns", name)]
    back = as_json(capsys, "show", file, *columns)["figures"]
    original = as_json(capsys, "show", EXCERPT)["figures"]
    for key in ("requests", "prompt_tokens", "output_tokens"):
        assert back[key] == original[key]
    assert back["seconds"] == pytest.approx(original["seconds"], abs=0.002)


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments in (
        ["list"], ["show", "rag"], ["plan", "rag", "-o", tmp_path / "p"], ["preview", "rag", "-o", tmp_path / "h"],
        ["fit", EXCERPT, "-o", tmp_path / "f"], ["convert", EXCERPT, tmp_path / "c", "--to", "csv"],
    ):  # fmt: skip
        assert workload(capsys, *arguments, "--quiet") == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "chat-gatewy"], "neither a profile nor a file. Did you mean 'chat-gateway'?"),
        (["show", "nothing-like-it"], "Profiles: agentic-coding"),
        (["show", "rag", "--rate", "3/q"], "arrivals.rate: '3/q' is not a rate"),
        (["show", "chat-long", "--max-context", "9000", "--over-context", "error"], "exceed 9,000 tokens"),
        (["convert", EXCERPT, "x", "--to", "xml"], "It writes: mooncake"),
        (["show", EXCERPT, "--columns", "tokens"], "is not KEY=COLUMN"),
        (["fit", EXCERPT, "-o", "/nowhere/at/all.yaml"], "can't be written"),
        (["fit", EXCERPT, "-o", "x.yaml", "--duration", "5s"], "are too few to fit"),
        (["show", EXCERPT, "--start", "2h"], "holds 41.6 s"),
    ],
)
def test_wrong_input_ends_with_two_and_says_what_to_do(
    capsys: pytest.CaptureFixture[str], arguments: list[str | Path], says: str
) -> None:
    code, out, err = workload(capsys, *arguments)
    assert (code, out) == (2, "") and says in err
