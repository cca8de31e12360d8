"""Faults of the measuring, made to happen: each makes a whole gate INVALID (exit code 4) and names check and remedy.

On real traffic to the embedded engine; what can be told from files alone is in test_stored_runs.py.
"""

import json
import os
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.kit.command import command
from tests.kit.engine import engine_process
from tests.kit.paths import FAKE_NVML

pytestmark = pytest.mark.alone

ENGINE = "h100-sxm/llama-3.1-8b"
LOAD: dict[str, Any] = {
    "prompt_tokens": 32, "output_tokens": 8, "arrivals": {"rate": "40/s"}, "duration": "1s", "warmup": "300ms",
}  # fmt: skip


def judged(
    folder: Path, spec: dict[str, Any], side: Any = None, **env: str
) -> "tuple[subprocess.CompletedProcess[str], dict[str, Any]]":
    """The verdict on a deployment held against itself; pairs are not measured again."""
    side = side or {"sim": ENGINE}
    keys = {"baseline": side, "candidate": side, "spec": spec, "metrics": {"ttft.p50": "5%"}}
    policy = {"name": "aa", **keys, "pairs": 3, "extension": None, "repeat_invalid": 0}
    (folder / "p.yaml").write_text(yaml.safe_dump(policy))
    done = subprocess.run(
        command("gate", "--policy", "p.yaml", "--out", "out", "--json", "--anyway"),
        cwd=folder, capture_output=True, text=True, timeout=180, check=False, env={**os.environ, **env},
    )  # fmt: skip
    assert done.returncode in (3, 4), done.stdout + done.stderr
    return done, json.loads(done.stdout)


def gate(folder: Path, spec: dict[str, Any], side: Any = None, **env: str) -> dict[str, Any]:
    """A verdict that the measuring failed."""
    done, found = judged(folder, spec, side, **env)
    assert done.returncode == 4, done.stdout + done.stderr
    assert (found["verdict"], found["metrics"]) == ("INVALID", [])
    assert found["pairs"] == 1  # no further pair is begun: nothing would be learned
    assert all(one["remedy"] for one in found["obstacles"])
    return found


def checks(found: dict[str, Any]) -> set[str]:
    return {one["check"] for one in found["obstacles"]}


def test_a_client_that_has_more_to_send_than_it_can(tmp_path: Path):
    load = {**LOAD, "prompt_tokens": 8, "output_tokens": 1, "arrivals": {"rate": "5000/s"}}
    done, found = judged(tmp_path, {"workload": load})
    advice = " ".join(found["advice"])
    if done.returncode == 4:
        assert checks(found) & {"offered_load", "client_resources"} and "injectors" in advice
    else:  # what was late, the interval of each figure tells: too wide for a verdict
        assert done.returncode == 3
        assert (
            "the load generator's own error of these runs is too large" in found["why"]
            or "can't decide" in found["why"]
        )


def test_a_gpu_that_is_slowed_down_by_heat(tmp_path: Path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path / "nvml" / "libnvidia-ml.so.1"
    library.parent.mkdir()
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, FAKE_NVML], check=True)
    (tmp_path / "script").write_text("uuid=GPU-hot name=FakeH100 power=300 throttle=0\n")
    found = gate(
        tmp_path, {"workload": LOAD, "telemetry": {"gpu": "nvml"}}, LD_LIBRARY_PATH=str(library.parent),
        FAKE_NVML_SCRIPT=str(tmp_path / "script"), FAKE_NVML_T0=str(time.time()),
    )  # fmt: skip
    assert "gpu_slowdown" in checks(found)
    said = next(one for one in found["obstacles"] if one["check"] == "gpu_slowdown")
    assert "slowed down for 100.0 % of the window" in said["says"] and "cooling" in said["remedy"]


def test_somebody_elses_requests_on_the_server(tmp_path: Path):
    with engine_process(preset=ENGINE) as (url, _), somebody_else(url):
        found = gate(tmp_path, {"workload": LOAD, "isolation": "exclusive"}, url)
    assert "foreign_traffic" in checks(found)
    assert "requests on the server are not ours" in next(
        one["says"] for one in found["obstacles"] if one["check"] == "foreign_traffic"
    )


@contextmanager
def somebody_else(url: str) -> Iterator[None]:
    """One short request after the other, all the time."""
    model = json.load(urllib.request.urlopen(f"{url}/v1/models"))["data"][0]["id"]
    body = json.dumps({"model": model, "prompt": [7] * 8, "max_tokens": 2}).encode()
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            request = urllib.request.Request(f"{url}/v1/completions", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as response:
                response.read()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
