"""The policy as a gate's folder holds it: its verdict can be worked out again from it, and it holds no secret."""

from pathlib import Path
from typing import Final

import yaml

from tailgate.harness.config import run_spec as specs
from tailgate.harness.config.masking import masked_text
from tailgate.reports.verdicts.gate.runs import SIDES

POLICY: Final = "policy.yaml"


def public_policy(file: Path) -> str:
    """A policy's text as it is, or made anew where something in it may be a secret, since the folder is published."""
    text = file.read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    shown = dict(data)
    for key in {*SIDES, "spec"} & data.keys():
        part = data[key]
        if isinstance(part, str):
            shown[key] = masked_text(part)
        elif isinstance(part, dict):
            whole = key == "spec" or "target" in part
            shown[key] = specs.masked(part) if whole else specs.masked({"target": part})["target"]
    if shown == data:
        return text
    return "# As it was given, but for secrets (***).\n" + yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
