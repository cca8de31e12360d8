"""Drives a real injector process over its control socket, and reads what it spooled."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tailgate.loadgen.injector.http.endpoint import Trust
from tailgate.loadgen.job import Job
from tailgate.workloads.prompts.content_table import table_from_ids
from tailgate.workloads.table.columns import PLAN_SCHEMA

MS = 1_000_000
S = 1_000_000_000
# How long a test waits for a message that must come; a pass never waits it out.
PATIENCE_S = 30.0

Message = dict[str, Any]


def plan(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """A plan from rows that name only what matters: `at_ms` (None: follows its predecessor), session, turn, ..."""
    whole = [
        {
            "index": index,
            "at_ns": None if row.get("at_ms", 0.0) is None else int(row.get("at_ms", 0.0) * MS),
            "session": row.get("session", index),
            "turn": row.get("turn", 0),
            "think_ns": int(row.get("think_ms", 0.0) * MS),
            "class": row.get("class", "default"),
            "tenant": "default",
            "priority": row.get("priority", 0),
            "prompt_tokens": row.get("prompt_tokens", 8),
            "output_tokens": row.get("output_tokens", 3),
            "prefix_blocks": [],
            "content_seed": row.get("content_seed", index),
            "phase": "measure",
        }
        for index, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(whole, schema=PLAN_SCHEMA)


def read_spool(path: Path) -> list[dict[str, Any]]:
    """The rows of every whole batch; what a killed writer left behind them is passed over."""
    rows: list[dict[str, Any]] = []
    with path.open("rb") as file, contextlib.suppress(pa.ArrowInvalid, OSError, EOFError, StopIteration):
        reader = pa.ipc.open_stream(file)
        while True:
            rows += reader.read_next_batch().to_pylist()
    return rows


@dataclass
class Driven:
    """One injector process; a context manager that leaves no process behind."""

    folder: Path
    urls: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    job: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    limits: dict[int, int] = field(default_factory=dict)  # resource -> limit, of the child
    messages: list[Message] = field(default_factory=list)
    t0_ns: int = 0

    def __enter__(self) -> "Driven":
        if "content_options" not in self.job:  # prompts of ids need no text; a small table is made in no time
            table_from_ids([2_000 + k * k % 1_999 for k in range(2_000)]).save(self.folder_made() / "content.npz")
            self.job = {"content": str(self.folder / "content.npz"), **self.job}
        spool = self.folder / "spool"
        spool.mkdir(parents=True, exist_ok=True)
        pq.write_table(plan(self.rows), self.folder / "plan.parquet")
        fields: dict[str, Any] = {
            "injector": 0, "injectors": 1, "loop": "open", "urls": tuple(self.urls), "api": "completions",
            "model": "m", "dialect": "vllm", "drain_ns": 20 * S, "run_nonce": "test", "trust": Trust(),
        }  # fmt: skip
        last_ms = max((row.get("at_ms") or 0.0 for row in self.rows), default=0.0)
        fields["measure_end_ns"] = int(last_ms * MS) + 1
        self.told = Job(plan=str(self.folder / "plan.parquet"), spool=str(spool), **{**fields, **self.job})
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tailgate.loadgen.injector", "--fd", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**_without_proxies(), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **self.environment},
            )
        self._line = ours
        self._line.settimeout(PATIENCE_S)
        self._lines = ours.makefile("rb")
        for kind, limit in self.limits.items():
            resource.prlimit(self.process.pid, kind, (limit, limit))
        return self

    def folder_made(self) -> Path:
        """The run's folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGCONT)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def tell(self, **message: Any) -> None:
        """One message."""
        self._line.sendall(orjson.dumps(message) + b"\n")

    def hang_up(self) -> None:
        """End of the control socket, as when the Locust process dies."""
        self._lines.close()
        self._line.close()

    def heard(self) -> Message | None:
        """The next message; None when the injector has hung up."""
        line = self._lines.readline()
        if not line:
            return None
        message: Message = orjson.loads(line)
        self.messages.append(message)
        return message

    def until(self, *ops: str) -> Message:
        """The next message of one of these kinds."""
        while (message := self.heard()) is not None:
            if message["op"] in ops:
                return message
        raise AssertionError(f"no {ops} before the end; heard {self.messages}")

    def prepare(self) -> Message:
        """Send the job; `ready` or `refused`."""
        self.tell(op="job", job=self.told.to_dict())
        return self.until("ready", "refused", "crashed")

    def go(self, lead_ms: float = 60.0) -> None:
        """The run begins."""
        self.t0_ns = time.time_ns() + int(lead_ms * MS)
        self.tell(op="go", t0_unix_ns=self.t0_ns)

    def finish(self) -> "Outcome":
        """Everything up to `end`, and the spool."""
        end = self.until("end")
        self.hang_up()
        code = self.process.wait(PATIENCE_S)
        return Outcome(self.messages, end, self.records(), self.client(), code, self.t0_ns)

    def records(self) -> dict[int, dict[str, Any]]:
        """By index, as spooled so far."""
        rows = read_spool(self.folder / "spool" / f"injector-{self.told.injector}.arrows")
        found = {row["index"]: row for row in rows}
        assert len(found) == len(rows), "a row was recorded twice"
        return found

    def client(self) -> list[dict[str, Any]]:
        """The injector's own seconds."""
        return read_spool(self.folder / "spool" / f"client-{self.told.injector}.arrows")


@dataclass(frozen=True)
class Outcome:
    """What came of a run."""

    messages: list[Message]
    end: Message
    records: dict[int, dict[str, Any]]
    client: list[dict[str, Any]]
    exit_code: int
    t0_ns: int

    def statuses(self) -> dict[int, str]:
        """Status by index."""
        return {index: row["status"] for index, row in sorted(self.records.items())}


def drive(
    folder: Path, urls: Sequence[str], rows: Sequence[Mapping[str, Any]],
    meanwhile: Callable[[Driven], None] | None = None, *, environment: dict[str, str] | None = None,
    limits: dict[int, int] | None = None, **job: Any,
) -> Outcome:  # fmt: skip
    """One run from job to end. ``meanwhile`` is called right after `go`."""
    with Driven(folder, urls, rows, job, environment or {}, limits or {}) as driven:
        ready = driven.prepare()
        assert ready["op"] == "ready", ready
        driven.go()
        if meanwhile is not None:
            meanwhile(driven)
        return driven.finish()


def _without_proxies() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
