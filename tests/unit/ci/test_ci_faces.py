"""The GitHub action and the GitLab template agree with what their steps read and write."""

import re
import tomllib

import yaml
from packaging.requirements import Requirement
from tests.kit.paths import ROOT

ACTION = yaml.safe_load((ROOT / "action.yml").read_text())


def test_the_actions_outputs_are_those_its_step_writes():
    written = set(re.findall(r"(\S+?)=%s", (ROOT / "ci/gate.sh").read_text().replace("\\n", " ").replace("'", " ")))
    assert set(ACTION["outputs"]) == written
    for name, one in ACTION["outputs"].items():
        assert one["value"] == f"${{{{ steps.gate.outputs.{name} }}}}"


def test_every_input_the_steps_ask_for_exists():
    asked = set(re.findall(r"inputs\.([a-z-]+)", (ROOT / "action.yml").read_text()))
    assert asked == set(ACTION["inputs"])


def test_actions_are_named_by_digest():
    """A tag can be moved to other code."""
    used = [one["uses"] for one in ACTION["runs"]["steps"] if "uses" in one]
    assert used and all(re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", one) for one in used)


def test_gitlab_has_no_package_by_default():
    """Whoever owns a bare name on a package index would decide what runs."""
    variables = yaml.safe_load((ROOT / "ci/gitlab.yml").read_text())[".tailgate-gate"]["variables"]
    assert variables["TAILGATE_PACKAGE"] == ""


def test_both_faces_take_the_same():
    """What one CI system can be told, the other can: but for what GitHub alone has."""
    of_github = {"package", "constraints", "policy", "baseline", "candidate", "args", "out"}
    assert set(ACTION["inputs"]) == of_github | {"python-version", "comment"}
    variables = yaml.safe_load((ROOT / "ci/gitlab.yml").read_text())[".tailgate-gate"]["variables"]
    assert {name.removeprefix("TAILGATE_").lower() for name in variables} == of_github
    for name, value in variables.items():
        default = ACTION["inputs"][name.removeprefix("TAILGATE_").lower()].get("default", "gate.yaml")
        assert value == default, name


def test_the_constraints_hold_every_dependency_to_a_version_that_the_project_allows():
    lines = (ROOT / "ci/constraints.txt").read_text().splitlines()
    held = dict(line.split("==") for line in lines if not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for one in map(Requirement, project["dependencies"]):
        assert one.specifier.contains(held[one.name]), one.name
