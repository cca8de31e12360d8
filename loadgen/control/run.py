"""One run under Locust's control, on one machine: a local runner, its users, and the injectors they command.

Messages from the harness: prepare, go, stop. To it: ready, tick, end, and whatever the injectors report.
"""

import time
from collections.abc import Callable

import gevent
from gevent.event import AsyncResult, Event
from locust.env import Environment

from loadgen.control.channel import Message
from loadgen.control.injectors import Injectors
from loadgen.control.users import OpenLoopUser, SessionUser

_END_OF_USERS = gevent.GreenletExit


class ControlledRun:
    """Lives from `prepare` until `over` is set."""

    def __init__(self, injectors: int, report: Callable[[Message], None]) -> None:
        self._report = report
        self._injectors = Injectors(injectors, self._heard)
        self._ready = 0
        self._stamps = True
        self._users_made = 0
        self._answers: dict[int, AsyncResult] = {}
        self._asked = 0
        self._request_limit: int | None = None
        self._closing = False
        self._went = Event()
        self._done = Event()
        self.over = Event()
        self._environment: Environment | None = None

    def next_user(self) -> int:
        """A number for a new user; its injector is that number modulo their count."""
        self._users_made += 1
        return self._users_made - 1

    # --- from the harness ------------------------------------------------------------------------------

    def take(self, message: Message) -> None:
        """One message from the harness."""
        match message["op"]:
            case "prepare":
                self._prepare(message)
            case "go":
                self._go(message)
            case "stop":
                self._closing = True
                self._injectors.tell_all({"op": "stop", "why": message.get("why", "the run was stopped")})
                if not self._went.is_set():
                    self.over.set()
            case "headers":
                self._injectors.tell_all(message)
            case other:
                raise ValueError(f"unknown message {other!r}")

    def gone(self) -> None:
        """The harness is gone: end, keep what was measured."""
        self._closing = True
        self._injectors.tell_all({"op": "stop", "why": "the command line process is gone"})
        gevent.spawn_later(5, self.over.set)

    def _prepare(self, message: Message) -> None:
        closed = message["loop"] == "closed"
        user_class = SessionUser if closed else OpenLoopUser
        user_class.control = self
        self._user_count = message["users"] if closed else 1
        self._request_limit = message.get("requests")
        self._environment = Environment(user_classes=[user_class], stop_timeout=0)
        runner = self._environment.create_local_runner()
        if not closed:
            runner.start(1, spawn_rate=1)
        for k, job in enumerate(message["jobs"]):
            self._injectors.tell(k, {"op": "job", "job": job})

    def _go(self, message: Message) -> None:
        self._injectors.tell_all({"op": "go", "t0_unix_ns": message["t0_unix_ns"]})
        if "measure_end_ns" in message and self._user_count and message.get("loop") == "closed":
            delay = (message["t0_unix_ns"] - time.time_ns()) / 1e9
            gevent.spawn_later(max(delay, 0), self._start_users)
            gevent.spawn_later(max(delay + message["measure_end_ns"] / 1e9, 0), self._close)
        self._went.set()

    def _start_users(self) -> None:
        assert self._environment is not None and self._environment.runner is not None
        self._environment.runner.start(self._user_count, spawn_rate=self._user_count)

    def _close(self) -> None:
        """The closed loop's end: nobody asks any more, what is in flight drains."""
        if not self._closing:
            self._closing = True
            self._report({"op": "closing", "at_unix_ns": time.time_ns()})
            self._injectors.tell_all({"op": "finish"})

    # --- from the users --------------------------------------------------------------------------------

    def follow_the_plan(self) -> None:
        """The open loop's dispatcher: waits until every injector has ended."""
        self._done.wait()
        raise _END_OF_USERS

    def ask(self, user: int) -> int:
        """Have the user's next request sent; returns when it has ended, with the think time in ns."""
        if self._closing or (self._request_limit is not None and self._asked >= self._request_limit):
            self._close()
            raise _END_OF_USERS
        self._asked += 1
        answer = self._answers[user] = AsyncResult()
        self._injectors.tell(user % len(self._injectors), {"op": "hand", "user": user, "at": time.time_ns()})
        think_ns: int = answer.get()
        return think_ns

    # --- from the injectors ----------------------------------------------------------------------------

    def _heard(self, k: int, message: Message) -> None:
        match message["op"]:
            case "ready":
                self._ready += 1
                self._stamps &= bool(message["stamps"])
                if self._ready == len(self._injectors):
                    self._report({"op": "ready", "stamps": self._stamps})
            case "done":
                answer = self._answers.pop(message["user"], None)
                if answer is not None:
                    answer.set(message["think_ns"])
            case _:
                self._report({"injector": k, **message})
        if self._injectors.all_ended and not self._done.is_set():
            self._done.set()
            self._report({"op": "all-ended"})
            self.over.set()

    def close(self) -> None:
        """End users and injectors."""
        self._injectors.close()
        if self._environment is not None and self._environment.runner is not None:
            self._environment.runner.quit()
