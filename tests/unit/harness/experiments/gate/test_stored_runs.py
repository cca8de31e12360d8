"""`tailgate gate` on run directories: exit codes, what makes them INVALID, thresholds, bad input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.kit.fabricate import Row, S, fabricate

from tailgate.harness.cli import main
from tailgate.reports.build import build
from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.rundir.telemetry import GPU_SCHEMA
from tailgate.reports.verdicts.gate.runs import GateRecord

REQUESTS = 400
POLICY = "metrics: {ttft.p50: 5%, tpot.mean: 5%}\npairs: 3\nextension: null\n"


def scrapes(finished: int = REQUESTS) -> list[tuple[float, str, str, float]]:
    totals = {
        "vllm:prompt_tokens_total": 10 * REQUESTS,
        "vllm:generation_tokens_total": 5 * REQUESTS,
        "vllm:request_success_total": finished,
    }
    return [(t, n, '{"engine":"0"}', s * v) for n, v in totals.items() for t, s in ((-0.1, 0.0), (12.0, 1.0))]


def make(folder: Path, name: str, slower: float = 1.0, seed: int = 0, **more) -> Path:
    """A run of 400 requests over ten seconds whose latencies are `slower` times what they would be."""
    rng = np.random.default_rng(seed)
    rows = [
        Row(at=25.0 * k, ttft=slower * (100 + 5 * rng.standard_normal()), gaps=[slower * 20.0] * 4)
        for k in range(REQUESTS)
    ]
    finished = more.pop("finished", REQUESTS)
    keys = {"plan_hash": f"p{seed}", "workload_hash": "w", "isolation": "exclusive", "t0_unix_ns": seed * S}
    run = fabricate(folder / name, rows, server=scrapes(finished), **(keys | more))
    build(run)
    return run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs each of main, of the same again, and of something a fifth slower."""
    folder = tmp_path_factory.mktemp("runs")
    for k in range(3):
        noise = 1 + 0.002 * k
        make(folder, f"main-{k}", noise, seed=k)
        make(folder, f"same-{k}", noise, seed=10 + k)
        make(folder, f"slow-{k}", 1.2 * noise, seed=20 + k)
    (folder / "p.yaml").write_text(POLICY)
    return folder


@pytest.fixture
def gate(store: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(store)
    return lambda *arguments: main(["gate", "--policy", "p.yaml", *map(str, arguments)])


@pytest.mark.parametrize(("candidate", "code", "word"), [("same-*", 0, "PASS"), ("slow-*", 1, "FAIL")])
def test_stored_runs_are_compared_by_globs(gate, capsys, candidate: str, code: int, word: str):
    assert gate("--baseline", "main-*", "--candidate", candidate) == code
    out = capsys.readouterr().out
    assert word in out and "TTFT p50" in out and "unpaired" in out


def test_json_is_the_verdict_and_nothing_else(gate, capsys):
    gate("--baseline", "main-*", "--candidate", "slow-*", "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["verdict"]) == ("tailgate.verdict/1", "FAIL")
    assert found["metrics"][0]["ratio"] == pytest.approx(1.2, rel=0.01)


def test_documents_go_where_they_are_asked_for(gate, tmp_path: Path):
    gate("--baseline", "main-*", "--candidate", "same-*", "--out", tmp_path / "docs", "--junit", tmp_path / "j.xml",
         "--markdown", tmp_path / "m.md", "--history", tmp_path / "h.jsonl", "--quiet")  # fmt: skip
    assert (tmp_path / "docs" / "gate.html").exists()
    assert "<testsuite" in (tmp_path / "j.xml").read_text() and "PASS" in (tmp_path / "m.md").read_text()
    assert json.loads((tmp_path / "h.jsonl").read_text())["verdict"] == "PASS"


def paired_folder(store: Path, folder: Path, candidate: str) -> Path:
    """A gate's folder made of stored runs."""
    runs = []
    for k in range(3):
        for side, name in (("baseline", f"main-{k}"), ("candidate", f"{candidate}-{k}")):
            shutil.copytree(store / name, folder / f"pair{k + 1:02}-{side}")
            manifest = Manifest.load(folder / f"pair{k + 1:02}-{side}")
            manifest.model_copy(update={"plan_hash": f"p{k}"}).save(folder / f"pair{k + 1:02}-{side}")
            runs.append((f"pair{k + 1:02}-{side}", side, "load", k + 1))
    GateRecord(runs=tuple(runs), seconds=60.0, extension=False).save(folder)
    (folder / "policy.yaml").write_text(POLICY)
    return folder


def test_a_gates_folder_is_judged_again_from_its_files_alone(store: Path, tmp_path: Path, capsys):
    folder = paired_folder(store, tmp_path / "gate", "slow")
    assert main(["gate", str(folder), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["pairs"] == 3 and found["metrics"][0]["how"] == "paired"
    assert main(["gate", str(folder), "--quiet"]) == 1
    assert json.loads((folder / "verdict.json").read_text()) == found


class TestInvalid:
    """Each fault of the measuring makes the whole verdict INVALID, exit code 4."""

    def judged(self, store: Path, tmp_path: Path, capsys, **fault) -> dict:
        folder = paired_folder(store, tmp_path / "gate", "same")
        shutil.rmtree(folder / "pair02-candidate")
        run = make(folder, "pair02-candidate", **({"seed": 1} | fault))
        if gpu := fault.pop("gpu", None):
            gpu(run)
        assert main(["gate", str(folder), "--json"]) == 4
        found = json.loads(capsys.readouterr().out)
        assert (found["verdict"], found["metrics"]) == ("INVALID", [])
        return {one["check"]: one for one in found["obstacles"]}

    def test_a_clock_that_stepped(self, store: Path, tmp_path: Path, capsys):
        found = self.judged(store, tmp_path, capsys, jump_ms=30.0)
        assert "30 ms (at most 0.1 ms)" in found["clock"]["says"] and "synchronisation" in found["clock"]["remedy"]

    def test_a_throttled_gpu(self, store: Path, tmp_path: Path, capsys):
        folder = paired_folder(store, tmp_path / "gate", "same")
        for name in ("pair02-candidate", "pair02-baseline"):
            ticks = range(-20, 130)
            rows = [
                {"t_ns": k * S // 10, "gpu": "GPU-a", "name": figure, "value": value}
                for k in ticks
                for figure, value in (("power_w", 300.0), ("throttle_reasons", 64.0 if k > 60 else 0.0))
            ]
            pq.write_table(pa.Table.from_pylist(rows, GPU_SCHEMA), folder / name / "gpu.parquet")
            build(folder / name)
        assert main(["gate", str(folder), "--json"]) == 4
        found = json.loads(capsys.readouterr().out)
        assert {one["check"] for one in found["obstacles"]} == {"gpu_slowdown"}

    def test_a_different_plan(self, store: Path, tmp_path: Path, capsys):
        found = self.judged(store, tmp_path, capsys, plan_hash="other")
        assert "pair 2" in found["plan"]["says"]

    def test_foreign_traffic(self, store: Path, tmp_path: Path, capsys):
        found = self.judged(store, tmp_path, capsys, finished=REQUESTS + 40)
        assert "40 requests" in found["foreign_traffic"]["says"]

    def test_a_run_that_was_interrupted(self, store: Path, tmp_path: Path, capsys):
        assert "interrupted" in self.judged(store, tmp_path, capsys, state="interrupted")


class TestThresholds:
    @pytest.mark.parametrize(
        ("limits", "code", "word"),
        [
            ("{ttft: p99 < 200ms, errors: < 5%}", 0, "met"),
            ("{ttft: p50 < 50ms}", 1, "broken"),
            ("{ttft: p50 < 100ms}", 3, "can't tell"),
        ],
    )
    def test_one_run_is_held_against_them_with_its_bounds(
        self, store: Path, tmp_path: Path, capsys, limits: str, code: int, word: str
    ):
        (tmp_path / "slo.yaml").write_text(f"thresholds: {limits}\n")
        assert main(["gate", "--policy", str(tmp_path / "slo.yaml"), str(store / "main-0")]) == code
        assert word in capsys.readouterr().out

    def test_of_several_runs_the_run_is_the_sample(self, store: Path, tmp_path: Path, capsys):
        (tmp_path / "slo.yaml").write_text("thresholds: {ttft: p50 < 110ms}\n")
        assert main(["gate", "--policy", str(tmp_path / "slo.yaml"), str(store / "main-*"), "--json"]) == 0
        (one,) = json.loads(capsys.readouterr().out)["thresholds"]
        assert 99 < one["below"] < one["value"] < one["above"] < 103

    def test_they_can_fail_a_comparison_that_is_not_slower(self, store: Path, tmp_path: Path):
        (tmp_path / "both.yaml").write_text(POLICY + "thresholds: {ttft: p50 < 50ms}\n")
        sides = ["--baseline", str(store / "main-*"), "--candidate", str(store / "same-*")]
        assert main(["gate", "--policy", str(tmp_path / "both.yaml"), *sides, "--quiet"]) == 1


class TestBadInput:
    def said(self, capsys, code: int) -> str:
        assert code == 2
        return capsys.readouterr().err

    def test_no_baseline_found(self, gate, capsys):
        err = self.said(capsys, gate("--baseline", "nothing-*", "--candidate", "same-*"))
        assert "no run directory matches 'nothing-*': there is no baseline" in err

    def test_one_run_only(self, gate, capsys):
        err = self.said(capsys, gate("--baseline", "main-*", "--candidate", "same-0"))
        assert "1 of the candidate" in err and "at least two" in err

    def test_one_side_only(self, gate, capsys):
        assert "--candidate: is missing" in self.said(capsys, gate("--baseline", "main-*"))

    def test_the_same_run_on_both_sides(self, gate, capsys):
        assert "main-1 is on both sides" in self.said(capsys, gate("--baseline", "main-*", "--candidate", "main-1"))

    @pytest.mark.parametrize("name", ["manifest.json", "summary.json"])
    def test_runs_of_another_schema_version(self, store: Path, tmp_path: Path, capsys, name: str):
        folder = paired_folder(store, tmp_path / "gate", "same")
        path = folder / "pair01-baseline" / name
        path.write_text(path.read_text().replace(f"tailgate.{name[:-5]}/1", f"tailgate.{name[:-5]}/2"))
        err = self.said(capsys, main(["gate", str(folder)]))
        assert "newer tailgate" in err and "Upgrade" in err

    def test_a_metric_that_one_side_lacks(self, store: Path, tmp_path: Path, capsys):
        (tmp_path / "cost.yaml").write_text("metrics: {ttft.p99.9: 10%}\n")
        sides = ["--baseline", str(store / "main-*"), "--candidate", str(store / "same-*")]
        assert main(["gate", "--policy", str(tmp_path / "cost.yaml"), *sides]) == 3
        assert "needs" in capsys.readouterr().out
        (tmp_path / "goodput.yaml").write_text("metrics: {goodput: -3%}\n")
        assert "load-limited" in self.said(capsys, main(["gate", "--policy", str(tmp_path / "goodput.yaml"), *sides]))

    def test_no_policy(self, capsys):
        assert "gate init" in self.said(capsys, main(["gate", "--baseline", "a", "--candidate", "b"]))

    def test_nothing_to_judge(self, gate, capsys):
        assert "nothing to judge" in self.said(capsys, gate("main-0"))
