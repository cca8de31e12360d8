"""A gate from end to end on the embedded engine: real servers, real traffic, real documents.

On a machine that is busy with other things a gate may rightly be INVALID; these tests are about other matters.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from tests.kit.busy import skip_if_too_busy
from tests.kit.command import command

from tailgate.reports.rundir.manifest import Manifest
from tailgate.workloads.plan.plan import read_plan

pytestmark = pytest.mark.alone

ENGINE = "h100-sxm/llama-3.1-8b"
POLICY = f"""
name: e2e
baseline: {{sim: {ENGINE}, args: {{jitter: 0.05}}}}
candidate: {{sim: {ENGINE}, args: {{jitter: 0.05, max-num-seqs: 1}}}}
spec:
  workload:
    {{prompt_tokens: 64, output_tokens: 8, duration: 1s, warmup: 500ms}}
points: {{calm: 0.4x, saturated: closed 6}}
pairs: 3
extension: null
repeat_invalid: 4
restart: {{restart}}
metrics: {{ttft.p50: 5%, output_tokens_per_s: -3%}}
"""


def call(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A candidate whose batch has room for one request only."""
    folder = tmp_path_factory.mktemp("gate")
    (folder / "p.yaml").write_text(POLICY.replace("{restart}", "block"))
    return folder / "out", call("gate", "--policy", "p.yaml", "--out", "out", "--json", cwd=folder)


@pytest.fixture(scope="module")
def verdict(gate: tuple[Path, subprocess.CompletedProcess[str]]) -> dict:
    out, done = gate
    assert done.returncode in (1, 4), done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((out / "verdict.json").read_text())
    skip_if_too_busy(found)
    return found


def test_a_candidate_that_queues_fails_and_queueing_is_named(verdict: dict):
    assert verdict["verdict"] == "FAIL"
    results = {(m["key"], m["point"]): m["result"] for m in verdict["metrics"]}
    assert results == {("ttft.p50", "calm"): "fail", ("output_tokens_per_s", "saturated"): "fail"}
    assert verdict["causes"][0]["place"] == "queue"
    assert "max_num_seqs" in verdict["causes"][0]["says"]


def test_it_is_said_that_the_engine_is_simulated_and_what_differed(verdict: dict):
    assert verdict["simulated"] is True
    assert ["launch.args.max-num-seqs", {"baseline": "-", "candidate": "1"}, "declared"] in verdict["differences"]


def test_the_runs_are_interleaved_with_one_plan_a_pair(verdict: dict, gate):
    out, _ = gate
    runs = verdict["spent"]["runs"]
    sides = ["baseline", "candidate", "candidate", "baseline", "baseline", "candidate"]
    assert [(pair, side, point) for _, side, point, pair in runs] == [
        (place // 2 + 1, side, point) for place, side in enumerate(sides) for point in ("calm", "saturated")
    ]
    plans = {name: Manifest.load(out / name).plan_hash for name, *_ in runs}
    by_pair = [{plans[name] for name, _, at, k in runs if (at, k) == ("calm", pair)} for pair in (1, 2, 3)]
    assert [len(one) for one in by_pair] == [1, 1, 1] and len(set.union(*by_pair)) == 3


def test_a_share_is_of_what_the_baseline_carries_at_saturation(verdict: dict, gate):
    out, _ = gate
    runs = [out / name for name, side, point, _ in verdict["spent"]["runs"] if (side, point) == ("baseline", "calm")]
    rates = {Manifest.load(run).spec["workload"]["arrivals"]["rate"] for run in runs}
    assert rates == {verdict["spent"]["rates"]["calm"]}
    phases = [read_plan(run / "plan.parquet")["phase"].to_pylist() for run in runs]
    planned = sum(one.count("measure") for one in phases) / len(phases)  # of one second each
    carried = json.loads(newest_rates(out).read_text())["throughput"]["requests_per_s"]
    assert planned == pytest.approx(0.4 * carried, rel=0.03)


def newest_rates(out: Path) -> Path:
    """The last try to find out what the baseline carries."""
    return sorted(out.glob("rates-saturated*"), key=lambda path: path.stat().st_mtime)[-1] / "summary.json"


def test_neighbouring_runs_of_one_side_share_a_launch(verdict: dict, gate):
    out, _ = gate
    if verdict["spent"]["repeated"]:
        pytest.skip("pairs were measured again: the order of launches is another")
    commands = [Manifest.load(out / name).target.life["command"] for name, *_ in verdict["spent"]["runs"]]
    assert commands[2] == commands[3] == commands[4] == commands[5] and commands[6] == commands[9]
    assert commands[1] != commands[2]


def test_the_folder_is_judged_again_from_its_files(verdict: dict, gate):
    out, done = gate
    again = call("gate", out, "--json", cwd=out.parent)
    assert again.returncode == done.returncode
    assert json.loads(again.stdout) == verdict


def test_its_runs_are_stored_runs_too_and_find_their_points(verdict: dict, gate):
    out, _ = gate
    (counted := out.parent / "counted").mkdir()  # a pair measured again leaves its failed runs in the folder too
    for name, *_ in verdict["spent"]["runs"]:
        (counted / name).symlink_to(out / name)
    again = call(
        "gate", "--policy", "p.yaml", "--json", "--baseline", "counted/pair*-baseline-*", "--candidate",
        "counted/pair*-candidate-*", cwd=out.parent,
    )  # fmt: skip
    found = json.loads(again.stdout)
    assert (again.returncode, found["verdict"]) == (1, "FAIL"), again.stderr
    assert {(m["point"], m["how"]) for m in found["metrics"]} == {("calm", "unpaired"), ("saturated", "unpaired")}
    assert found["command"][:4] == ["tailgate", "gate", "--policy", "p.yaml"]


def test_a_candidate_that_does_not_come_up_fails_and_its_last_words_are_shown(tmp_path: Path):
    policy = {
        "baseline": {"sim": ENGINE},
        "candidate": {
            "kind": "command", "url": "http://127.0.0.1:9", "model": "m",
            "command": f"{sys.executable} -c \"raise SystemExit('out of memory')\"",
        },
        "spec": {"workload": {"prompt_tokens": 8, "output_tokens": 2, "arrivals": {"rate": "40/s"}, "duration": "1s"}},
        "under_test": ["*"], "metrics": {"ttft.p50": "5%"}, "pairs": 3,
    }  # fmt: skip
    policy["spec"]["workload"]["warmup"] = "300ms"
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(policy))
    done = call("gate", "--policy", "p.yaml", "--out", "out", "--json", cwd=tmp_path)
    assert done.returncode in (1, 4), done.stderr
    found = json.loads(done.stdout)
    skip_if_too_busy(found)
    assert found["verdict"] == "FAIL"
    assert "The candidate does not work: its server did not come up" in found["why"]
    assert "exit code 1" in found["why"]
    assert [metric["result"] for metric in found["metrics"]] == ["withheld"]
    assert (found["pairs"], [side for _, side, *_ in found["spent"]["runs"]]) == (0, ["baseline"])
    assert call("gate", "out", "--json", cwd=tmp_path).stdout == done.stdout


def test_a_pilot_measures_the_baseline_and_writes_a_policy_that_a_dry_run_accepts(tmp_path: Path):
    (tmp_path / "s.yaml").write_text(
        "workload: {prompt_tokens: 64, output_tokens: 8, arrivals: {rate: 60/s}, duration: 1s, warmup: 300ms}\n"
    )
    done = call(
        "gate", "init", "--pilot", "3", "--baseline", f"sim:{ENGINE}", "--candidate", f"sim:{ENGINE}",
        "--spec", "s.yaml", "--out", "pilot", cwd=tmp_path,
    )  # fmt: skip
    if "measuring failed" in done.stderr:
        pytest.skip(f"the machine was too busy to measure: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "pilot").iterdir()) == ["pilot01", "pilot02", "pilot03"]
    text = (tmp_path / "gate.yaml").read_text()
    assert "ttft.p90" in done.stdout and "an unchanged system passes in" in done.stdout
    assert all(f"# {line}" in text for line in done.stdout.splitlines() if line.startswith("  "))
    dry = call("gate", "--policy", "gate.yaml", "--dry-run", cwd=tmp_path)
    pairs = yaml.safe_load(text)["pairs"]
    assert dry.returncode == 0 and f"{2 * pairs} launches" in dry.stdout, dry.stderr


def test_nothing_is_left_running(gate):
    mine = [
        one for one in psutil.process_iter(["cmdline"])
        if "tailgate.harness.engine" in (one.info["cmdline"] or []) and str(gate[0]) in " ".join(one.info["cmdline"])
    ]  # fmt: skip
    assert mine == []


def test_an_interrupted_gate_keeps_its_runs_and_exits_130(tmp_path: Path):
    text = POLICY.replace("{restart}", "each").replace("duration: 1s", "duration: 60s")
    text = text.replace("points: {calm: 0.4x, saturated: closed 6}\n", "").replace(", output_tokens_per_s: -3%", "")
    (tmp_path / "p.yaml").write_text(text.replace("duration:", "arrivals: {rate: 40/s}, duration:"))
    process = subprocess.Popen(
        command("gate", "--policy", "p.yaml", "--out", "out", "--quiet"),
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ},
    )  # fmt: skip
    spool = tmp_path / "out" / "pair01-1-baseline" / "spool" / "injector-0.arrows"
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if spool.exists() and spool.stat().st_size > 5_000:
            break
        time.sleep(0.05)  # between two looks
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert Manifest.load(tmp_path / "out" / "pair01-1-baseline").state == "interrupted"
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []


def test_a_gate_that_was_killed_goes_on_and_makes_no_finished_run_again(tmp_path: Path):
    text = POLICY.replace("{restart}", "each").replace(", output_tokens_per_s: -3%", "")
    text = text.replace("points: {calm: 0.4x, saturated: closed 6}\n", "")
    (tmp_path / "p.yaml").write_text(text.replace("duration:", "arrivals: {rate: 40/s}, duration:"))
    process = subprocess.Popen(
        command("gate", "--policy", "p.yaml", "--out", "out", "--quiet"),
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    journal = tmp_path / "out" / "campaign.json"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if journal.exists() and len(json.loads(journal.read_text())["finished"]) >= 2:
            break
        time.sleep(0.05)  # between two looks
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait(timeout=30)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    finished = [run["label"] for run in json.loads(journal.read_text())["finished"]]
    before = {label: (tmp_path / "out" / label / "manifest.json").stat().st_mtime_ns for label in finished}
    done = call("gate", "--policy", "p.yaml", "--resume", "out", "--json", cwd=tmp_path)
    assert done.returncode in (1, 4), done.stderr
    verdict = json.loads(done.stdout)
    assert before == {label: (tmp_path / "out" / label / "manifest.json").stat().st_mtime_ns for label in finished}
    if verdict["verdict"] != "INVALID":
        assert verdict["pairs"] == 3
    assert call("gate", "out", "--json", cwd=tmp_path).stdout == done.stdout
