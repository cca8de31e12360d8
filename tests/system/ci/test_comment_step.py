"""The action's steps beside its gate: the comment, the artefact's name, what is installed; with a `gh` of our own."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.kit.paths import ROOT

ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
GITLAB = yaml.safe_load((ROOT / "ci/gitlab.yml").read_text())[".tailgate-gate"]
MARKER = "<!-- tailgate gate: gate.yaml -->"
PATCH = "api --method PATCH repos/o/r/issues/comments/12 --field"
NEW = "pr comment 7 --body-file"
BOT = "github-actions[bot]"


def bash(script: str, env: dict[str, str], first: Path) -> subprocess.CompletedProcess[str]:
    """Run a step, with the programs in the folder `first` before all others."""
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        env={**os.environ, **env, "PATH": f"{first}:{os.environ['PATH']}"}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def step(name: str) -> str:
    return next(one["run"] for one in ACTION["runs"]["steps"] if one.get("name") == name)


def comment(folder: Path, verdict: str = "FAIL") -> subprocess.CompletedProcess[str]:
    out = folder / "a" / "out"
    out.mkdir(parents=True)
    (out / "gate.md").write_text("## FAIL\n")
    env = {
        "ACTION": str(ROOT), "GH_TOKEN": "t", "GH_REPO": "o/r", "PULL": "7", "MARKER": MARKER, "VERDICT": verdict,
        "TAILGATE_OUT": str(out),
    }  # fmt: skip
    return bash(step("Comment"), env, folder)


@pytest.mark.parametrize(
    ("comments", "told"),
    [
        ("11 ann Looks good to me\n", NEW),
        (f"11 ann Looks good to me\n12 {BOT} <!-- tailgate gate: other.yaml -->\n", NEW),
        (f"11 mallory {MARKER}\n", NEW),
        (f"11 {BOT} quoted: {MARKER}\n", NEW),
        (f"11 mallory {MARKER}\n12 {BOT} {MARKER}\n13 {BOT} {MARKER}\n", PATCH),
    ],
)
def test_only_the_actions_own_comment_on_this_policy_is_replaced(tmp_path: Path, comments: str, told: str) -> None:
    (tmp_path / "comments").write_text(comments)
    program(
        tmp_path / "gh",
        f'case "$*" in *--paginate*) cat {tmp_path}/comments;; *) echo "$@" >> {tmp_path}/calls;; esac',
    )
    done = comment(tmp_path)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert call.startswith(told)
    assert (tmp_path / "a" / "out" / "comment.md").read_text() == f"{MARKER}\n\n## FAIL\n"


@pytest.mark.parametrize("forbidden", ["*", "*comment*7*"])
def test_without_the_right_to_comment_it_warns_and_the_check_goes_on(tmp_path: Path, forbidden: str) -> None:
    """A pull request from a fork has a token that reads, or none."""
    refusal = "echo 'gh: Resource not accessible by integration (HTTP 403)' >&2; exit 1"
    program(tmp_path / "gh", f'case "$*" in *--paginate*) [ "{forbidden}" != "*" ] && exit 0;; esac; {refusal}')
    done = comment(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("::warning::The gate's comment could not be written: gh: Resource not accessible")
    assert done.stdout.count("\n") == 1


def test_without_a_verdict_nothing_is_commented(tmp_path: Path) -> None:
    assert comment(tmp_path, verdict="").returncode == 0
    assert not (tmp_path / "a" / "out" / "comment.md").exists()


@pytest.mark.parametrize(
    ("out", "name"),
    [
        ("tailgate-gate", "tailgate-gate"),
        ("results/gate/", "results-gate"),
        ("./out", "out"),
        ("/tmp/a b", "tmp-a b"),
        ('x:"y"|z', "x--y--z"),
        ("./", "tailgate-gate"),
    ],
)
def test_a_folder_of_any_name_gives_a_name_that_an_artefact_may_have(tmp_path: Path, out: str, name: str) -> None:
    told = tmp_path / "told"
    done = bash(step("Artefact"), {"TAILGATE_OUT": out, "GITHUB_OUTPUT": str(told)}, tmp_path)
    assert (done.returncode, told.read_text()) == (0, f"name={name}\n")


@pytest.mark.parametrize(
    ("variables", "code", "told"),
    [
        ({}, 2, ""),
        ({"TAILGATE_PACKAGE": "./wheel.whl"}, 0, "-m pip install --quiet ./wheel.whl\n"),
        (
            {"TAILGATE_PACKAGE": "./wheel.whl", "TAILGATE_CONSTRAINTS": "a b.txt"},
            0,
            "-m pip install --quiet --constraint a b.txt ./wheel.whl\n",
        ),
    ],
)
def test_gitlab_installs_what_it_is_told_and_nothing_else(
    tmp_path: Path, variables: dict[str, str], code: int, told: str
) -> None:
    program(tmp_path / "python3", f'echo "$@" > {tmp_path}/calls')
    done = bash("\n".join(GITLAB["before_script"]), GITLAB["variables"] | variables, tmp_path)
    assert done.returncode == code
    calls = tmp_path / "calls"
    assert (calls.read_text() if calls.exists() else "") == told
    assert ("TAILGATE_PACKAGE is not set" in done.stderr) == (code == 2)
