"""A run on a machine that lacks something."""

import subprocess
from pathlib import Path

from tests.kit.command import SIM, command


def test_a_run_that_was_short_of_descriptors_is_invalid_whatever_came_out(tmp_path: Path) -> None:
    load = ["--rate", "60/s", "--duration", "3s", "--prompt-tokens", "16", "--output-tokens", "200", "--drain", "10s"]
    line = command("run", "--target", SIM, *load, "--out", tmp_path / "run")
    limited = ["sh", "-c", 'ulimit -n 60; exec "$@"', "sh", *line]
    said = subprocess.run(limited, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert said.returncode == 4, said.stdout + said.stderr
    assert "ran out of resources" in said.stdout and "ulimit -n" in said.stdout
    assert "warning: even at 5 ms a token" in said.stderr
