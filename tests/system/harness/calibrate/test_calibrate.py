"""The null server's exactness, and what calibration makes of what it saw."""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests.kit.command import SIM, Tailgate, command

from tailgate.harness.calibrate.floor import FloorStep, PlainClient, plain_client
from tailgate.harness.calibrate.ladder import LadderStep, _judged, highest, ladder, measure
from tailgate.harness.calibrate.peers import against
from tailgate.harness.cli.calibrate import _calibrate
from tailgate.workloads.common.errors import UserError

pytestmark = pytest.mark.alone


@pytest.fixture
def null_server() -> Iterator[int]:
    command = [sys.executable, "-m", "tailgate.harness.calibrate.null_server", "--ttft-ms", "30", "--itl-ms", "60"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())["port"]
    process.terminate()
    process.wait(10)
    process.stdout.close()


def ask(port: int, tokens: int) -> tuple[socket.socket, float]:
    body = json.dumps({"prompt": [1, 2, 3], "max_tokens": tokens}).encode()
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    sent = time.monotonic()
    sock.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return sock, sent


def test_tokens_leave_on_schedule_even_when_a_new_request_is_due_before_a_running_one(null_server: int) -> None:
    first, began = ask(null_server, 3)
    times = []
    while len(times) < 1:
        first.recv(65536)
        times.append(time.monotonic() - began)
    # The running answer's next token is 60 ms away; this one's first is due in 30.
    second, asked = ask(null_server, 1)
    second.recv(65536)
    waited = time.monotonic() - asked
    for sock in (first, second):
        sock.close()
    assert times[0] >= 0.030
    assert 0.030 <= waited < 0.058


def test_an_answer_counts_its_tokens_and_ends(null_server: int) -> None:
    sock, _ = ask(null_server, 4)
    answer = b""
    while not answer.endswith(b"0\r\n\r\n"):
        answer += sock.recv(65536)
    sock.close()
    assert answer.count(b'"choices":[{') == 4
    assert b'"completion_tokens":4' in answer and b'"prompt_tokens":3' in answer


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff" * 100, b"\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n",
        b'POST /v1/completions HTTP/1.1\r\ncontent-length: 5016\r\n\r\n{"max_tokens":' + b"9" * 5001 + b"}",
        b'POST /v1/completions HTTP/1.1\r\ncontent-length: 16\r\n\r\n{"max_tokens": 0}',
    ],
    ids=["bytes", "nothing", "an endless length", "endless tokens", "no tokens"],
)  # fmt: skip
def test_garbage_does_not_end_it(null_server: int, garbage: bytes) -> None:
    with socket.create_connection(("127.0.0.1", null_server), timeout=10) as stranger:
        stranger.sendall(garbage)
        sock, _ = ask(null_server, 1)
        answer = b""
        while not answer.endswith(b"0\r\n\r\n"):
            answer += sock.recv(65536)
        sock.close()
    assert answer.count(b'"choices":[{') == 1


def summary(
    ttft_p99: float | None = 50.1, itl_p99: float | None = 20.1, broken: str = "", *,
    ttft_p50: float | None = 50.0, itl_p50: float | None = 20.0, failed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    lag = {"p50": 0.1, "p99": 0.2, "max": 1.0}
    return {
        "latency_ms": {"ttft_from_send": {"p50": ttft_p50, "p99": ttft_p99}, "itl": {"p50": itl_p50, "p99": itl_p99}},
        "errors": {"failed": failed},
        "checks": [{"name": broken, "status": "fail"}] if broken else [],
        "client": {"dispatch_lag_ms": lag, "receive_lag_ms": lag, "cpu_fraction_max": 0.5},
    }


@pytest.mark.parametrize(("known_after", "lengths"), [(1, [20.0]), (2, [20.0, 60.0]), (3, [20.0, 60.0])])
def test_a_step_lasts_until_its_tails_are_known(
    monkeypatch: pytest.MonkeyPatch, known_after: int, lengths: list[float]
) -> None:
    asked: list[float] = []

    async def measured(_url: str, rate: float, tokens: int, length_s: float, _injectors: int) -> LadderStep:
        asked.append(length_s)
        return _judged(rate, tokens, summary(ttft_p99=50.1 if len(asked) >= known_after else None), 0.1)

    monkeypatch.setattr("tailgate.harness.calibrate.ladder._measured", measured)
    step = asyncio.run(measure("http://x", 20.0, 50, 6.0, 1))
    assert asked == lengths
    assert step.honest is (known_after <= 2)


def ladder_of(monkeypatch: pytest.MonkeyPatch, *honest: bool) -> list[LadderStep]:
    """The steps that a ladder climbs where the steps' honesty is known; the last of ``honest`` holds for the rest."""
    steps = iter([*honest, *[honest[-1]] * 20])

    async def measure(_url: str, rate: float, tokens: int, _seconds: float, _injectors: int) -> LadderStep:
        return _judged(rate, tokens, summary(ttft_p99=50.1 if next(steps) else 70.0), 0.1)

    monkeypatch.setattr("tailgate.harness.calibrate.ladder.measure", measure)
    return asyncio.run(ladder("http://x", "chunks", 6.0, 1, lambda _step: None))


def test_the_limit_is_the_last_honest_step_before_the_first_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = ladder_of(monkeypatch, True, True, False, True)
    assert len(steps) == 3 and highest(steps).chunks_per_s == 5_000


def test_where_every_step_is_honest_the_limit_lies_above_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    assert highest(ladder_of(monkeypatch, True)).chunks_per_s == 100_000


def test_a_machine_that_fails_the_first_step_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="off the truth"):
        ladder_of(monkeypatch, False)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_plain_c_client_shows_the_floor_under_the_same_load(null_server: int) -> None:
    async def go() -> FloorStep | None:
        async with plain_client() as client:
            assert client is not None
            return await client.measure(f"http://127.0.0.1:{null_server}", 20.0, 5, 1.0)

    step = asyncio.run(go())
    assert step is not None
    assert step.ttft_p99 >= step.ttft_p50 >= 29.9 and step.itl_p99 >= step.itl_p50  # never early: 30 and 60 ms
    assert step.itl_p50 == pytest.approx(60, abs=30) and step.cpu_us_a_chunk > 0


@pytest.mark.parametrize("compiler", [True, False])
def test_each_step_of_chunks_has_its_floor_or_it_is_said_that_there_is_none(
    compiler: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextlib.asynccontextmanager
    async def client() -> AsyncIterator[PlainClient | None]:
        yield PlainClient(Path("x")) if compiler else None

    async def floor(*_: object) -> FloorStep:
        return FloorStep(50.1, 50.9, 20.0, 20.25, 12.3)

    async def measure(_url: str, rate: float, tokens: int, _seconds: float, _injectors: int) -> LadderStep:
        return replace(_judged(rate, tokens, summary(), 0.1), ttft_own_p99=0.44)

    async def lateness(_url: str) -> float:
        return 0.0

    monkeypatch.setattr("tailgate.harness.calibrate.ladder.measure", measure)
    monkeypatch.setattr("tailgate.harness.calibrate.ladder._lateness", lateness)
    monkeypatch.setattr("tailgate.harness.calibrate.floor.plain_client", client)
    monkeypatch.setattr(PlainClient, "measure", floor)
    given = argparse.Namespace(step=2.0, injectors=1, tokenizer=None)
    calibration, _ = asyncio.run(_calibrate(given, [], show=True))
    printed = capsys.readouterr().out
    of_chunks = [step for step in calibration.steps if step["chunks_per_s"] > step["requests_per_s"]]
    assert printed.count("floor: plain C client, 12.3 µs of CPU a chunk") == (len(of_chunks) if compiler else 0)
    assert ("there is no C compiler (cc)" in printed) is not compiler
    assert all((step["floor"] is not None) is compiler for step in of_chunks)
    assert "0.44" in printed.splitlines()[2] and (not compiler or "0.90" in printed.splitlines()[3])


def test_without_a_compiler_there_is_no_plain_client(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> bool:
        async with plain_client() as client:
            return client is None

    monkeypatch.setenv("PATH", "")
    assert asyncio.run(go())


def test_a_run_beyond_the_calibration_says_so_in_its_notes(tailgate: Tailgate, tmp_path: Path) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    made = "calibration.Calibration(10.0, 1.0, False, False, 1, '2026-01-01', [])"
    script = f"from tailgate.harness.host import calibration; calibration.save({made})"
    subprocess.run([sys.executable, "-c", script], env={**env, "PATH": "/usr/bin:/bin"}, check=True)
    load = ["--rate", "20/s", "--duration", "1s", "--prompt-tokens", "32", "--output-tokens", "4"]
    tailgate("run", "--target", SIM, *load, "--out", "run", "--quiet", env=env)
    notices = json.loads((tmp_path / "run" / "manifest.json").read_text())["notices"]
    assert any("measured honestly" in notice for notice in notices), notices


def test_tools_that_are_not_there_or_not_known_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for names in (["aiperf"], ["k7"]):
        with pytest.raises(UserError, match="--against"):
            asyncio.run(against(names, "http://127.0.0.1:1", 10.0, 5, tmp_path, None))


def test_of_several_tools_those_that_are_there_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "aiperf"
    tool.write_text("#!/bin/sh\necho no GPU for you\nexit 3\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    (tmp_path / "out").mkdir()
    missing, run = asyncio.run(against(["vllm-bench", "aiperf"], "http://127.0.0.1:1", 10.0, 5, tmp_path / "out", None))
    assert "not on the PATH" in missing.problem
    assert "exit code 3: no GPU for you" in run.problem


@pytest.mark.parametrize("ends_by", ["limit", "cancellation", "itself"])
def test_a_tools_children_end_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends_by: str) -> None:
    tool, told = tmp_path / "aiperf", tmp_path / "child"
    waits = "" if ends_by == "itself" else "wait"
    tool.write_text(f"#!/bin/sh\nsleep 600 >/dev/null 2>&1 &\necho $! > {told}.new\nmv {told}.new {told}\n{waits}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr("tailgate.harness.calibrate.peers._LIMIT_S", 2.0 if ends_by == "limit" else 60.0)
    (tmp_path / "out").mkdir()

    async def go() -> None:
        running = asyncio.create_task(against(["aiperf"], "http://127.0.0.1:1", 10.0, 5, tmp_path / "out", None))
        while not told.exists():
            await asyncio.sleep(0.01)
        if ends_by == "cancellation":
            running.cancel()
        await asyncio.wait([running])

    asyncio.run(go())
    child = int(told.read_text())
    _, alive = psutil.wait_procs([psutil.Process(child)] if psutil.pid_exists(child) else [], timeout=5)
    assert not alive or alive[0].status() == psutil.STATUS_ZOMBIE


def test_what_a_tool_reports_stands_beside_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "vllm"
    result = {"p50_ttft_ms": 269.0, "p99_ttft_ms": 507.0, "p50_itl_ms": 0.0, "p99_itl_ms": 107.0}
    # Finds where its result should go among its arguments, as the real one does.
    tool.write_text(
        f"#!{sys.executable}\nimport sys, pathlib\nargs = sys.argv\n"
        f"where = pathlib.Path(args[args.index('--result-dir') + 1])\n"
        f"(where / args[args.index('--result-filename') + 1]).write_text({json.dumps(json.dumps(result))})\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "out").mkdir()
    (said,) = asyncio.run(against(["vllm-bench"], "http://127.0.0.1:1", 300.0, 200, tmp_path / "out", None))
    assert "269.0/507.0 ms (truth 50/50)" in said.line()
    assert np.isclose(said.chunks_per_s, 60_000)


def words_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended since
        return ""


def test_a_ctrl_c_ends_a_calibration_with_130_and_leaves_nothing_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("calibrate"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
    )  # fmt: skip
    me = psutil.Process(process.pid)
    while not any("tailgate.loadgen.injector" in words_of(child) for child in me.children(recursive=True)):
        assert process.poll() is None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    family = me.children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130, complaint
    assert "Traceback" not in complaint
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    assert not list(tmp_path.rglob("calibration-*"))
