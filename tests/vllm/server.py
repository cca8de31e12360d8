"""A real vLLM for a test: launched on a free loopback port in its own process group, and ended with all of it."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tailgate.harness.targets.launch.process import end_with_parent

READY_S = 180.0
STOP_S = 20.0
MODEL = "tiny"
CONTEXT = 4096


def python() -> Path:
    """The Python of vLLM's own environment."""
    folder = os.environ.get("TAILGATE_VLLM_VENV", "~/.cache/tailgate/vllm-0.32.0")
    path = Path(folder).expanduser() / "bin" / "python"
    assert path.exists(), f"no vLLM at {path}: run `make test-vllm`, which installs it"
    return path


def write_model(folder: Path) -> Path:
    """The tiny model's directory."""
    script = Path(__file__).with_name("tiny_model.py")
    subprocess.run([python(), script, folder], check=True)
    return folder


def environment() -> dict[str, str]:
    """What vLLM's CPU build needs, without what belongs to our own environment."""
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "PYTEST"))},
        "PYTHONPATH": str(Path(__file__).with_name("polite")),
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }


@dataclass(frozen=True)
class Server:
    """A vLLM that answers."""

    url: str
    pid: int
    log: Path

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by name, summed over labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=20) as response:
            text = response.read().decode()
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
        return found


@contextmanager
def serving(model: Path, log: Path, *flags: str) -> Iterator[Server]:
    """vLLM with `flags`, from ready to gone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        "nice", "-n", "5", python(), "-m", "vllm.entrypoints.openai.api_server",
        "--model", model, "--served-model-name", MODEL, "--load-format", "dummy", "--enforce-eager",
        "--max-model-len", str(CONTEXT), "--host", "127.0.0.1", "--port", str(port),
        "--enable-per-request-metrics", *flags,
    ]  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment(), start_new_session=True,
            cwd=log.parent, preexec_fn=end_with_parent,  # noqa: PLW1509 - this process has no threads
        )  # fmt: skip
    _give_way(process.pid)
    try:
        _wait_for_health(process, f"http://127.0.0.1:{port}", log)
        _warm_up(f"http://127.0.0.1:{port}")
        yield Server(f"http://127.0.0.1:{port}", process.pid, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _warm_up(url: str) -> None:
    """Prompts of all sizes, so that nothing is compiled or first touched while it is measured."""
    for length in (16, 64, 256, 1024, 3000) * 3:
        body = {"model": MODEL, "prompt": [7] * length, "max_tokens": 64, "ignore_eos": True, "cache_salt": str(length)}
        request = urllib.request.Request(
            f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            response.read()


def _give_way(pid: int) -> None:
    """Let vLLM use what the load generator leaves: on two shared cores the one that measures goes first.

    Between sessions (vLLM has its own) Linux looks at the session's niceness, not the process's.
    """
    autogroup = Path(f"/proc/{pid}/autogroup")
    if autogroup.exists():
        autogroup.write_text("5")


def _wait_for_health(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        code = process.poll()
        assert code is None, f"vLLM ended with {code}:\n{log.read_text(errors='replace')[-3000:]}"
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)  # between two looks, not instead of one
    raise AssertionError(f"vLLM was not ready in {READY_S} s:\n{log.read_text(errors='replace')[-3000:]}")
