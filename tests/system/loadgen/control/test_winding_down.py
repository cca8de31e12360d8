"""Ctrl-C under load: nothing more is sent, what is in flight ends; a second one, or SIGTERM, doesn't wait for it."""

import contextlib
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from tests.kit.command import command
from tests.kit.machines import Distributed, Ended, serving, started, until_line

from tailgate.reports.rundir.spool import whole_batches

LOADS = {"open": ["--rate", "20/s"], "closed": ["--users", "8"]}


def flags(port: int, loop: str) -> list[str]:
    return [
        "--target", f"http://127.0.0.1:{port}", *LOADS[loop], "--duration", "60s", "--no-settle",
        "--prompt-tokens", "16", "--output-tokens", "1",
    ]  # fmt: skip


def under_load(run: Path, process: subprocess.Popen[str], seconds: int, injector: int = 0) -> None:
    """Wait until an injector has written down so many seconds."""
    path = run / "spool" / f"client-{injector}.arrows"
    while not path.exists() or sum(batch.num_rows for batch in whole_batches(path)) < seconds:
        assert process.poll() is None, process.communicate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)


def ending(run: Path, process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    ended = Ended(run, process.returncode, out, err, [])
    assert ended.manifest["state"] == "interrupted"
    return ended


def was_drained(ended: Ended) -> None:
    records, manifest = ended.requests(), ended.manifest
    counts = Counter(records["status"].to_pylist())
    assert counts["ok"] > 0 and set(counts) <= {"ok", "not_sent"}, counts
    stopped = manifest["measure_end_ns"]
    assert max(t for t in records["dispatched_ns"].to_pylist() if t is not None) < stopped + 0.5e9
    after = [t for t in records["end_ns"].to_pylist() if t is not None and t > stopped]
    assert after and stopped < max(after) <= manifest["ended_ns"] < 30e9


@pytest.mark.parametrize("loop", ["open", "closed"])
def test_ctrl_c_lets_what_is_in_flight_end_and_ends_the_measure_phase(exact: Path, tmp_path: Path, loop: str) -> None:
    with serving(exact, "--ttft-us", "1500000") as port:
        process = started(command("run", *flags(port, loop), "--out", tmp_path / "run"))
        under_load(tmp_path / "run", process, 2)
        process.send_signal(signal.SIGINT)
        ended = ending(tmp_path / "run", process)
    assert "no more requests are sent" in ended.err
    was_drained(ended)


@pytest.mark.parametrize("loop", ["open", "closed"])
def test_so_does_ctrl_c_on_the_master_of_two_workers(exact: Path, tmp_path: Path, loop: str) -> None:
    with serving(exact, "--ttft-us", "1500000") as port, Distributed(tmp_path, flags(port, loop)) as run:
        for injector in (0, 1):
            under_load(run.out, run.master, 2, injector)
        run.master.send_signal(signal.SIGINT)
        ended = run.ended()
    assert ended.code == 130 and [code for code, _ in ended.workers] == [0, 0], ended.err
    was_drained(ended)
    assert not list((tmp_path / "spools").iterdir())  # the master has everything


@pytest.mark.parametrize("signals", [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM]])
def test_a_second_ctrl_c_and_sigterm_wait_for_nothing(
    exact: Path, tmp_path: Path, signals: list[signal.Signals]
) -> None:
    with serving(exact, "--ttft-us", "50000000") as port:
        process = started(command("run", *flags(port, "open"), "--out", tmp_path / "run"))
        under_load(tmp_path / "run", process, 1)
        process.send_signal(signals[0])
        for number in signals[1:]:
            until_line(process, "no more requests are sent")
            process.send_signal(number)
        ended = ending(tmp_path / "run", process)
    counts = Counter(ended.requests()["status"].to_pylist())
    assert counts["cancelled"] > 0 and set(counts) == {"cancelled", "not_sent"}, counts
    assert ended.manifest["ended_ns"] < 30e9
