"""The `tailgate` fixture: the command line, run in a temporary folder."""

import os
import subprocess
from pathlib import Path

import pytest
from tests.kit.command import Said, Tailgate, command


@pytest.fixture
def tailgate(tmp_path: Path) -> Tailgate:
    def call(*arguments: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> Said:
        done = subprocess.run(
            command(*arguments),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=cwd or tmp_path,
            env={**os.environ, **(env or {})},
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return call
