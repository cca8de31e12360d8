"""A run on one machine: messages from the harness, a Locust local runner, and this machine's coordinator.

Messages from the harness: prepare, go, wind-down, stop, headers. To it: ready, tick, end, closing, all-ended, and
whatever the injectors report.
"""

from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event
from locust import User
from locust.env import Environment

from tailgate.loadgen.control.channel import Message
from tailgate.loadgen.control.coordinator import Coordinator
from tailgate.loadgen.control.injectors import Injectors
from tailgate.loadgen.control.run_setup import RunSetup, load_classes
from tailgate.loadgen.control.webui import WebUi


class LocalRun:
    """A run on this machine alone, which has ended when `over` is set."""

    def __init__(self, injectors: Injectors, report: Callable[[Message], None], ui: str | None = None) -> None:
        self._coordinator = Coordinator(injectors, self._on_coordinator_message)
        self._report = report
        self._setup: RunSetup | None = None
        self._environment = Environment(user_classes=[], stop_timeout=0)
        self._environment.coordinator = self._coordinator  # type: ignore[attr-defined]
        self._environment.create_local_runner()
        self._ui = WebUi(self._environment, ui) if ui else None
        self._environment.events.test_stopping.add_listener(self._on_stopping)  # type: ignore[no-untyped-call]
        self._locustfile_classes: list[type[User]] = []
        self._load_started = False
        self._t0_unix_ns = 0
        self.over = Event()

    def on_message(self, message: Message) -> None:
        match message["op"]:
            case "load":
                self._locustfile_classes = load_classes(message, self._report)
            case "prepare":
                self._prepare(message)
            case "go":
                self._go(message)
            case "wind-down":
                self._coordinator.wind_down(message["why"])
            case "stop":
                self._coordinator.stop(message.get("why", "the run was stopped"))
                if not self._load_started:
                    self.over.set()
            case "headers":
                self._coordinator.renew_headers(message)
            case other:
                raise ValueError(f"unknown message {other!r}")

    def on_harness_gone(self) -> None:
        """End the run when the harness is gone, and keep the records."""
        self._coordinator.stop("the command line process is gone")
        gevent.spawn_later(5, self.over.set)

    def _prepare(self, message: Message) -> None:
        self._setup = RunSetup.of(message, self._report, self._locustfile_classes)
        self._setup.apply_to(self._environment)
        self._environment.host = message["job"]["urls"][0]
        self._coordinator.grow(message["job"]["injectors"])
        self._coordinator.prepare(message["job"], 0, len(self._coordinator), message.get("requests"))

    def _go(self, message: Message) -> None:
        assert self._setup is not None
        self._load_started = True
        self._t0_unix_ns = message["t0_unix_ns"]
        self._coordinator.go(self._t0_unix_ns)
        self._setup.begin(self._environment, self._t0_unix_ns, machines=1)
        self._setup.watch_the_clock(self._coordinator, self._t0_unix_ns)

    def _on_stopping(self, environment: Environment, **_: Any) -> None:
        """Hold Locust back when it is stopped in its web UI, until the injectors have ended."""
        if self._load_started and not self.over.is_set():
            self._report({"op": "stopped", "why": "stopped in Locust's web UI"})
            self._coordinator.stop("the run was stopped in Locust's web UI")
            self.over.wait()

    def _on_coordinator_message(self, message: Message) -> None:
        if message["op"] == "closing":
            assert self._setup is not None
            message["planned_users"] = self._setup.planned_users(self._t0_unix_ns, message["at_unix_ns"])
        self._report(message)
        if self._ui is not None:
            self._ui.on_message(message)
        if message["op"] == "all-ended":
            self.over.set()

    def close(self) -> None:
        self._coordinator.close()
        if self._ui is not None:
            self._ui.close()
        assert self._environment.runner is not None
        self._environment.runner.quit()
