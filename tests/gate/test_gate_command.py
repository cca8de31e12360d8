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

from reports.manifest import Manifest

ENGINE = "h100-sxm/llama-3.1-8b"
POLICY = f"""
name: e2e
baseline: {{sim: {ENGINE}, args: {{jitter: 0.05}}}}
candidate: {{sim: {ENGINE}, args: {{jitter: 0.05, max-num-seqs: 1}}}}
spec:
  workload:
    {{prompt_tokens: 64, output_tokens: 8, arrivals: {{rate: 40/s}}, duration: 1s, warmup: 500ms}}
pairs: 3
extension: null
repeat_invalid: 4
restart: {{restart}}
metrics: {{ttft.p50: 5%, tpot.mean: 5%}}
"""


def tailgate(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", "from harness.cli import main; raise SystemExit(main())", *map(str, arguments)]


def call(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(tailgate(*arguments), cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


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
    if found["verdict"] == "INVALID":
        pytest.skip(f"the machine was too busy to measure: {found['why']}")
    return found


def test_a_candidate_that_queues_fails_and_queueing_is_named(verdict: dict):
    assert verdict["verdict"] == "FAIL"
    assert {m["key"]: m["result"] for m in verdict["metrics"]}["ttft.p50"] == "fail"
    assert verdict["causes"][0]["place"] == "queue"
    assert "max_num_seqs" in verdict["causes"][0]["says"]


def test_it_is_said_that_the_engine_is_simulated_and_what_differed(verdict: dict):
    assert verdict["simulated"] is True
    assert ["launch.args.max-num-seqs", {"baseline": "-", "candidate": "1"}, True] in verdict["differences"]


def test_the_runs_are_interleaved_with_one_plan_a_pair(verdict: dict, gate):
    out, _ = gate
    runs = verdict["spent"]["runs"]
    assert [(pair, side) for _, side, _, pair in runs] == [
        (1, "baseline"), (1, "candidate"), (2, "candidate"), (2, "baseline"), (3, "baseline"), (3, "candidate"),
    ]  # fmt: skip
    plans = [Manifest.load(out / name).plan_hash for name, *_ in runs]
    assert plans[0] == plans[1] and plans[2] == plans[3] and plans[4] == plans[5] and len(set(plans)) == 3


def test_neighbouring_runs_of_one_side_share_a_launch(verdict: dict, gate):
    out, _ = gate
    if verdict["spent"]["repeated"]:
        pytest.skip("pairs were measured again: the order of launches is another")
    commands = [Manifest.load(out / name).target.life["command"] for name, *_ in verdict["spent"]["runs"]]
    assert commands[1] == commands[2] and commands[3] == commands[4]
    assert commands[0] != commands[1]


def test_the_folder_is_judged_again_from_its_files(verdict: dict, gate):
    out, done = gate
    again = call("gate", out, "--json", cwd=out.parent)
    assert again.returncode == done.returncode
    assert json.loads(again.stdout) == verdict


def test_nothing_is_left_running(gate):
    mine = [
        one for one in psutil.process_iter(["cmdline"])
        if "harness.engine" in (one.info["cmdline"] or []) and str(gate[0]) in " ".join(one.info["cmdline"])
    ]  # fmt: skip
    assert mine == []


def test_an_interrupted_gate_keeps_its_runs_and_exits_130(tmp_path: Path):
    (tmp_path / "p.yaml").write_text(POLICY.replace("{restart}", "each").replace("duration: 1s", "duration: 60s"))
    process = subprocess.Popen(
        tailgate("gate", "--policy", "p.yaml", "--out", "out", "--quiet"),
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
