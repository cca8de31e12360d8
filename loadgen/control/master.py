"""A run of several machines, on the one that commands: a Locust master runner, and what comes back from its workers.

The same messages from and to the harness as `local`; behind them are workers (`worker`) instead of this machine's own
injectors. Users, stages and the web UI are Locust's business, spread over the workers by it; the plan's rows are
spread by their session (`session % injectors`). Records arrive while the run goes on (`shipping`).

The end is a barrier: the run is over when every worker has drained and all it recorded is here, or when a worker has
been missing for `_PATIENCE_S` after the others were done. Whose rows never came back is known by then.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import gevent
from gevent.event import Event
from locust import User
from locust.env import Environment
from locust.rpc import Message as RpcMessage
from locust.runners import STATE_MISSING, MasterRunner

from loadgen.control import protocol
from loadgen.control.channel import Message
from loadgen.control.crew import Crew, load_classes
from loadgen.control.fleet import Fleet, Remote
from loadgen.control.shipping import Store, number_of
from loadgen.control.webui import WebUi
from workloads.errors import UserError

_WATCH_S: Final = 0.25
_AGAIN_S: Final = 1.0
_SILENT_S: Final = 4.0
_PATIENCE_S: Final = 8.0
_PREPARE_S: Final = 120.0


class MasterRun:
    """Lives until `over` is set."""

    def __init__(
        self,
        bind: tuple[str, int],
        expected: int,
        wait_s: float,
        report: Callable[[Message], None],
        ui: str | None = None,
    ) -> None:
        self._report = report
        self._wait_s = wait_s
        self._fleet = Fleet(expected)
        self._arrived = Event()
        self._prepared = Event()
        self._refusal: UserError | None = None
        self._crew: Crew | None = None
        self._own_classes: list[type[User]] = []
        self._store: Store | None = None
        self._t0_unix_ns = 0
        self._stopping: str | None = None
        self._ending = Event()
        self.over = Event()
        # Users of all classes are known only at `prepare`; workers may come sooner.
        self._environment = Environment(user_classes=[], stop_timeout=0)
        self._runner: MasterRunner = self._environment.create_master_runner(*bind)
        for message_type in protocol.TO_MASTER:
            self._runner.register_message(message_type, self._hear)
        self._ui = WebUi(self._environment, ui) if ui else None
        self._environment.events.test_stopping.add_listener(self._on_stopping)  # type: ignore[no-untyped-call]
        gevent.spawn(self._watch).link_exception(self._failed)

    # --- from the harness ------------------------------------------------------------------------------

    def take(self, message: Message) -> None:
        """One message from the harness."""
        match message["op"]:
            case "load":
                self._load(message)
            case "prepare":
                gevent.spawn(self._prepare, message)
            case "go":
                self._go(message["t0_unix_ns"])
            case "stop":
                self._stop(message.get("why", "the run was stopped"))
                if not self._t0_unix_ns:
                    self._dismiss()
            case other:
                raise ValueError(f"unknown message {other!r}")

    def _load(self, message: Message) -> None:
        try:
            self._own_classes = load_classes(message)
        except UserError as error:
            self._report({"op": "refused", "what": error.what, "where": error.where, "remedy": error.remedy})
        else:
            self._report({"op": "loaded", "classes": [kind.__name__ for kind in self._own_classes]})

    def gone(self) -> None:
        """The harness is gone: end, keep what was measured."""
        self._stop("the command line process is gone")
        gevent.spawn_later(5, self._dismiss)

    def _prepare(self, message: Message) -> None:
        try:
            self._gather()
            self._hand_out(message)
            gevent.wait([self._prepared], timeout=_PREPARE_S)
            if self._refusal is not None:
                raise self._refusal
            late = [r.name for r in self._fleet.remotes.values() if not r.prepared]
            if late:
                raise UserError(f"{', '.join(late)} did not get ready within {_PREPARE_S:.0f} s", where="workers")
        except UserError as error:
            self._report({"op": "refused", "what": error.what, "where": error.where, "remedy": error.remedy})
            self._stop("the run was refused")
            return
        remotes = self._fleet.remotes.values()
        self._report(
            {
                "op": "ready",
                "stamps": all(remote.stamps for remote in remotes),
                "injectors": self._fleet.injectors,
                "workers": [remote.facts() for remote in remotes],
            }
        )

    def _gather(self) -> None:
        """Wait for the workers.

        Raises:
            UserError: too few came.
        """
        if not self._arrived.wait(self._wait_s):
            raise UserError(
                f"{len(self._fleet.remotes)} of {self._fleet.expected} workers came within {self._wait_s:.0f} s: "
                + self._fleet.who_came(),
                where="--expect-workers",
                remedy="Start the others with `tailgate worker --master ADDRESS`, or wait longer (--wait).",
            )

    def _hand_out(self, message: Message) -> None:
        """Send each worker its shard, and the files that go with it."""
        self._fleet.number_injectors()
        self._crew = Crew.of(message, self._report, self._own_classes)
        self._crew.dress(self._environment)
        job = message["job"]
        self._store = Store(Path(job["spool"]))
        plan = message["plan"]
        files = {"plan.parquet": Path(job["plan"])} if plan["how"] == "file" else {}
        if job["content"] is not None:
            files["content.npz"] = Path(job["content"])
        if job["bodies"] is not None:
            files[protocol.bodies_file(job)] = Path(job["bodies"])
        common = {key: message[key] for key in ("stages", "warmup_ns", "measure_end_ns", "plan", "key", "locustfile")}
        for remote in self._fleet.remotes.values():
            shard = {
                **common, "job": job, "first": remote.first, "of": self._fleet.injectors,
                "requests": self._fleet.share_of(remote, message["requests"]),
                "files": {name: path.stat().st_size for name, path in files.items()},
            }  # fmt: skip
            self._tell(remote, protocol.SHARD, shard)
            for name, path in files.items():
                self._send_file(remote, name, path)

    def _send_file(self, remote: Remote, name: str, path: Path) -> None:
        offset = 0
        with path.open("rb") as file:
            while piece := file.read(protocol.PIECE_BYTES):
                self._tell(remote, protocol.FILE, {"name": name, "offset": offset, "piece": piece})
                offset += len(piece)
                gevent.sleep(0)  # heartbeats between the pieces

    def _go(self, t0_unix_ns: int) -> None:
        assert self._crew is not None
        self._t0_unix_ns = t0_unix_ns
        ours = self._fleet.remotes
        for client in list(self._runner.clients):
            if client not in ours:  # somebody else's worker, or one that was turned away
                del self._runner.clients[client]
        for remote in ours.values():
            self._tell(remote, protocol.GO, {"t0_unix_ns": t0_unix_ns})
        self._crew.begin(self._environment, t0_unix_ns, machines=len(ours))

    def _stop(self, why: str) -> None:
        self._stopping = why
        for remote in self._fleet.remotes.values():
            self._tell(remote, protocol.STOP, {"why": why})

    # --- from the workers ------------------------------------------------------------------------------

    def _hear(self, environment: Environment, msg: RpcMessage) -> None:
        data = msg.data or {}
        if msg.type == protocol.PING:  # of anybody: before a hello was heard, too
            received = time.time_ns()
            pong = {"sent": data["sent"], "received": received, "answered": time.time_ns()}
            self._runner.send_message(protocol.PONG, pong, client_id=msg.node_id)
            if msg.node_id in self._fleet.remotes:
                self._fleet.remotes[msg.node_id].heard_at = time.monotonic()
            return
        if msg.type == protocol.HELLO:
            self._hear_hello(msg.node_id, data)
            return
        remote = self._fleet.remotes.get(msg.node_id)
        if remote is None:
            return
        remote.heard_at = time.monotonic()
        match msg.type:
            case protocol.PREPARED:
                remote.prepared, remote.stamps = True, data["stamps"]
                remote.offset_ns, remote.error_ns = data["offset_ns"], data["error_ns"]
                if all(r.prepared for r in self._fleet.remotes.values()):
                    self._prepared.set()
            case protocol.REFUSED:
                where = f"{remote.name}: {data['where']}" if data["where"] else remote.name
                self._refusal = UserError(data["what"], where=where, remedy=data["remedy"])
                self._prepared.set()
            case protocol.SAID:
                remote.began = True
                self._hear_said(remote, data["message"])
            case protocol.SPOOL:
                self._hear_spool(remote, data)
            case protocol.DRAINED:
                if not remote.drained:
                    remote.drained = True
                    remote.drift_ns = data["offset_ns"] - remote.offset_ns
                    if remote.closed_at_ns is None:
                        self._left_early(remote, "left before the end")
                if self.over.is_set():
                    self._tell(remote, protocol.DISMISSED, {})

    def _hear_hello(self, client: str, about: dict[str, Any]) -> None:
        known = client in self._fleet.remotes
        answer = self._fleet.admit(client, about)
        if isinstance(answer, UserError):
            refusal = {"what": answer.what, "remedy": answer.remedy}
            self._runner.send_message(protocol.TURNED_AWAY, refusal, client_id=client)
            named = f"{about.get('name') or 'a worker'} (tailgate {about.get('version')}): {answer.what}"
            if named not in self._fleet.turned_away:
                self._fleet.turned_away.append(named)
                self._event(f"turned away {named}")
            return
        if not known:
            self._event(f"{answer.name} joined with {answer.injectors} injector(s)")
        self._tell(answer, protocol.WELCOME, {"number": answer.number, "name": answer.name})
        if self._fleet.complete:
            self._arrived.set()

    def _hear_said(self, remote: Remote, message: Message) -> None:
        match message["op"]:
            case "closing":
                remote.closed_at_ns, remote.users = message["at_unix_ns"], message["users"]
                self._close_when_all_have()
            case "event":
                self._event(f"{remote.name} {message['text']}", message["kind"])
            case _:
                self._report(message)
                if self._ui is not None:
                    self._ui.take(message)

    def _close_when_all_have(self) -> None:
        """Closed loop: the measure phase ends when the last worker's users stopped asking."""
        remotes = [r for r in self._fleet.remotes.values() if not r.given_up and (r.closed_at_ns or not r.drained)]
        if not remotes or any(remote.closed_at_ns is None for remote in remotes):
            return
        users = {key: sum(remote.users[key] for remote in remotes) for key in ("mean", "max")}
        at = max(remote.closed_at_ns or 0 for remote in remotes)
        self._report({"op": "closing", "at_unix_ns": at, "users": users})

    def _left_early(self, remote: Remote, how: str) -> None:
        """A closed loop lacks a worker's users from then on: no record shows that, so the run says it."""
        if self._crew is not None and self._crew.closed and self._stopping is None:
            self._report({"op": "failed", "why": f"{remote.name} {how}: its users were missing from then on"})
            self._close_when_all_have()

    def _hear_spool(self, remote: Remote, data: dict[str, Any]) -> None:
        number = number_of(data["name"])
        mine = range(remote.first, remote.first + remote.injectors)
        if self._store is None or number not in mine:
            return
        try:
            upto = self._store.take(data["name"], data["offset"], data["piece"])
        except OSError as error:
            if self._stopping is None:
                failure = f"can't write records: {error.strerror}"
                self._report({"op": "warning", "text": failure})
                self._stop(failure)
            return
        self._tell(remote, protocol.STORED, {"name": data["name"], "upto": upto})

    def _tell(self, remote: Remote, kind: str, data: dict[str, Any]) -> None:
        self._runner.send_message(kind, data, client_id=remote.id)

    def _event(self, text: str, kind: str = "worker") -> None:
        self._report({"op": "event", "kind": kind, "text": text, "at_unix_ns": time.time_ns()})

    # --- the barrier -----------------------------------------------------------------------------------

    def _watch(self) -> None:
        told = time.monotonic()
        while not self.over.is_set():
            gevent.sleep(_WATCH_S)
            for remote in self._fleet.remotes.values():
                self._look_after(remote)
            if time.monotonic() - told > _AGAIN_S:
                told = time.monotonic()
                self._say_again()
            if self._t0_unix_ns and self._all_accounted_for():
                self._report({"op": "fleet", "workers": [r.facts() for r in self._fleet.remotes.values()]})
                self._report({"op": "all-ended"})
                self._dismiss()

    def _failed(self, greenlet: gevent.Greenlet) -> None:
        """Our own fault: the run ends now instead of at its deadline."""
        self._report({"op": "failed", "why": f"the master failed: {greenlet.exception!r}"})
        self._stop("the master failed")
        self._report({"op": "all-ended"})
        self._dismiss()

    def _look_after(self, remote: Remote) -> None:
        node = self._runner.clients.get(remote.id)
        silent = time.monotonic() - remote.heard_at > _SILENT_S
        missing = silent and (node is None or node.state == STATE_MISSING)
        if missing and remote.missing_since is None and remote.here:
            remote.missing_since = time.monotonic()
            self._event(f"{remote.name} is missing: it died, or the network between is down")
            if not self._t0_unix_ns:
                self._refusal = UserError(f"{remote.name} went away before the run began", where="workers")
                self._prepared.set()
        elif not missing and remote.missing_since is not None:
            gone_s = time.monotonic() - remote.missing_since
            remote.missing_since = None
            remote.given_up = False
            self._event(f"{remote.name} is back after {gone_s:.0f} s")

    def _say_again(self) -> None:
        """What must not be lost: the start and the stop."""
        for remote in self._fleet.remotes.values():
            if self._stopping is not None and remote.here:
                self._tell(remote, protocol.STOP, {"why": self._stopping})
            elif self._t0_unix_ns and not remote.began:
                self._tell(remote, protocol.GO, {"t0_unix_ns": self._t0_unix_ns})

    def _all_accounted_for(self) -> bool:
        waiting = [remote for remote in self._fleet.remotes.values() if remote.here]
        if any(remote.missing_since is None for remote in waiting):
            return False
        now = time.monotonic()
        for remote in waiting:
            if now - (remote.missing_since or now) > _PATIENCE_S:
                remote.given_up = True
                self._event(f"{remote.name} did not come back: what it did not report is lost")
                self._left_early(remote, "did not come back")
        return not any(remote.here for remote in waiting)

    def _on_stopping(self, environment: Environment, **_: Any) -> None:
        """Locust's own stop (its web UI, its last worker gone): nothing ends before the records are here."""
        if self.over.is_set() or not self._t0_unix_ns or self._runner.worker_count == 0:
            return
        if self._stopping is None:
            self._report({"op": "stopped", "why": "stopped in Locust's web UI"})
            self._stop("the run was stopped in Locust's web UI")
        self.over.wait()

    def _dismiss(self) -> None:
        for remote in self._fleet.remotes.values():
            self._tell(remote, protocol.DISMISSED, {})
        self.over.set()

    def close(self) -> None:
        """End Locust: its workers hear of it, too."""
        if self._ui is not None:
            self._ui.close()
        self._runner.quit()
