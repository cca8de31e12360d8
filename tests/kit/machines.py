"""A master and its workers as processes of their own, and a target whose truth is known (written in C)."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from tailgate.reports.rundir.spool import whole_batches
from tests.kit.command import command, free_port
from tests.kit.paths import EXACT_SERVER

# How long a test waits for what must come; a pass never waits it out.
PATIENCE_S = 120.0


def compiled(folder: Path) -> Path:
    """The exact server."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("the exact server needs a C compiler: install gcc")
    out = folder / "exact_server"
    subprocess.run([compiler, "-O2", "-o", str(out), str(EXACT_SERVER)], check=True)
    return out


@contextlib.contextmanager
def serving(binary: Path, *options: str, within: Sequence[str] = ()) -> Iterator[int]:
    """The exact server on a free port; ``within``: what to put in front of the command."""
    process = subprocess.Popen([*within, str(binary), *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(json.loads(process.stdout.readline())["port"])
    finally:
        process.terminate()
        process.wait()


def load(port: int, rate: int, seconds: int, tokens: int = 3) -> list[str]:
    """An open loop on the exact server."""
    return [
        "--target", f"http://127.0.0.1:{port}", "--rate", f"{rate}/s", "--duration", f"{seconds}s",
        "--prompt-tokens", "16", "--output-tokens", str(tokens), "--seed", "5", "--no-settle",
    ]  # fmt: skip


def started(command: Sequence[str], within: Sequence[str] = (), **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*within, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **env},
        start_new_session=True,
    )  # fmt: skip


def until_line(process: subprocess.Popen[str], part: str) -> str:
    """The first line of a process's standard error that holds `part`."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if part in line:
            return line
    raise AssertionError(f"no {part!r} in:\n{''.join(lines)}")


@dataclass
class Distributed:
    """One distributed run: `tailgate run` with its workers, each started as a person would."""

    folder: Path
    run: Sequence[str | Path]
    workers: int = 2
    injectors: int = 1
    alone_s: int = 6
    bind: str = "127.0.0.1"
    master_within: Sequence[str] = ()
    worker_within: Sequence[Sequence[str]] = ()
    worker_flags: Sequence[str] = ()
    token: str = ""  # which master and workers share
    late: bool = False  # workers come by `join` only
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __enter__(self) -> "Distributed":
        address = f"{self.bind}:{free_port()}"
        self.address = address
        flags = ["--expect-workers", str(self.workers), "--bind", address, "--out", self.out, *self.token_flags]
        self.master = started(command("run", *self.run, *flags), self.master_within, **self.variables)
        self.started.append(self.master)
        for k in range(0 if self.late else self.workers):
            self.join(self.worker_within[k] if self.worker_within else ())
        return self

    def join(self, within: Sequence[str] = (), *more: str) -> subprocess.Popen[str]:
        """One more worker."""
        flags = ["--master", self.address, "--injectors", str(self.injectors), "--alone", f"{self.alone_s}s"]
        flags += ["--spool", str(self.folder / "spools"), *self.token_flags, *self.worker_flags]
        self.started.append(started(command("worker", *flags, *more), within, **self.variables))
        return self.started[-1]

    @property
    def token_flags(self) -> list[str]:
        return ["--token-env", "TG_TOKEN"] if self.token else []

    @property
    def variables(self) -> dict[str, str]:
        return {"TG_TOKEN": self.token} if self.token else {}

    @property
    def out(self) -> Path:
        return self.folder / "run"

    @property
    def worker_processes(self) -> list[subprocess.Popen[str]]:
        return self.started[1:]

    def __exit__(self, *_: object) -> None:
        for process in self.started:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def ended(self) -> "Ended":
        """Everybody's exit code and words."""
        out, err = self.master.communicate(timeout=PATIENCE_S)
        workers = []
        for process in self.worker_processes:
            said = process.communicate(timeout=PATIENCE_S)
            workers.append((process.returncode, "".join(said)))
        return Ended(self.out, self.master.returncode, out, err, workers)

    def until_spooled(self, number: int, size: int) -> None:
        """The master holds this much of an injector's records."""
        path = self.out / "spool" / f"injector-{number}.arrows"
        while not (path.exists() and path.stat().st_size > size):
            assert self.master.poll() is None, self.master.communicate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.master.wait(0.05)

    def until_reported(self, number: int, rows: int) -> None:
        """The master holds records of so many requests of an injector."""
        path = self.out / "spool" / f"injector-{number}.arrows"
        while sum(batch.num_rows for batch in whole_batches(path)) < rows:
            assert self.master.poll() is None, self.master.communicate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.master.wait(0.05)


@dataclass(frozen=True)
class Ended:
    run: Path
    code: int
    out: str
    err: str
    workers: list[tuple[int, str]]

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run / "summary.json").read_text())
        return found

    @property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run / "manifest.json").read_text())
        return found

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run / "events.jsonl").read_text().splitlines()]

    def check(self, name: str) -> dict[str, Any]:
        """One validity check of the summary."""
        (found,) = [check for check in self.summary["checks"] if check["name"] == name]
        return dict(found)

    def requests(self) -> Any:
        return pq.read_table(self.run / "requests.parquet")

    def client(self) -> Any:
        return pq.read_table(self.run / "client.parquet")

    def plan(self) -> Any:
        return pq.read_table(self.run / "plan.parquet")


def killed(process: subprocess.Popen[str]) -> None:
    """kill -9 of a process and all its children at once, as when a machine fails."""
    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(tree, timeout=30)
