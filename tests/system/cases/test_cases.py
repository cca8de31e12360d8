"""Small inputs that once failed, each a folder with a script that exits 0 when the behaviour is right.

They lie beside the repository, in `../shared/cases`. A script gets the command and the repository as its arguments.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.kit.paths import ROOT, SHARED_CASES

from tailgate.harness.cli import main

LONGEST_S = 300
TAILGATE = Path(sys.executable).absolute().with_name("tailgate")
FLAGS = {
    "no flag": [],
    "replay": ["--content", "replay"],
    "rate": ["--rate", "5/s"],
    "columns": ["--columns", "prompt_tokens=input_tokens", "--columns", "output_tokens=output_tokens"],
    "columns and rate": [
        *["--columns", "prompt_tokens=prompt_tokens", "--columns", "output_tokens=completion_tokens"],
        *["--rate", "5/s"],
    ],
}


def there(pattern: str) -> list[Any]:
    """What matches below the cases; without them one parameter that says so and skips its test."""
    absent = pytest.mark.skip(reason=f"there is no {SHARED_CASES / pattern}")
    return sorted(SHARED_CASES.glob(pattern)) or [pytest.param(SHARED_CASES / pattern, marks=absent)]


@pytest.mark.alone
@pytest.mark.timeout(LONGEST_S + 30)
@pytest.mark.parametrize("script", there("*/repro.sh"), ids=lambda script: script.parent.name)
def test_the_behaviour_is_right(script: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        ["bash", script, TAILGATE, ROOT], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)}, start_new_session=True,
    )  # fmt: skip
    try:
        told, _ = process.communicate(timeout=LONGEST_S)
        assert process.returncode == 0, told
    finally:  # whatever a script leaves behind is of its own session
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("file", there("files/*"), ids=lambda file: file.name)
def test_a_file_as_people_have_it_is_read_or_refused_in_one_line(
    file: Path, flags: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["workload", "plan", str(file), *FLAGS[flags], "--quiet", "-o", str(tmp_path / "plan")])
    told = capsys.readouterr().err
    assert (code, told) == (0, "") or (code == 2 and told.startswith("tailgate workload: ")), told
    assert len(told.splitlines()) <= 1
    assert "unexpected error" not in told
