"""What a terminal shows while a run goes on."""

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
from pathlib import Path

import pytest
from tests.kit.command import command
from tests.kit.machines import serving
from tests.kit.scripted import ScriptedServer, whole


def exporter() -> ScriptedServer:
    """A DCGM exporter with one GPU."""
    labels = 'gpu="0",UUID="GPU-a",modelName="NVIDIA H100"'
    page = f"DCGM_FI_DEV_POWER_USAGE{{{labels}}} 412.5\nDCGM_FI_DEV_GPU_UTIL{{{labels}}} 87\n".encode()
    return ScriptedServer(lambda peer, _request: peer.send(whole(page)))


def seen_on_a_terminal(command: list[str]) -> str:
    """Everything that a process writes to standard error, which is a terminal of 200 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # the last writer is gone
        # Its end may not show as the end of the stream: read what is there for as long as it lives, and a last time.
        alive = True
        while alive:
            alive = process.poll() is None
            while select.select([ours], [], [], 0.1)[0] and (piece := os.read(ours, 65536)):
                said += piece
    os.close(ours)
    assert process.wait() in (0, 4), said.decode()  # 4: on a busy machine the run is invalid, which is another matter
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode())


def test_a_terminal_shows_rates_latencies_and_the_gpu_while_the_run_goes_on(exact: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    with exporter() as gpu, serving(exact, "--ttft-us", "30000", "--itl-us", "10000") as port:
        spec.write_text(f"""
target: {{url: "http://127.0.0.1:{port}"}}
workload:
  arrivals: {{process: constant, rate: 50/s}}
  duration: 3s
  prompt_tokens: 16
  output_tokens: 4
telemetry: {{gpu: "dcgm:{gpu.url}/metrics"}}
""")
        said = seen_on_a_terminal(command("run", spec, "--out", tmp_path / "run"))
    lines = re.findall(
        r"(\d+)/3 s  offered ([\d.]+)/s  sent ([\d.]+)/s  in flight (\d+)  ok (\d+)  failed 0"
        r"  TTFT (\d+)/(\d+) ms  ITL (\d+)/(\d+) ms  (\d+) tokens/s  GPU 87 % 412 W",
        said,
    )
    assert lines, said
    _, offered, sent, in_flight, ok, ttft, _, itl, _, tokens = map(float, lines[-1])
    assert offered == pytest.approx(50, rel=0.15) and sent == pytest.approx(50, rel=0.25)
    assert 0 <= in_flight <= 10 and ok >= 40 and tokens > 50
    # The truth, and what a busy machine may add to it.
    assert 29 <= ttft < 45 and 9 <= itl < 20
