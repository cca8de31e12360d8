"""The GitHub action and the GitLab template agree with what their steps read and write."""

import re

import yaml
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
