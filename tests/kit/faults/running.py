"""A run under load against a small server, with several machines if asked for, and what may strike its processes."""

import contextlib
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tailgate.reports.rundir.spool import whole_batches
from tests.kit.command import command, free_port
from tests.kit.machines import Distributed, killed, started
from tests.kit.paths import SMALL_SERVER

RATE = 20
LOAD = (
    "--model", "m", "--rate", f"{RATE}/s", "--arrival", "constant", "--timeout", "2s", "--drain", "3s",
    "--prompt-tokens", "32", "--output-tokens", "8", "--content", "random", "--no-settle", "--slo", "errors: < 10%",
)  # fmt: skip
SERVER = [sys.executable, str(SMALL_SERVER)]
TTFT = "ttft_ms=400"  # several requests are in flight at any time
Process = subprocess.Popen[str]


@dataclass
class Running:
    """A run under load, and everything that may be struck."""

    out: Path
    line: Process  # the command line, with several machines the master's
    server: Process | None  # None where the run started it itself
    port: int
    workers: list[Process] = field(default_factory=list)
    new_servers: list[Process] = field(default_factory=list)
    cut_off: list[psutil.Process] = field(default_factory=list)  # of which the run can't know

    def member(self, word: str) -> psutil.Process:
        """The process below the command line (or the first worker) whose command has this word."""
        below = psutil.Process((self.workers or [self.line])[0].pid).children(recursive=True)
        (found,) = [process for process in below if word in process.cmdline()]
        return found

    def rows(self) -> int:
        """Records on the disk so far."""
        spools = (self.out / "spool").glob("injector-*.arrows")
        return sum(batch.num_rows for path in spools for batch in whole_batches(path))

    def until_rows(self, count: int) -> None:
        """Wait for so many records."""
        while self.rows() < count:
            assert self.line.poll() is None, self.line.communicate()
            _wait(self.line, 0.05)

    def family(self) -> list[psutil.Process]:
        """The command line, the workers, and all that they started."""
        return [member for process in (self.line, *self.workers) for member in _tree(process)]


Strike = Callable[[Running], None]
Victim = Callable[[Running], "psutil.Process | Process"]


def injector(run: Running) -> psutil.Process:
    return run.member("tailgate.loadgen.injector")


def locust(run: Running) -> psutil.Process:
    return run.member("tailgate.loadgen")


def line(run: Running) -> Process:
    return run.line


def server(run: Running) -> "psutil.Process | Process":
    return run.server or run.member(str(SMALL_SERVER))


def worker(run: Running) -> Process:
    return run.workers[0]


def signals(victim: Victim, *numbers: int) -> Strike:
    """Send these, as a person presses a key again."""

    def strike(run: Running) -> None:
        process = victim(run)
        for place, number in enumerate(numbers):
            if place:
                _wait(run.line, 0.2)
            process.send_signal(number)

    return strike


def stopped_for(victim: Victim, seconds: float) -> Strike:
    def strike(run: Running) -> None:
        process = victim(run)
        process.send_signal(signal.SIGSTOP)
        _wait(run.line, seconds)
        process.send_signal(signal.SIGCONT)

    return strike


def full_disk(victim: Victim) -> Strike:
    """No file of the process may grow any more."""

    def strike(run: Running) -> None:
        resource.prlimit(victim(run).pid, resource.RLIMIT_FSIZE, (4096, 4096))

    return strike


def kill_machine(run: Running) -> None:
    killed(run.workers[0])


def cut_off_machine(run: Running) -> None:
    """As when the network to it is cut: it is not heard of, though nothing closes."""
    run.cut_off = _tree(run.workers[0])
    for member in run.cut_off:
        member.send_signal(signal.SIGSTOP)


def restart_server(run: Running) -> None:
    """Kill the server; another is there after two seconds."""
    assert run.server is not None
    run.server.kill()
    run.server.communicate()
    _wait(run.line, 2.0)
    run.new_servers.append(_serving(run.port))


@contextmanager
def running(folder: Path, seconds: int, *, workers: int = 0, own_server: bool = False) -> Iterator[Running]:
    """The run; at the end everything that is still there is killed."""
    port = free_port()
    target, server = ["--target", f"http://127.0.0.1:{port}"], None
    if own_server:
        spec, url = folder / "own.yaml", f"http://127.0.0.1:{port}"
        spec.write_text(f"target: {{kind: command, command: '{' '.join(SERVER)} {port} {TTFT}', url: '{url}'}}\n")
        target = [str(spec)]
    else:
        server = _serving(port)
    flags = [*target, *LOAD, "--duration", f"{seconds}s"]
    with contextlib.ExitStack() as stack:
        if workers:
            machines = stack.enter_context(Distributed(folder, flags, workers=workers))
            run = Running(machines.out, machines.master, server, port, machines.worker_processes)
        else:
            run = Running(folder / "run", started(command("run", *flags, "--out", folder / "run")), server, port)
        try:
            yield run
        finally:
            servers = [process for process in (server, *run.new_servers) if process is not None]
            for member in [*run.family(), *(member for process in servers for member in _tree(process))]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            for process in (*servers, *([] if workers else [run.line])):
                process.communicate()


def _serving(port: int) -> Process:
    process = started([*SERVER, str(port), TTFT])
    while True:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5):
            return process
        assert process.poll() is None, process.communicate()
        _wait(process, 0.05)


def _tree(process: Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(process.pid)
        return [root, *root.children(recursive=True)]
    return []


def _wait(process: Process, seconds: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
