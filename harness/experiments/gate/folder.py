"""A gate's folder: where it is, and the policy it holds, so that its verdict can be worked out again."""

import datetime
from pathlib import Path
from typing import Final

import yaml

from tailgate.harness.config import run_spec as specs
from tailgate.harness.config.masking import masked_text
from tailgate.reports.verdicts.gate.runs import SIDES
from tailgate.workloads.common.errors import UserError

POLICY: Final = "policy.yaml"


def make(out: Path | None, name: str, policy: Path | None = None) -> Path:
    """A new, empty folder (``out`` itself, or runs/<utc>-<name>), with a copy of the policy if there is one;
    secrets are masked in it, since the folder is published as a whole.

    Raises:
        UserError: it can't be made, or holds files already.
    """
    if out is None:
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        out = Path("runs") / f"{stamp}-{name}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise UserError(
                "is not empty", where=f"--out {out}", remedy="Name a new folder; runs are never overwritten."
            )
        if policy is not None:
            (out / POLICY).write_text(_public(policy.read_text()))
    except OSError as error:
        raise UserError(f"can't be written: {error.strerror}", where=f"--out {out}") from error
    return out


def _public(text: str) -> str:
    """A policy's text as it is, or made anew where something in it may be a secret."""
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
