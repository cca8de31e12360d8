"""What a gate writes: nothing of it loses a verdict, and what can't be written is said before anything is measured."""

import json
from pathlib import Path

import pytest
import yaml
from tests.kit.fabricate import Row, fabricate

from tailgate.harness.cli import main
from tailgate.harness.cli.experiments.gate import _command
from tailgate.harness.experiments.gate import outputs
from tailgate.harness.experiments.gate.policy_copy import POLICY, public_policy
from tailgate.reports.build import build
from tailgate.reports.documents.gate import history
from tailgate.workloads.common.errors import UserError


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stored runs of two sides that are alike, and a policy that remembers its verdicts."""
    monkeypatch.chdir(tmp_path)
    for side in ("main", "pr"):
        for k in range(3):
            rows = [Row(at=100.0 * n, ttft=100 + k / 10, gaps=[20.0] * 3) for n in range(100)]
            build(fabricate(tmp_path / f"{side}-{k}", rows, plan_hash=f"p{k}", workload_hash="w"))
    (tmp_path / "p.yaml").write_text("metrics: {ttft.p50: 5%}\nhistory: kept/h.jsonl\n")
    return tmp_path


def gate(*flags: str) -> int:
    return main(["gate", "--policy", "p.yaml", "--baseline", "main-*", "--candidate", "pr-*", "--quiet", *flags])


@pytest.mark.parametrize("flag", ["--junit", "--markdown"])
def test_a_copy_that_can_not_be_written_is_said_before_anything_is_judged(checkout: Path, capsys, flag: str):
    assert gate("--out", "out", flag, "nowhere/x") == 2
    assert f"{flag} nowhere/x: cannot be written" in capsys.readouterr().err
    assert not (checkout / "out").exists()


def test_a_damaged_history_is_said_before_anything_is_judged(checkout: Path, capsys):
    (checkout / "kept").mkdir()
    (checkout / "kept" / "h.jsonl").write_text("{damaged\n")
    assert gate("--out", "out") == 2
    assert "h.jsonl:1: is not JSON" in capsys.readouterr().err and not (checkout / "out").exists()


def test_what_breaks_meanwhile_is_told_and_the_verdict_stands(checkout: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise UserError("cannot be written: No space left on device", where="h.jsonl")

    monkeypatch.setattr(outputs.gate_history, "append", full)
    assert gate("--out", "out") == 0
    assert "No space left" in capsys.readouterr().err
    assert json.loads((checkout / "out" / "verdict.json").read_text())["verdict"] == "PASS"


def test_every_verdict_is_remembered_and_drawn(checkout: Path):
    assert [gate("--out", "out"), gate("--out", "out2")] == [0, 0]
    assert [one.verdict for one in history.read(checkout / "kept" / "h.jsonl")] == ["PASS", "PASS"]


def test_a_folder_that_is_judged_again_is_not_remembered_twice(checkout: Path):
    (checkout / "folder").mkdir()
    policy = "metrics: {ttft.p50: 5%}\npairs: 3\nextension: null\nhistory: kept/h.jsonl\n"
    (checkout / "folder" / POLICY).write_text(policy)
    for side in ("main", "pr"):
        for k in range(3):
            (checkout / f"{side}-{k}").rename(checkout / "folder" / f"{side}-{k}")
    runs = [
        (f"{name}-{k}", side, "load", k + 1)
        for name, side in (("main", "baseline"), ("pr", "candidate"))
        for k in range(3)
    ]
    campaign = {"schema": "tailgate.gate/1", "runs": runs, "repeated": [], "command": [], "gone": None}
    (checkout / "folder" / "gate.json").write_text(json.dumps(campaign))
    assert main(["gate", "folder", "--quiet"]) == 0
    assert main(["gate", "folder", "--policy", "folder/policy.yaml", "--quiet"]) == 0
    assert not list(checkout.rglob("h.jsonl"))


def test_a_folder_that_a_glob_names_and_that_is_no_run_is_not_passed_over(checkout: Path, capsys):
    (checkout / "main-9").mkdir()
    assert gate() == 2
    assert "--baseline: 'main-*' matches main-9, which is no run" in capsys.readouterr().err


def test_the_command_to_do_it_again_leaves_its_folder_out():
    assert _command(["--out", "x", "--policy", "p", "--quiet"]) == ["tailgate", "gate", "--policy", "p", "--quiet"]
    assert _command(["--policy", "p", "--out=x"]) == ["tailgate", "gate", "--policy", "p"]


@pytest.mark.parametrize("sets", ["0", "-5"])
def test_a_self_test_without_sets_is_wrong_input(capsys, sets: str):
    assert main(["gate", "--self-test", "--sets", sets]) == 2
    assert "--sets" in capsys.readouterr().err


class TestPolicyInTheFolder:
    SECRETS = """\
# mine
baseline: http://me:hunter2@main:8000
candidate:
  kind: vllm
  model: m
  env: {HF_TOKEN: hf_abc, PORT: "1"}
  args: {api-key: hunter3}
spec:
  target: {headers: {Authorization: Bearer hunter4}, auth: {command: vault read --token hunter5}}
  workload: {profile: chat-gateway}
metrics: {ttft.p50: 5%}
"""

    def kept(self, tmp_path: Path, text: str) -> str:
        (tmp_path / "p.yaml").write_text(text)
        return public_policy(tmp_path / "p.yaml")

    def test_holds_no_secret(self, tmp_path: Path):
        text = self.kept(tmp_path, self.SECRETS)
        assert not any(secret in text for secret in ("hunter", "hf_abc"))
        found, given = yaml.safe_load(text), yaml.safe_load(self.SECRETS)
        assert found["baseline"] == "http://***@main:8000" and found["candidate"]["env"]["PORT"] == "1"
        assert (found["metrics"], found["spec"]["workload"]) == (given["metrics"], given["spec"]["workload"])

    def test_is_as_it_was_written_where_there_is_none(self, tmp_path: Path):
        text = "# mine\nbaseline: http://a:1\ncandidate: http://b:1\nmetrics: {ttft.p50: 5%}\n"
        assert self.kept(tmp_path, text) == text
