"""What goes wrong, or is interrupted, before the first measured request: said, and nothing is left behind."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from tests.kit.command import SHORT, SIM, Tailgate, command, free_port
from tests.kit.gateway import Gateway
from tests.kit.paths import SMALL_SERVER as SERVER
from tests.kit.scripted import ScriptedServer

from tailgate.harness.config.run_spec import build, load
from tailgate.harness.load.listener import Watcher
from tailgate.harness.run.execute import execute
from tailgate.harness.targets.launch.process import port_is_free

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


@pytest.mark.parametrize(("number", "asked_before"), [(signal.SIGTERM, 0), (signal.SIGTERM, 2), (signal.SIGINT, 2)])
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
        time.sleep(0.05)  # between two looks, not instead of one
    raise AssertionError(process.communicate())


def test_a_server_that_is_not_ready_in_time_is_given_up(tailgate: Tailgate, tmp_path: Path) -> None:
    never = spec(tmp_path, free_port(), ready=f"http://ann:CANARY@127.0.0.1:{free_port()}/health")
    said = tailgate("run", never, "--ready-timeout", "700ms", "--out", tmp_path / "run")
    assert (
        said.code == 2
        and "not ready within 0.7 s (http://127.0.0.1" in said.err
        and "CANARY" not in said.err
        and not (tmp_path / "run").exists()
    )


def test_somebody_elses_server_that_refuses_the_warm_up_is_measured_and_that_is_said(
    tailgate: Tailgate, tmp_path: Path
) -> None:
    port = free_port()
    with subprocess.Popen([sys.executable, SERVER, str(port), "status=418"]) as server:
        try:
            while port_is_free(port):
                assert server.poll() is None
                time.sleep(0.05)  # between two looks, not instead of one
            path = tmp_path / "spec.yaml"
            target = {"url": f"http://127.0.0.1:{port}", "prompt": "text"}
            path.write_text(yaml.safe_dump({"target": target, "workload": WORKLOAD}))
            said = tailgate("run", path, "--settle", "--out", tmp_path / "run")
        finally:
            server.terminate()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["load"]["requests"].get("ok", 0) == 0 and summary["load"]["requests"]["http_error"] > 0
    (notice,) = [one for one in summary["notices"] if "not warmed up" in one]
    assert "HTTP 418" in notice and "not today" in notice and f"note: {notice}" in said.err


@pytest.mark.parametrize(("flags", "warmed"), [([], False), (["--settle"], True), (["--warmup", "1s"], True)])
def test_somebody_elses_server_is_warmed_up_only_when_asked_for_and_that_is_said(
    tailgate: Tailgate, tmp_path: Path, flags: list[str], warmed: bool
) -> None:
    gateway = Gateway()
    with ScriptedServer(gateway) as server:
        load = ["--rate", "40/s", "--requests", "6", "--prompt-tokens", "32", "--output-tokens", "8"]
        said = tailgate("run", server.url, *load, *flags, "--out", tmp_path / "run")
    text = (tmp_path / "run" / "manifest.json").read_text()
    settled = json.loads(text)["telemetry"].get("settle")
    assert (settled is not None) is warmed, said.err
    if settled is None:
        assert "warm" not in said.err and len(gateway.bodies) == 7  # the trial and the load
    else:
        assert f"warmed up with {settled['requests']} requests in {settled['seconds']:.0f} s" in said.err


def test_a_folder_with_a_colon_is_one(tailgate: Tailgate, tmp_path: Path) -> None:
    said = tailgate("run", "--target", SIM, *SHORT, "--out", "x:y", "--json")
    assert said.summary["load"]["requests"]["ok"] > 0 and (tmp_path / "x:y" / "requests.parquet").exists()
    assert tailgate("report", "x:y").code == said.code


def test_the_server_is_stopped_even_if_the_load_generator_can_not_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stuck:
        async def close(self) -> None:
            raise RuntimeError("stuck")

    async def spawn(*_: object) -> Stuck:
        return Stuck()

    monkeypatch.setattr("tailgate.harness.run.execute.distributed.spawn", spawn)
    port = free_port()
    ran = build(load(spec(tmp_path, port, "status=500")), "test", tmp_path)
    with pytest.raises(RuntimeError, match="stuck"):
        asyncio.run(execute(ran, tmp_path / "run", [], Watcher()))
    assert port_is_free(port)
