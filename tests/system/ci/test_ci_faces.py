"""The GitHub action and the GitLab template, run as far as that goes without GitHub and GitLab.

Their shell steps are taken from the files and executed; what would install packages or upload files is not.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.kit.fabricate import Row, fabricate
from tests.kit.paths import ROOT

from tailgate.reports.build import build

ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
GITLAB = yaml.safe_load((ROOT / "ci/gitlab.yml").read_text())[".tailgate-gate"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with stored runs, policies, and `tailgate` on its path."""
    folder = tmp_path_factory.mktemp("checkout")
    rng = np.random.default_rng(0)
    for name, slower, spread in (("main", 1.0, 0.002), ("same", 1.0, 0.002), ("slow", 1.3, 0.002), ("noisy", 1.0, 0.2)):
        for k in range(3):
            factor = slower * (1 + spread * (k - 1))
            rows = [Row(at=100.0 * n, ttft=100 * factor + rng.normal(), gaps=[20.0 * factor] * 3) for n in range(100)]
            build(fabricate(folder / f"{name}-{k}", rows, plan_hash=f"{name}{k}", workload_hash="w"))
    (folder / "gate.yaml").write_text("metrics: {ttft.p50: 5%}\ninconclusive: fail\n")
    (folder / "neutral.yaml").write_text("metrics: {ttft.p50: 5%}\ninconclusive: neutral\n")
    command = folder / "bin" / "tailgate"
    command.parent.mkdir()
    command.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "from tailgate.harness.cli import main; raise SystemExit(main())" "$@"\n'
    )
    command.chmod(0o755)
    return folder


def shell(script: str, checkout: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    path = f"{checkout / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        cwd=checkout, env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **env}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip


def step(name: str) -> dict:
    return next(one for one in ACTION["runs"]["steps"] if one.get("name") == name or one.get("id") == name)


def filled(env: dict[str, str], inputs: dict[str, str], contexts: dict[str, str]) -> dict[str, str]:
    """What GitHub puts in place of its expressions."""
    values = {f"inputs.{key}": one.get("default", "") for key, one in ACTION["inputs"].items()}
    values |= {f"inputs.{key}": value for key, value in inputs.items()} | contexts
    return {key: re.sub(r"\$\{\{ *(.+?) *\}\}", lambda found: values[found[1]], text) for key, text in env.items()}


def action(checkout: Path, tmp_path: Path, **inputs: str) -> tuple[subprocess.CompletedProcess[str], dict[str, str]]:
    gate = step("gate")
    inputs = {"policy": "gate.yaml", "out": str(tmp_path / "out"), "baseline": "main-*"} | inputs
    env = filled(gate["env"], inputs, {"github.action_path": str(ROOT)})
    done = shell(
        gate["run"], checkout,
        env | {"GITHUB_OUTPUT": str(tmp_path / "o"), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")},
    )  # fmt: skip
    told = dict(line.split("=", 1) for line in (tmp_path / "o").read_text().splitlines())
    return done, told


@pytest.mark.parametrize(
    ("candidate", "policy", "code", "outputs"),
    [
        ("same-*", "gate.yaml", 0, ("PASS", "0", "false")),
        ("slow-*", "gate.yaml", 1, ("FAIL", "1", "true")),
        ("noisy-*", "gate.yaml", 3, ("INCONCLUSIVE", "3", "true")),
        ("noisy-*", "neutral.yaml", 0, ("INCONCLUSIVE", "3", "false")),
        ("nothing-*", "gate.yaml", 2, ("", "2", "true")),
    ],
)
def test_the_action_tells_its_verdict_and_blocks_as_the_policy_says(
    checkout: Path, tmp_path: Path, candidate: str, policy: str, code: int, outputs: tuple[str, ...]
):
    done, told = action(checkout, tmp_path, candidate=candidate, policy=policy)
    assert done.returncode == code, done.stderr
    assert (told["verdict"], told["exit-code"], told["blocks"]) == outputs
    if outputs[0]:
        assert outputs[0] in (tmp_path / "summary.md").read_text()
        assert (tmp_path / "out" / "gate.html").exists()


def test_further_flags_reach_the_command(checkout: Path, tmp_path: Path):
    """On several lines, in quotes, and nothing of them is run or expanded by the shell."""
    junit = tmp_path / "a name $(touch ran) *.xml"
    done, _ = action(checkout, tmp_path, candidate="same-*", args=f"--quiet\n--junit '{junit}'\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PASS  ") and done.stdout.count("\n") == 1  # --quiet: the verdict alone
    assert junit.exists() and not (checkout / "ran").exists()


def test_flags_that_end_within_quotes_are_wrong_input(checkout: Path, tmp_path: Path):
    done, told = action(checkout, tmp_path, candidate="same-*", args="--junit 'x")
    assert (done.returncode, told["exit-code"], told["verdict"]) == (2, "2", "")
    assert "TAILGATE_ARGS: No closing quotation" in done.stderr


def test_an_earlier_gates_verdict_is_not_taken_for_this_ones(checkout: Path, tmp_path: Path):
    """It lies in the folder, was neutral, and this gate has none: its input is wrong."""
    action(checkout, tmp_path, candidate="noisy-*", policy="neutral.yaml")
    done, told = action(checkout, tmp_path, candidate="nothing-*", policy="neutral.yaml")
    assert done.returncode == 2
    assert (told["verdict"], told["exit-code"], told["blocks"]) == ("", "2", "true")


@pytest.mark.parametrize(
    ("candidate", "policy", "code"),
    [
        ("same-*", "gate.yaml", 0),
        ("slow-*", "gate.yaml", 1),
        ("noisy-*", "gate.yaml", 3),
        ("noisy-*", "neutral.yaml", 80),
    ],
)
def test_the_gitlab_job_exits_as_the_policy_says(
    checkout: Path, tmp_path: Path, candidate: str, policy: str, code: int
):
    out = str(tmp_path / "out")
    variables = {**GITLAB["variables"], "TAILGATE_POLICY": policy, "TAILGATE_OUT": out}
    if policy == "gate.yaml":
        variables |= {"TAILGATE_BASELINE": "main-*", "TAILGATE_CANDIDATE": candidate, "TAILGATE_ARGS": "--quiet"}
    else:
        variables["TAILGATE_ARGS"] = f"--baseline 'main-*'\n--candidate {candidate}"
    done = shell("\n".join(GITLAB["script"]), checkout, variables)
    assert done.returncode == code, done.stdout + done.stderr
    assert GITLAB["allow_failure"]["exit_codes"] == [80]
    assert GITLAB["artifacts"]["reports"]["junit"].replace("$TAILGATE_OUT", out) == f"{out}/gate.xml"
    assert Path(out, "gate.xml").exists()
