"""Processes that are stopped or killed in the middle of a run against the embedded engine, and what must come of it."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.kit.command import command
from tests.kit.engine import engine_process
from tests.kit.faults.outcome import FaultyRun

ENDS_WITHIN_S = 120.0
LOAD = (
    "--rate", "30/s", "--arrival", "constant", "--duration", "6s", "--timeout", "2s", "--drain", "3s",
    "--prompt-tokens", "32", "--output-tokens", "8", "--no-settle", "--slo", "errors: < 10%",
)  # fmt: skip
# What the fault is done to: the engine, the command itself, Locust, the injector.
Victim = Callable[[psutil.Process, psutil.Process], psutil.Process]


def _child(word: str) -> Victim:
    def find(_engine: psutil.Process, run: psutil.Process) -> psutil.Process:
        return next(p for p in run.children(recursive=True) if any(part == word for part in p.cmdline()))

    return find


@dataclass(frozen=True)
class ProcessFault:
    """A signal in the middle of the load; `states` and `codes` are what the run may end as."""

    name: str
    victim: Victim
    signals: tuple[signal.Signals, ...]
    states: tuple[str, ...]
    codes: tuple[int, ...]
    lost: str
    quick: bool = False


_ENGINE: Victim = lambda engine, _run: engine  # noqa: E731
_COMMAND: Victim = lambda _engine, run: run  # noqa: E731
_LOCUST, _INJECTOR = _child("tailgate.loadgen"), _child("tailgate.loadgen.injector")

PROCESS_FAULTS = (
    ProcessFault("kill -9 of the server", _ENGINE, (signal.SIGKILL,), ("complete", "failed"), (1, 4),
                 "answers in flight", quick=True),
    ProcessFault("the server is stopped (SIGSTOP)", _ENGINE, (signal.SIGSTOP,), ("complete",), (1, 4),
                 "answers from then on"),
    ProcessFault("kill -9 of the injector", _INJECTOR, (signal.SIGKILL,), ("failed",), (4,),
                 "records of the last quarter of a second", quick=True),
    ProcessFault("kill -9 of Locust", _LOCUST, (signal.SIGKILL,), ("failed",), (4,),
                 "records of the last quarter of a second"),
    ProcessFault("Ctrl-C", _COMMAND, (signal.SIGINT,), ("interrupted",), (130,), "what was not sent yet", quick=True),
    ProcessFault("Ctrl-C twice", _COMMAND, (signal.SIGINT, signal.SIGINT), ("interrupted",), (130,),
                 "what was not sent yet, and what was in flight"),
    ProcessFault("SIGTERM", _COMMAND, (signal.SIGTERM,), ("interrupted",), (130, 143), "what was not sent yet"),
    ProcessFault("kill -9 of the command", _COMMAND, (signal.SIGKILL,), ("interrupted",), (-9,),
                 "what was not sent yet; `tailgate report` finishes the rest"),
)  # fmt: skip


def run(fault: ProcessFault, folder: Path) -> FaultyRun:
    """A run in which the fault strikes once a hundred requests have been answered."""
    with engine_process() as (url, engine):
        line = command("run", "--target", url, *LOAD, "--out", folder / "run")
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        spool = folder / "run" / "spool" / "injector-0.arrows"
        while process.poll() is None and not (spool.exists() and spool.stat().st_size > 20_000):
            _wait_a_moment(process)
        struck = fault.victim(psutil.Process(engine.pid), psutil.Process(process.pid))
        began = time.monotonic()
        for one in fault.signals:
            struck.send_signal(one)
        said, _ = process.communicate(timeout=ENDS_WITHIN_S)
        took = time.monotonic() - began
        if signal.SIGSTOP in fault.signals:
            os.kill(engine.pid, signal.SIGCONT)
    if not (folder / "run" / "summary.json").exists():
        report = subprocess.run(command("report", folder / "run"), capture_output=True, text=True, check=False)
        said += report.stdout + report.stderr
    return FaultyRun(folder / "run", process.returncode, said, took)


def _wait_a_moment(process: "subprocess.Popen[str]") -> None:
    try:
        process.wait(0.05)
    except subprocess.TimeoutExpired:
        return


def problems(fault: ProcessFault, run: FaultyRun) -> list[str]:
    """Where the run is not what it must be."""
    wrong = run.broken()
    if not run.measured:
        return [*wrong, f"no result: exit code {run.code}: {run.words}"]
    if run.manifest["state"] not in fault.states:
        wrong.append(f"the run is {run.manifest['state']}: {run.manifest['state_reason']}")
    if run.code not in fault.codes:
        wrong.append(f"exit code {run.code}")
    if run.statuses()["ok"] < 20:
        wrong.append(f"kept {run.statuses()['ok']} answers of more than 20 that came before")
    return wrong
