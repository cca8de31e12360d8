"""The master before the run: workers join or are turned away, get their shards, and say that they are ready."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import gevent
from gevent.event import Event

from tailgate.loadgen.control.channel import Message
from tailgate.loadgen.control.stages import Stage
from tailgate.loadgen.distributed import protocol
from tailgate.loadgen.distributed.file_transfer import described
from tailgate.loadgen.distributed.workers import Fleet, Remote
from tailgate.workloads.common.errors import UserError

_PREPARE_S: Final = 120.0
# What of a `prepare` message every worker is told.
_COMMON: Final = ("stages", "warmup_ns", "measure_end_ns", "plan", "key", "locustfile")

# (worker's connection, kind, data)
Tell = Callable[[str, str, dict[str, Any]], None]


class Muster:
    """Gathers a fleet. Its methods are called with what workers say, `ready` by who waits for them."""

    def __init__(self, fleet: Fleet, tell: Tell, event: Callable[[str], None]) -> None:
        self._fleet = fleet
        self._tell = tell
        self._event = event
        self._arrived = Event()
        self._prepared = Event()
        self._refusal: UserError | None = None

    def ready(self, message: Message, wait_s: float) -> None:
        """Wait for the workers, send each its shard, and wait until all can begin.

        Raises:
            UserError: too few came, or one can't serve its shard.
        """
        if not self._arrived.wait(wait_s):
            raise UserError(
                f"{len(self._fleet.remotes)} of {self._fleet.expected} workers came within {wait_s:.0f} s: "
                + self._fleet.who_came(),
                where="--expect-workers",
                remedy="Start the others with `tailgate worker --master ADDRESS`, or wait longer (--wait).",
            )
        self._fleet.number_injectors()
        self._hand_out(message)
        self._prepared.wait(_PREPARE_S)
        if self._refusal is not None:
            raise self._refusal
        late = [remote.name for remote in self._fleet.remotes.values() if not remote.prepared]
        if late:
            raise UserError(f"{', '.join(late)} did not get ready within {_PREPARE_S:.0f} s", where="workers")

    def _hand_out(self, message: Message) -> None:
        job = message["job"]
        files = {"plan.parquet": Path(job["plan"])} if message["plan"]["how"] == "file" else {}
        if job["content"] is not None:
            files["content.npz"] = Path(job["content"])
        if job["bodies"] is not None:
            files[protocol.bodies_file(job)] = Path(job["bodies"])
        if (trace := protocol.trace_of(job)) is not None:
            files[protocol.trace_file(job)] = Path(trace)
        about = {name: described(path) for name, path in files.items()}
        common = {key: message[key] for key in _COMMON}
        shares = self._fleet.shares(message["requests"], [Stage(**stage) for stage in message["stages"]])
        for remote in self._fleet.remotes.values():
            shard = {
                **common, "job": job, "first": remote.first, "of": self._fleet.injectors,
                "requests": shares[remote.id],
                "files": about,
            }  # fmt: skip
            self._tell(remote.id, protocol.SHARD, shard)
            for name, path in files.items():
                self._send_file(remote, name, path)

    def _send_file(self, remote: Remote, name: str, path: Path) -> None:
        offset = 0
        with path.open("rb") as file:
            while piece := file.read(protocol.PIECE_BYTES):
                self._tell(remote.id, protocol.FILE, {"name": name, "offset": offset, "piece": piece})
                offset += len(piece)
                gevent.sleep(0)  # heartbeats between the pieces

    # --- what workers say ------------------------------------------------------------------------------

    def hello(self, client: str, about: dict[str, Any]) -> None:
        """Somebody wants to join, or has not heard that it has."""
        known = client in self._fleet.remotes
        answer = self._fleet.admit(client, about)
        if isinstance(answer, UserError):
            self._tell(client, protocol.TURNED_AWAY, {"what": answer.what, "remedy": answer.remedy})
            named = f"{about.get('name') or 'a worker'} (tailgate {about.get('version')}): {answer.what}"
            if named not in self._fleet.turned_away:
                self._fleet.turned_away.append(named)
                self._event(f"turned away {named}")
            return
        if not known:
            several = "1 injector" if answer.injectors == 1 else f"{answer.injectors} injectors"
            self._event(f"{answer.name} joined with {several}")
        self._tell(client, protocol.WELCOME, {"number": answer.number, "name": answer.name})
        if self._fleet.complete:
            self._arrived.set()

    def ping(self, client: str, data: dict[str, Any]) -> None:
        """Somebody asks for our time."""
        received = time.time_ns()
        pong = {"sent": data["sent"], "received": received, "answered": time.time_ns()}
        self._tell(client, protocol.PONG, pong)

    def prepared(self, remote: Remote, data: dict[str, Any]) -> None:
        """A worker can begin."""
        remote.prepared, remote.stamps = True, data["stamps"]
        remote.offset_ns, remote.error_ns = data["offset_ns"], data["error_ns"]
        if all(one.prepared for one in self._fleet.remotes.values()):
            self._prepared.set()

    def refused(self, remote: Remote, data: dict[str, Any]) -> None:
        """A worker can't serve its shard."""
        where = f"{remote.name}: {data['where']}" if data["where"] else remote.name
        self._give_up(UserError(data["what"], where=where, remedy=data["remedy"]))

    def gone(self, remote: Remote) -> None:
        """A worker is missing before the run began: another may come in its place, unless shards are handed out."""
        if self._fleet.sharded:
            self._give_up(UserError(f"{remote.name} went away before the run began", where="workers"))
            return
        self._fleet.forget(remote)
        self._arrived.clear()
        self._event(f"{remote.name} is forgotten: another worker may take its place")

    def _give_up(self, why: UserError) -> None:
        self._refusal = self._refusal or why
        self._prepared.set()
