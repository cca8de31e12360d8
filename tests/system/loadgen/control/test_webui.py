"""Locust's web UI over a run: rows by class, its stop button, where it listens."""

import contextlib
import http.client
import json
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.kit.command import command, free_port
from tests.kit.machines import Distributed, Ended, serving, started

SPEC = """
workload:
  arrivals: {process: constant, rate: 60/s}
  duration: 60s
  prompt_tokens: 16
  classes:
    chat: {weight: 2, output_tokens: 4}
    batch: {weight: 1, output_tokens: 3}
"""


def rows(ui: str) -> dict[tuple[str, str], dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://{ui}/stats/requests", timeout=10) as answer:
            return {(row["name"], row["method"]): row for row in json.loads(answer.read())["stats"]}
    except urllib.error.URLError:
        return {}


def until_rows(process: Any, ui: str) -> dict[tuple[str, str], dict[str, Any]]:
    wanted = {(name, kind) for name in ("chat", "batch") for kind in ("TTFT", "ITL", "E2E")}
    while True:
        assert process.poll() is None, process.communicate()
        if wanted <= (found := rows(ui)).keys():
            return found
        with contextlib.suppress(subprocess.TimeoutExpired):  # the UI's process has other things to do, too
            process.wait(0.3)


def stop(ui: str) -> None:
    """Its stop button; a master may be gone, its run being over, before it answers."""
    with contextlib.suppress(http.client.RemoteDisconnected):
        urllib.request.urlopen(urllib.request.Request(f"http://{ui}/stop", method="POST"), timeout=60).close()


@pytest.mark.parametrize("workers", [0, 2])
def test_it_shows_latencies_by_class_and_its_stop_ends_the_run_with_a_report(
    exact: Path, tmp_path: Path, workers: int
) -> None:
    spec, ui = tmp_path / "classes.yaml", f"127.0.0.1:{free_port()}"
    spec.write_text(SPEC)
    with serving(exact, "--ttft-us", "30000", "--itl-us", "10000") as port:
        flags: list[str | Path] = [spec, "--target", f"http://127.0.0.1:{port}", "--ui", ui, "--quiet", "--no-settle"]
        if workers:
            with Distributed(tmp_path, flags, workers=workers) as run:
                found = until_rows(run.master, ui)
                stop(ui)
                ended = run.ended()
        else:
            alone = started(command("run", *flags, "--out", tmp_path / "run"))
            found = until_rows(alone, ui)
            listening = {
                c.laddr.ip
                for child in psutil.Process(alone.pid).children(recursive=True)
                for c in child.net_connections()
                if c.status == psutil.CONN_LISTEN and c.laddr.port == int(ui.rpartition(":")[2])
            }
            assert listening == {"127.0.0.1"}
            stop(ui)
            out, err = alone.communicate(timeout=60)
            ended = Ended(tmp_path / "run", alone.returncode, out, err, [])
    # The truth, and what a busy machine may add to it.
    assert 29 < found["chat", "TTFT"]["median_response_time"] < 45
    assert 9 < found["chat", "ITL"]["median_response_time"] < 20
    assert 49 < found["batch", "E2E"]["median_response_time"] < 90
    ended_ok = sum(found[name, "E2E"]["num_requests"] for name in ("chat", "batch"))
    assert found["Aggregated", ""]["num_requests"] == ended_ok
    assert ended.code == 130, ended.err
    assert ended.manifest["state"] == "interrupted"
    assert "web UI" in ended.manifest["state_reason"]
    assert ended.summary["load"]["requests"]["ok"] > 0
    assert ended.check("lost_rows")["value"] == 0


def test_a_port_in_use_is_named(exact: Path, tmp_path: Path) -> None:
    with serving(exact) as port, socket.create_server(("127.0.0.1", 0)) as taken:
        ui = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = ["--rate", "5/s", "--duration", "1s", "--prompt-tokens", "8", "--output-tokens", "2", "--ui", ui]
        process = started(command("run", "--target", f"http://127.0.0.1:{port}", *flags, "--out", tmp_path / "run"))
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"--ui: can't listen on {ui}" in err
