"""Commands as pages of the docs show them, made quick: shorter loads, fewer steps of a calibration."""

import os
import re
import subprocess
import sys
from pathlib import Path

# How many loads `calibrate` tries.
_FEWER_STEPS = (
    "from tailgate.harness.calibrate import ladder; ladder.CHUNK_RATES = (20_000,); ladder.REQUEST_RATES = (500,); "
)
_TOO_BUSY = "Is another process keeping the cores busy?"


def blocks(page: Path, language: str) -> list[str]:
    """The page's code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)


def commands(page: Path) -> list[str]:
    """The page's `tailgate` commands, in their order."""
    return [line for block in blocks(page, "sh") for line in block.splitlines() if line.startswith("tailgate ")]


def tailgate(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    before = _FEWER_STEPS if words[0] == "calibrate" else ""
    return subprocess.run(
        [sys.executable, "-c", f"{before}from tailgate.harness.cli import main; raise SystemExit(main())", *words],
        capture_output=True, text=True, check=False, timeout=120, cwd=cwd, env={**os.environ},
    )  # fmt: skip


def requires_no_excuse(words: list[str], cwd: Path) -> None:
    """Run it: it may find the sample too small (3), which a quickened run must say, or this machine busy (4).

    A machine that is too busy to be calibrated at all is 2, said in those words; such a moment may pass.
    """
    result = tailgate(*words, cwd=cwd)
    for _ in range(2):
        if words[0] == "calibrate" and result.returncode == 2:
            result = tailgate(*words, cwd=cwd)
    busy = words[0] == "calibrate" and result.returncode == 2 and _TOO_BUSY in result.stderr
    assert result.returncode in (0, 3, 4) or busy, (words, result.returncode, result.stdout, result.stderr)
