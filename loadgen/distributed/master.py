"""The commanding side of a run on several machines: a Locust master runner, and what its workers send back.

It exchanges the same messages with the harness as `local_run`, but behind it are workers instead of this machine's own
injectors. Users, stages and the web UI are Locust's business, spread over the workers by it; the plan's rows are
spread by their session (`session % injectors`). Records arrive while the run goes on (`transfer`).

The end is a barrier: the run is over when every worker has drained and all it recorded is here, or is given up
(`workers.Liveness`). By then it is known whose rows never came back.
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
from locust.runners import STATE_MISSING

from tailgate.loadgen.control.channel import Message
from tailgate.loadgen.control.run_setup import RunSetup, load_classes
from tailgate.loadgen.control.webui import WebUi
from tailgate.loadgen.distributed import locust_runners, protocol
from tailgate.loadgen.distributed.join import Join
from tailgate.loadgen.distributed.seal import IgnoredMessages, Seal
from tailgate.loadgen.distributed.sockets import Sockets
from tailgate.loadgen.distributed.transfer import RecordStore, number_of
from tailgate.loadgen.distributed.workers import Liveness, Worker, Workers
from tailgate.workloads.common.errors import UserError

_WATCH_S: Final = 0.25
_AGAIN_S: Final = 1.0
_LAST_RECORDS_S: Final = 5.0  # that workers have when nobody waits for them any more


class MasterRun:
    """A run of several workers, which has ended when `over` is set."""

    def __init__(
        self,
        bind: tuple[str, int],
        expected: int,
        wait_s: float,
        report: Callable[[Message], None],
        ui: str | None = None,
        token: str | None = None,
    ) -> None:
        self._report = report
        self._wait_s = wait_s
        self._workers = Workers(expected)
        self._ignored = IgnoredMessages(lambda text: self._event(f"the workers' port ignored {text}"))
        self._join = Join(self._workers, self._send, self._event)
        self._liveness = Liveness(self._workers, self._beats, self._event)
        self._setup: RunSetup | None = None
        self._locustfile_classes: list[type[User]] = []
        self._store: RecordStore | None = None
        self._t0_unix_ns = 0
        self._drain_end_ns = 0  # run time by which every request has ended
        self._stopping: tuple[str, dict[str, Any]] | None = None  # the message that workers get again and again
        self.over = Event()
        # Users of all classes are known only at `prepare`; workers may come sooner.
        self._environment = Environment(user_classes=[], stop_timeout=0)
        Sockets(Seal(token, "master") if token else None, self._ignored.count).install()
        self._runner = self._environment._create_runner(locust_runners.TailgateMasterRunner, *bind)
        self._runner.takes_part = self._workers.takes_part
        self._runner.on_fault = self._on_fault
        for message_type in protocol.TO_MASTER:
            self._runner.register_message(message_type, self._on_message)
        self._ui = WebUi(self._environment, ui) if ui else None
        self._environment.events.test_stopping.add_listener(self._on_stopping)  # type: ignore[no-untyped-call]
        gevent.spawn(self._watch).link_exception(self._on_crash)

    # --- from the harness ------------------------------------------------------------------------------

    def on_message(self, message: Message) -> None:
        match message["op"]:
            case "load":
                self._locustfile_classes = load_classes(message, self._report)
            case "prepare":
                gevent.spawn(self._prepare, message).link_exception(self._on_crash)
            case "go":
                self._go(message["t0_unix_ns"])
            case "wind-down":
                self._stop(message["why"], protocol.WIND_DOWN)
            case "stop":
                self._stop(message.get("why", "the run was stopped"))
                if not self._t0_unix_ns:
                    self._dismiss()
            case "headers":
                pass  # of a key that was renewed: workers have it from their own environment
            case other:
                raise ValueError(f"unknown message {other!r}")

    def on_harness_gone(self) -> None:
        """End the run when the harness is gone, and keep the records."""
        if self.over.is_set():
            return
        self._stop("the command line process of the master is gone", gone=True)
        gevent.spawn_later(_LAST_RECORDS_S if self._t0_unix_ns else 0, self._dismiss)

    def _prepare(self, message: Message) -> None:
        self._store = RecordStore(Path(message["job"]["spool"]))
        self._drain_end_ns = message["measure_end_ns"] + message["drain_ns"]
        self._setup = RunSetup.of(message, self._report, self._locustfile_classes)
        self._setup.apply_to(self._environment)
        self._environment.host = message["job"]["urls"][0]
        try:
            self._join.wait_until_ready(message, self._wait_s)
        except UserError as error:
            self._ignored.conclude()
            self._report({"op": "refused", **error.parts})
            self._stop("the run was refused")
            return
        workers = self._workers.by_id.values()
        self._report(
            {
                "op": "ready",
                "stamps": all(worker.stamps for worker in workers),
                "injectors": self._workers.injectors,
                "workers": [worker.facts() for worker in workers],
            }
        )

    def _go(self, t0_unix_ns: int) -> None:
        assert self._setup is not None
        self._t0_unix_ns = t0_unix_ns
        for client in list(self._runner.clients):
            if client not in self._workers.by_id:  # somebody else's worker, or one that was turned away
                del self._runner.clients[client]
        for client in self._workers.by_id:
            self._send(client, protocol.GO, {"t0_unix_ns": t0_unix_ns})
        self._setup.begin(self._environment, t0_unix_ns, machines=len(self._workers.by_id))

    def _stop(self, why: str, how: str = protocol.STOP, *, gone: bool = False) -> None:
        self._stopping = how, {"why": why, "gone": gone}
        for client in self._workers.by_id:
            self._send(client, *self._stopping)

    # --- from and to the workers -----------------------------------------------------------------------

    def _on_message(self, environment: Environment, msg: RpcMessage) -> None:
        try:
            self._take(msg.node_id, msg.type, msg.data)
        except Exception as error:  # noqa: BLE001 - Locust would swallow it, and the run would wait for ever
            self._on_fault(error)

    def _take(self, client: str, kind: str, data: dict[str, Any]) -> None:
        worker = self._workers.by_id.get(client)
        if worker is not None:
            worker.last_heard_s = time.monotonic()
        if kind == protocol.HELLO:
            self._join.on_hello(client, data)
        elif kind == protocol.PING:  # of anybody: a worker may ping before it is let in
            self._join.on_ping(client, data)
        elif worker is not None:
            self._on_worker_message(worker, kind, data)

    def _on_worker_message(self, worker: Worker, kind: str, data: dict[str, Any]) -> None:
        match kind:
            case protocol.PREPARED:
                self._join.on_prepared(worker, data)
            case protocol.REFUSED:
                self._join.on_refused(worker, data)
            case protocol.REPORT:
                worker.began = True
                self._on_report(worker, data["message"])
            case protocol.SPOOL:
                self._on_spool(worker, data)
            case protocol.DRAINED:
                if not worker.drained:
                    worker.drained = True
                    worker.drift_ns = data["offset_ns"] - worker.offset_ns
                    if worker.closed_at_ns is None:
                        self._left_early(worker, "left before the end")
                if self.over.is_set():
                    self._send(worker.id, protocol.DISMISSED, {})

    def _on_report(self, worker: Worker, message: Message) -> None:
        if message.get("injector", worker.first) not in range(worker.first, worker.first + worker.injectors):
            return  # another worker's injector
        match message["op"]:
            case "closing":
                worker.users = message["users"]
                if self._stopping is not None or not message["early"]:  # else it leaves before the end, alone
                    worker.closed_at_ns = message["at_unix_ns"]
                    self._close_when_all_have()
            case "event":
                self._event(f"{worker.name} {message['text']}", message["kind"])
            case _:
                self._report(message)
                if self._ui is not None:
                    self._ui.on_message(message)

    def _on_spool(self, worker: Worker, data: dict[str, Any]) -> None:
        number = number_of(data["name"])
        if self._store is None or number not in range(worker.first, worker.first + worker.injectors):
            return
        try:
            upto = self._store.write(data["name"], data["offset"], data["piece"])
        except OSError as error:
            # Nothing more can be kept: the workers keep what is not here.
            self._store = None
            self._end_badly(f"can't write records: {error.strerror}")
            return
        self._send(worker.id, protocol.STORED, {"name": data["name"], "upto": upto})

    def _send(self, client: str, kind: str, data: dict[str, Any]) -> None:
        self._runner.send_message(kind, data, client_id=client)

    def _beats(self, client: str) -> bool:
        node = self._runner.clients.get(client)
        return node is not None and node.state != STATE_MISSING

    def _event(self, text: str, kind: str = "worker") -> None:
        self._report({"op": "event", "kind": kind, "text": text, "at_unix_ns": time.time_ns()})

    # --- the closed loop's users -----------------------------------------------------------------------

    def _close_when_all_have(self) -> None:
        """In a closed loop the measure phase ends when the last worker's users have stopped asking."""
        workers = [r for r in self._workers.by_id.values() if not r.given_up and (r.closed_at_ns or not r.drained)]
        if not workers or any(worker.closed_at_ns is None for worker in workers):
            return
        users = {key: sum(worker.users[key] for worker in workers) for key in ("mean", "max")}
        at = max(worker.closed_at_ns or 0 for worker in workers)
        assert self._setup is not None
        planned = self._setup.planned_users(self._t0_unix_ns, at)
        self._report({"op": "closing", "at_unix_ns": at, "users": users, "planned_users": planned})

    def _left_early(self, worker: Worker, how: str) -> None:
        """Fail a closed loop that lacks a worker's users from now on, since no record would show it."""
        if self._setup is not None and self._setup.closed and self._stopping is None:
            self._report({"op": "failed", "why": f"{worker.name} {how}: its users were missing from then on"})
            self._close_when_all_have()

    def _given_up(self, worker: Worker) -> None:
        """Fail the run: what became of this worker's requests is in no report."""
        if self._stopping is None:
            users = "its users were missing from then on, and " if self._setup and self._setup.closed else ""
            why = f"{worker.name} did not come back: {users}what it did not report is lost"
            self._report({"op": "failed", "why": why})
            self._close_when_all_have()

    # --- the barrier -----------------------------------------------------------------------------------

    def _watch(self) -> None:
        repeated_at = time.monotonic()
        while not self.over.is_set():
            gevent.sleep(_WATCH_S)
            for worker in self._liveness.newly_missing():
                if not self._t0_unix_ns:
                    self._runner.clients.pop(worker.id, None)
                    self._join.on_missing(worker)
            if time.monotonic() - repeated_at > _AGAIN_S:
                repeated_at = time.monotonic()
                self._repeat()
            if self._t0_unix_ns:
                over_s = (time.time_ns() - self._t0_unix_ns - self._drain_end_ns) / 1e9
                for worker in self._liveness.newly_given_up(over_s):
                    self._given_up(worker)
                if self._liveness.all_accounted_for:
                    self._end()

    def _repeat(self) -> None:
        """Send again what must not be lost: the start and the stop."""
        for worker in self._workers.by_id.values():
            if self._stopping is not None and worker.here:
                self._send(worker.id, *self._stopping)
            elif self._t0_unix_ns and not worker.began:
                self._send(worker.id, protocol.GO, {"t0_unix_ns": self._t0_unix_ns})

    def _on_stopping(self, environment: Environment, **_: Any) -> None:
        """Hold Locust back when it stops by itself (web UI, last worker gone) until all records are here."""
        if self.over.is_set() or not self._t0_unix_ns or self._runner.worker_count == 0:
            return
        if self._stopping is None:
            self._report({"op": "stopped", "why": "stopped in Locust's web UI"})
            self._stop("the run was stopped in Locust's web UI")
        self.over.wait()

    def _on_crash(self, greenlet: gevent.Greenlet) -> None:
        self._on_fault(greenlet.exception)

    def _on_fault(self, error: Exception) -> None:
        """End the run now, not at its deadline, when the master itself failed."""
        if not self.over.is_set():
            self._end_badly(f"the master failed: {error!r}")

    def _end_badly(self, why: str) -> None:
        self._report({"op": "failed", "why": why})
        self._stop(why)
        self._end()

    def _end(self) -> None:
        self._ignored.conclude()
        self._report({"op": "workers", "workers": [worker.facts() for worker in self._workers.by_id.values()]})
        self._report({"op": "all-ended"})
        self._dismiss()

    def _dismiss(self) -> None:
        for client in self._workers.by_id:
            self._send(client, protocol.DISMISSED, {})
        self.over.set()

    def close(self) -> None:
        if self._ui is not None:
            self._ui.close()
        self._runner.quit()
