"""What goes wrong, or is interrupted, before the first measured request: said, and nothing is left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from command import Tailgate, command

from harness.targets.process import free_port, port_is_free

SERVER = Path(__file__).with_name("small_server.py")
WORKLOAD = {
    "prompt_tokens": 8,
    "output_tokens": 2,
    "arrivals": {"process": "constant", "rate": "4/s"},
    "duration": "1s",
}


def spec(folder: Path, port: int, *how: str, **target: Any) -> Path:
    started = {
        "kind": "command",
        "command": f"{sys.executable} {SERVER} {port} {' '.join(how)}",
        "url": f"http://127.0.0.1:{port}",
        "prompt": "text",
        **target,
    }
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({"target": started, "workload": WORKLOAD}))
    return path


@pytest.mark.parametrize("asked_before", [0, 2])
def test_a_server_that_dies_in_the_warm_up_is_quoted_and_leaves_nothing(
    tailgate: Tailgate, tmp_path: Path, asked_before: int
) -> None:
    port = free_port()
    said = tailgate("run", spec(tmp_path, port, f"die={asked_before}"), "--out", tmp_path / "run")
    assert said.code == 2, said.err
    assert "exit code 7" in said.err and "CUDA error: an illegal memory access" in said.err
    assert "Traceback" not in said.err and not (tmp_path / "run").exists() and port_is_free(port)
    log = Path(said.err.split("Its log (")[1].split(")")[0])
    assert "CUDA error" in log.read_text()
    log.unlink()


@pytest.mark.parametrize(
    ("number", "asked_before"), [(signal.SIGTERM, 0), (signal.SIGTERM, 2), (signal.SIGINT, 0), (signal.SIGINT, 2)]
)
def test_a_signal_while_it_starts_or_warms_up_takes_the_server_and_its_children_down(
    tmp_path: Path, number: int, asked_before: int
) -> None:
    port = free_port()
    line = command("run", spec(tmp_path, port, f"slow={asked_before}", "child"), "--out", tmp_path / "run", "--quiet")
    with subprocess.Popen(
        line, cwd=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE, text=True
    ) as process:
        log = _log_with(process, tmp_path, "asked")
        family = psutil.Process(process.pid).children(recursive=True)
        assert any("small_server" in " ".join(one.cmdline()) for one in family)
        process.send_signal(number)
        _, err = process.communicate(timeout=40)
    assert process.returncode == 130 and "Traceback" not in err, err
    assert not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert port_is_free(port)
    assert not (tmp_path / "run").exists() and not log.exists()


def _log_with(process: "subprocess.Popen[str]", folder: Path, word: str) -> Path:
    """The server's log, once it has said the word."""
    while process.poll() is None:
        for path in folder.glob("tailgate-server-*.log"):
            if word in path.read_text():
                return path
    raise AssertionError(process.communicate())
