"""Locust's master and worker runners, where ours must differ. Their sockets are ours (`sockets`).

Locust takes in whoever connects and spreads the users anew, ends a test when its last worker is silent for three
seconds, forgets a worker after sixty, and has that worker quit by itself. Here workers are let in by name before the
run, an outage is waited out (`workers.Liveness`, and the worker's own `--alone`), and the end of a run is ours.
"""

import contextlib
from collections.abc import Callable
from typing import Any, Final

import gevent
from locust import __version__
from locust.env import Environment
from locust.exception import RPCSendError
from locust.rpc import Message
from locust.runners import STATE_MISSING, MasterRunner, WorkerNode, WorkerRunner

from tailgate.loadgen.distributed.sockets import WorkerSocket

_AGAIN_S: Final = 0.5


class TailgateMasterRunner(MasterRunner):
    """``takes_part(connection)``: True, False, or None while nobody is let in or turned away for good."""

    def __init__(self, environment: Environment, host: str, port: int) -> None:
        super().__init__(environment, host, port)
        self.takes_part: Callable[[str], bool | None] = lambda _client: None
        self.on_fault: Callable[[Exception], None] = lambda _error: None

    def client_listener(self) -> Any:
        """Listen to workers. Locust would go on deaf if that failed, and the run with it."""
        try:
            super().client_listener()
        except Exception as error:
            self.on_fault(error)
            raise

    def handle_message(self, client_id: str, msg: Message) -> None:
        if msg.type == "client_ready" and self.takes_part(client_id) is False:
            # It may ask to join and hear why not; no user is ever given to it.
            self.send_message("ack", client_id=client_id, data={"index": -1})
            return
        if msg.type == "heartbeat" and client_id not in self.clients and self.takes_part(client_id):
            self.clients[client_id] = WorkerNode(client_id, STATE_MISSING)  # back after Locust had forgotten it
        super().handle_message(client_id, msg)

    @property
    def _all_silent(self) -> bool:
        return bool(len(self.clients)) and self.worker_count <= 0

    def stop(self, send_stop_to_client: bool = True) -> None:
        """Stop, but not because all workers are silent: an outage may end."""
        if not (self._all_silent and send_stop_to_client):
            super().stop(send_stop_to_client)

    def check_stopped(self) -> None:
        """Silence of all workers is no reason to stop here either."""
        if not self._all_silent:
            super().check_stopped()


class TailgateWorkerRunner(WorkerRunner):
    """A worker runner that stays until we leave, and survives a connection that accepts nothing."""

    client: WorkerSocket

    def __init__(self, environment: Environment, host: str, port: int, on_fault: Callable[[Exception], None]) -> None:
        self._on_fault = on_fault  # first: what follows begins to listen
        super().__init__(environment, host, port)

    def connect_to_master(self) -> None:
        """Wait until the master takes notice, for ever. Raises a UserError if it has another token."""
        while not self.connection_event.is_set():
            self.client.approach(Message("client_ready", __version__, self.client_id))  # type: ignore[no-untyped-call]
            self.connection_event.wait(_AGAIN_S)
        self.connected = True

    def handle_message(self, msg: Message) -> None:
        """Do what the master's message says. Locust would go on deaf if that failed."""
        try:
            super().handle_message(msg)
        except Exception as error:
            self._on_fault(error)
            raise

    def heartbeat(self) -> Any:
        """Send a heartbeat every second. One that can't be sent is followed by others."""
        while True:
            with contextlib.suppress(RPCSendError):
                super().heartbeat()
            gevent.sleep(1)

    def heartbeat_timeout_checker(self) -> Any:
        """Do nothing: how long to work on without a master is for `--alone` to say."""
