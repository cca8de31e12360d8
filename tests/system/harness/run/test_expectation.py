"""What a run says of this machine before its load, how many injectors it takes, and what it had to fall back to."""

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.kit import scripted
from tests.kit.command import SHORT, SIM, Tailgate
from tests.kit.driving import MS
from tests.kit.scripted import CHUNKED, END, Peer, Request, ScriptedServer, at_times, chunk, event

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.load.listener import Watcher
from tailgate.harness.run import expectation
from tailgate.harness.run.execute import execute
from tailgate.loadgen.injector.http import AVAILABLE

TOKENS = 12
EVENTS = [chunk(event(payload)) for payload in scripted.payloads(TOKENS)]


class Held:
    """A token every 15 ms, with Nagle's algorithm on."""

    def __call__(self, peer: Peer, request: Request) -> None:
        if not request.target.endswith("/completions"):
            peer.send(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        start = time.time_ns() + 20 * MS
        peer.send(CHUNKED)
        at_times(peer, [start + 15 * MS * k for k in range(TOKENS)], EVENTS[:TOKENS])
        peer.send(*EVENTS[TOKENS:], END)


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


def test_a_run_says_what_it_will_measure_to_and_reports_it_against_what_it_was(
    tailgate: Tailgate, tmp_path: Path
) -> None:
    said = tailgate("run", "--target", SIM, *SHORT, "--out", "a")
    expected = manifest_of(tmp_path / "a")["expected_error"]
    assert expected["text"] in said.err.splitlines()  # one sentence, and no warning for a small load
    assert expected["machine"]["read_us"] > 0 and expected["machine"]["busy_cores"] >= 0
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert summary["client"]["expected_error_ms"] == {"ttft": expected["ttft_ms"], "itl": expected["itl_ms"]}
    assert f"± {expected['ttft_ms']:g} ms of TTFT p99 was expected" in (tmp_path / "a" / "report.html").read_text()


def test_auto_is_as_many_injectors_as_the_load_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expectation, "injectors_for", lambda load, _machine: 3 if load.requests_per_s > 20 else 1)
    load = {"prompt_tokens": 8, "output_tokens": TOKENS, "duration": 1.0}
    numbers = {}
    with ScriptedServer(Held()) as server:
        for rate in (10.0, 30.0):
            workload = {**load, "arrivals": {"process": "constant", "rate": rate}}
            target = {"url": server.url, "model": "m", "prompt": "text"}
            spec = RunSpec.model_validate({"target": target, "workload": workload, "settle": "none"})
            run_dir = asyncio.run(execute(spec, tmp_path / f"{rate:g}", [], Watcher()))
            spools = len(list((run_dir / "spool").glob("injector-*.arrows")))
            numbers[rate] = (manifest_of(run_dir)["injectors"], spools)
    assert numbers == {10.0: (1, 1), 30.0: (3, 3)}


def test_a_server_that_waits_for_acknowledgements_is_named_once_in_manifest_and_report(
    tailgate: Tailgate, tmp_path: Path
) -> None:
    if not AVAILABLE:
        pytest.skip("acknowledgements are delayed by the compiled reader only")
    flags = ["--requests", "8", "--rate", "4/s", "--arrival", "constant", "--prompt-tokens", "8", "--output-tokens"]
    with ScriptedServer(Held()) as server:
        said = tailgate("run", server.url, "--model", "m", "--prompt", "text", *flags, str(TOKENS), "--out", "a")
    manifest = manifest_of(tmp_path / "a")
    notices = [notice for notice in manifest["notices"] if "Nagle" in notice]
    assert len(notices) == 1 and manifest["acks_delayed"] is True, said.err
    assert f"warning: {notices[0]}" in said.err
    assert "held tokens back" in (tmp_path / "a" / "report.html").read_text()
    assert pq.read_table(tmp_path / "a" / "requests.parquet").num_rows == 8


def test_reading_in_python_is_said_once_and_gives_the_same_records(
    tailgate: Tailgate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILGATE_PURE_PYTHON", "1")
    tailgate("run", "--target", SIM, *SHORT, "--out", "a")
    manifest = manifest_of(tmp_path / "a")
    assert [notice for notice in manifest["notices"] if "read in Python" in notice]
    assert manifest["versions"]["reads"] == "python" and manifest["acks_delayed"] is False
    assert "read in Python" in (tmp_path / "a" / "report.html").read_text()
    assert set(pq.read_table(tmp_path / "a" / "requests.parquet")["status"].to_pylist()) == {"ok"}
