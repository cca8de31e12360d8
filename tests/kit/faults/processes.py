"""Processes that are killed or stopped and disks that fill up in the middle of a run, and what must come of it."""

import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from tailgate.loadgen.records import Status
from tests.kit.command import command
from tests.kit.faults import running as on
from tests.kit.faults.outcome import FaultyRun

UNDER_LOAD = 25  # rows that are written down before the fault
# An answer takes 0.4 s, and records are spooled four times a second; the machine may be busy.
REACHES_BACK_S = 1.5
ENDS_WITHIN_S = 90.0  # beside what the load would have taken


@dataclass(frozen=True)
class ProcessFault:
    """`strike` happens under load. The run must end with `code`, in `state`, and say `words`.

    `statuses` are those that its requests may have beside ok, of which there must be one at least. Whatever was due
    longer than `REACHES_BACK_S` before the fault must be ok. `lost` says what is not. `report`: the command line ends
    with this exit code and without a result, which `tailgate report` makes afterwards; `code` is the latter's then.
    `own_server`: the run starts the server.
    """

    name: str
    strike: on.Strike
    code: int
    state: str
    statuses: tuple[Status, ...] = ()
    words: str = ""
    lost: str = "nothing"
    seconds: int = 10
    workers: int = 0
    own_server: bool = False
    report: int | None = None
    quick: bool = False


KILL, STOP, INT, TERM = signal.SIGKILL, signal.SIGSTOP, signal.SIGINT, signal.SIGTERM
LOST, NOT_SENT, CANCELLED = Status.LOST, Status.NOT_SENT, Status.CANCELLED
GONE = Status.RESET, Status.TRUNCATED, Status.CONNECT_ERROR
LAST = "what was in flight, the records of the last quarter of a second, and what was not sent yet"
REST = "what was in flight and what was not sent yet"
PART = "what was in flight there, the worker's last records, and its part of the load from then on"
OVERDUE, MISSED = "the load generator did not end by its deadline", "did not come back"

PROCESS_FAULTS = (
    ProcessFault("the injector is killed", on.signals(on.injector, KILL), 4, "failed", (LOST, NOT_SENT),
                 "was killed by SIGKILL", LAST, quick=True),
    ProcessFault("the injector is stopped for 3 s", on.stopped_for(on.injector, 3.0), 4, "complete", (Status.TIMEOUT,),
                 "The load generator was late at times", "the result: it is INVALID"),
    ProcessFault("the injector is stopped for ever", on.signals(on.injector, STOP), 4, "failed", (LOST, NOT_SENT),
                 OVERDUE, LAST),
    ProcessFault("Locust is killed", on.signals(on.locust, KILL), 4, "failed", (NOT_SENT, CANCELLED),
                 "the Locust process ended unexpectedly", REST),
    ProcessFault("Locust is stopped for ever", on.signals(on.locust, STOP), 4, "failed", (), OVERDUE,
                 "no request, but the run is INVALID: nobody watched it"),
    ProcessFault("the command line is killed", on.signals(on.line, KILL), 4, "interrupted", (NOT_SENT, CANCELLED),
                 "killed (its process is gone)", REST, report=-KILL),
    ProcessFault("the command line gets SIGTERM", on.signals(on.line, TERM), 130, "interrupted",
                 (NOT_SENT, CANCELLED), "interrupted (SIGTERM)", REST, quick=True),
    ProcessFault("Ctrl-C", on.signals(on.line, INT), 130, "interrupted", (NOT_SENT,), "interrupted (Ctrl-C)",
                 "what was not sent yet", quick=True),
    ProcessFault("Ctrl-C twice", on.signals(on.line, INT, INT), 130, "interrupted", (NOT_SENT, CANCELLED),
                 "interrupted (Ctrl-C)", REST, quick=True),
    ProcessFault("the server is killed", on.signals(on.server, KILL), 1, "complete", GONE, "FAIL",
                 "every answer from then on", seconds=5, quick=True),
    # One outage is one case: whether a tenth of all requests fails can't be told by it.
    ProcessFault("the server is killed and another is there 2 s later", on.restart_server, 3, "complete", GONE,
                 "INCONCLUSIVE", "the answers in between"),
    ProcessFault("the server is stopped for ever", on.signals(on.server, STOP), 1, "complete", (Status.TIMEOUT,),
                 "FAIL", "every answer from then on", seconds=5),
    ProcessFault("the server is stopped for 1 s", on.stopped_for(on.server, 1.0), 0, "complete", words="PASS",
                 seconds=5),
    ProcessFault("a server that the run started is killed", on.signals(on.server, KILL), 4, "failed",
                 (*GONE, NOT_SENT, CANCELLED), "the server was killed by signal 9", REST, own_server=True),
    ProcessFault("the injector's disk is full", on.full_disk(on.injector), 4, "failed", (LOST, NOT_SENT, CANCELLED),
                 "File too large", LAST),
    ProcessFault("the command line's disk is full", on.full_disk(on.line), 4, "failed", (), "File too large",
                 "the report, until there is room", report=4, seconds=5),
    ProcessFault("one of two workers is killed", on.kill_machine, 4, "failed", (LOST,), MISSED, PART,
                 workers=2, seconds=8),
    ProcessFault("one of two workers is cut off for ever", on.cut_off_machine, 4, "failed", (LOST,), MISSED, PART,
                 workers=2, seconds=8),
    ProcessFault("one of two workers gets Ctrl-C", on.signals(on.worker, INT), 4, "complete", (NOT_SENT, CANCELLED),
                 "was interrupted (Ctrl-C)", "the worker's part of the load from then on", workers=2, seconds=8),
    ProcessFault("the master of two workers is killed", on.signals(on.line, KILL), 4, "interrupted",
                 (LOST, NOT_SENT, CANCELLED), "killed (its process is gone)", REST, workers=2, report=-KILL),
)  # fmt: skip


def run(fault: ProcessFault, folder: Path) -> FaultyRun:
    """A run that meets the fault once it is under load."""
    with on.running(folder, fault.seconds, workers=fault.workers, own_server=fault.own_server) as running:
        running.until_rows(UNDER_LOAD)
        family = running.family()
        struck, began = time.time_ns(), time.monotonic()
        fault.strike(running)
        words = "".join(running.line.communicate(timeout=ENDS_WITHIN_S + fault.seconds))
        cut_off = {member.pid for member in running.cut_off}
        heard = [process for process in running.workers if process.pid not in cut_off]
        words += "".join(text for process in heard for text in process.communicate(timeout=ENDS_WITHIN_S))
        ended = running.line.returncode
        _, left = psutil.wait_procs([member for member in family if member.pid not in cut_off], timeout=30)
        took = time.monotonic() - began
    code = ended
    if fault.report is not None:
        made = subprocess.run(command("report", folder / "run"), capture_output=True, text=True, check=False)
        code, words = made.returncode, words + made.stdout + made.stderr
    return FaultyRun(
        folder / "run", code, words, took, ended=ended, left_behind=tuple(map(str, left)), struck_unix_ns=struck
    )


def problems(fault: ProcessFault, run: FaultyRun) -> list[str]:
    """Where the run is not what it must be."""
    wrong = run.broken()
    if not run.measured:
        return [*wrong, f"no result: exit code {run.code}: {run.words}"]
    state, statuses = run.manifest["state"], run.statuses()
    if state != fault.state:
        wrong.append(f"the run is {state}, not {fault.state}")
    if fault.report is not None and run.ended != fault.report:
        wrong.append(f"the command line ended with {run.ended}, not {fault.report}")
    if run.code != fault.code and not (run.code == 4 and not run.failed_checks()):
        wrong.append(f"exit code {run.code}, not {fault.code}")
    if set(statuses) - {Status.OK, *fault.statuses} or (fault.statuses and set(statuses) == {Status.OK}):
        wrong.append(f"requests became {dict(statuses)}")
    if statuses[Status.OK] < UNDER_LOAD:
        wrong.append(f"only {statuses[Status.OK]} requests are ok: what was measured before is gone")
    if (back_s := run.reaches_back_s()) > REACHES_BACK_S:
        wrong.append(f"requests are not ok that were due {back_s:.2f} s before the fault")
    reasons = "\n".join([*run.summary["invalid_reasons"], run.manifest["state_reason"], run.words])
    if fault.words not in reasons:
        wrong.append(f"nothing says {fault.words!r}: {reasons}")
    return wrong
