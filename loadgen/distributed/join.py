"""The master's work before the run: it lets workers join, sends them their shards, and waits until all are ready."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import gevent
from gevent.event import Event

from tailgate.loadgen.control.channel import Message
from tailgate.loadgen.control.stages import Stage
from tailgate.loadgen.distributed import protocol
from tailgate.loadgen.distributed.transfer import describe_file
from tailgate.loadgen.distributed.workers import Worker, Workers, shown_name
from tailgate.workloads.common.errors import UserError

_PREPARE_S: Final = 120.0
# Workers that were turned away and are told of one by one: strangers may come in any number.
_MOST_NAMED: Final = 20
# What every worker gets of a `prepare` message.
_COMMON: Final = ("stages", "warmup_ns", "measure_end_ns", "plan", "key", "locustfile")

# (worker's connection, kind, data)
Send = Callable[[str, str, dict[str, Any]], None]


class Join:
    """Gathers the workers of a run: `on_...` is called for their messages, `wait_until_ready` by the master."""

    def __init__(self, workers: Workers, send: Send, event: Callable[[str], None]) -> None:
        self._workers = workers
        self._send = send
        self._event = event
        self._arrived = Event()
        self._prepared = Event()
        self._refusal: UserError | None = None

    def wait_until_ready(self, message: Message, wait_s: float) -> None:
        """Wait for the workers and send each its shard, or raise a UserError if too few came or one can't serve it."""
        if not self._arrived.wait(wait_s):
            raise UserError(
                f"{len(self._workers.by_id)} of {self._workers.expected} workers came within {wait_s:.0f} s: "
                + self._workers.who_came(),
                where="--expect-workers",
                remedy="Start the others with `tailgate worker --master ADDRESS`, or wait longer (--wait).",
            )
        self._workers.number_injectors()
        self._send_shards(message)
        self._prepared.wait(_PREPARE_S)
        if self._refusal is not None:
            raise self._refusal
        late = [worker.name for worker in self._workers.by_id.values() if not worker.prepared]
        if late:
            raise UserError(f"{', '.join(late)} did not get ready within {_PREPARE_S:.0f} s", where="workers")

    def _send_shards(self, message: Message) -> None:
        job = message["job"]
        files = {"plan.parquet": Path(job["plan"])} if message["plan"]["how"] == "file" else {}
        if job["content"] is not None:
            files["content.npz"] = Path(job["content"])
        if job["bodies"] is not None:
            files[protocol.bodies_file(job)] = Path(job["bodies"])
        if (trace := protocol.trace_of(job)) is not None:
            files[protocol.trace_file(job)] = Path(trace)
        about = {name: describe_file(path) for name, path in files.items()}
        common = {key: message[key] for key in _COMMON}
        shares = self._workers.shares(message["requests"], [Stage(**stage) for stage in message["stages"]])
        for worker in self._workers.by_id.values():
            shard = {
                **common, "job": job, "first": worker.first, "of": self._workers.injectors,
                "requests": shares[worker.id],
                "files": about,
            }  # fmt: skip
            self._send(worker.id, protocol.SHARD, shard)
            for name, path in files.items():
                self._send_file(worker, name, path)

    def _send_file(self, worker: Worker, name: str, path: Path) -> None:
        offset = 0
        with path.open("rb") as file:
            while piece := file.read(protocol.PIECE_BYTES):
                self._send(worker.id, protocol.FILE, {"name": name, "offset": offset, "piece": piece})
                offset += len(piece)
                gevent.sleep(0)  # heartbeats between the pieces

    def on_hello(self, client: str, about: dict[str, Any]) -> None:
        """Let a worker join or turn it away. It asks again until it has an answer."""
        already_in = client in self._workers.by_id
        answer = self._workers.admit(client, about)
        if isinstance(answer, UserError):
            self._send(client, protocol.TURNED_AWAY, {"what": answer.what, "remedy": answer.remedy})
            name, version = shown_name(about["name"]) or "a worker", shown_name(about["version"])
            named = f"{name} (tailgate {version}): {answer.what}"
            if named not in self._workers.turned_away and len(self._workers.turned_away) < _MOST_NAMED:
                self._workers.turned_away.append(named)
                self._event(f"turned away {named}")
            return
        if not already_in:
            several = "1 injector" if answer.injectors == 1 else f"{answer.injectors} injectors"
            self._event(f"{answer.name} joined with {several}")
        self._send(client, protocol.WELCOME, {"number": answer.number, "name": answer.name})
        if self._workers.complete:
            self._arrived.set()

    def on_ping(self, client: str, data: dict[str, Any]) -> None:
        received = time.time_ns()
        pong = {"sent": data["sent"], "received": received, "answered": time.time_ns()}
        self._send(client, protocol.PONG, pong)

    def on_prepared(self, worker: Worker, data: dict[str, Any]) -> None:
        worker.prepared, worker.stamps = True, data["stamps"]
        worker.offset_ns, worker.error_ns = data["offset_ns"], data["error_ns"]
        if all(other.prepared for other in self._workers.by_id.values()):
            self._prepared.set()

    def on_refused(self, worker: Worker, data: dict[str, Any]) -> None:
        where = f"{worker.name}: {data['where']}" if data["where"] else worker.name
        self._fail(UserError(data["what"], where=where, remedy=data["remedy"]))

    def on_missing(self, worker: Worker) -> None:
        """Forget a worker that is missing before the run: another may take its place unless shards are out already."""
        if self._workers.sharded:
            self._fail(UserError(f"{worker.name} went away before the run began", where="workers"))
            return
        self._workers.forget(worker)
        self._arrived.clear()
        self._event(f"{worker.name} is forgotten: another worker may take its place")

    def _fail(self, why: UserError) -> None:
        self._refusal = self._refusal or why
        self._prepared.set()
