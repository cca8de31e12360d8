"""The tutorials are kept true: their files are written and their commands run, in their order, with shorter loads."""

import re
import shlex
from pathlib import Path

import pytest
from tests.kit.docs import blocks, commands, requires_no_excuse
from tests.kit.paths import ROOT

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
# Calibrating takes a quiet machine: tests/system/test_readme.py runs that command.
OF_README = commands(ROOT / "README.md")
QUICKER = [
    (r"duration: \d+\w+", "duration: 2s"),
    (r"warmup: \d+\w+", "warmup: 0.2s"),
    (r"rate: \d+/s", "rate: 30/s"),
    (r"output_tokens: \d+", "output_tokens: 8"),
    # Of the policy that `gate init` writes.
    (r"pairs: 5", "pairs: 3"),
    (r"extension: 10", "extension: null"),
    (r"restart: each", "restart: never"),
]


def quickened(file: Path) -> None:
    text = file.read_text()
    for pattern, instead in QUICKER:
        text = re.sub(pattern, instead, text)
    if "warmup" not in text:
        text = text.replace("duration: 2s", "duration: 2s\n  warmup: 0.2s")
    file.write_text(text)


def test_there_are_three_tutorials_and_the_index_leads_with_them() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    assert [page.stem for page in TUTORIALS] == ["choose-between-settings", "gate-a-pull-request", "sign-off-a-launch"]
    assert all(index.index(f"tutorials/{page.name}") < index.index("## Reference") for page in TUTORIALS)


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_every_command_of_a_tutorial_works(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "yaml"):
        if name := re.match(r"# (\S+\.yaml)\n", block):
            (tmp_path / name[1]).write_text(block)
            quickened(tmp_path / name[1])
    assert len(commands(page)) >= 4
    for command in commands(page):
        if command in OF_README:
            continue
        words = shlex.split(command)[1:]
        if words[0] == "compare":
            words.append("--anyway")  # a run of two seconds may be INVALID on a busy machine
        requires_no_excuse(words, tmp_path)
        if words[:2] == ["gate", "init"]:
            quickened(tmp_path / "gate.yaml")
