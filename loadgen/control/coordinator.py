"""One machine's part of a run: its injectors, and the users who ask them for requests.

The same whether a run is of one machine (`local`) or this is one of several (`worker`): whoever commands it hears of
everything through ``report``.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import AsyncResult, Event
from locust import User
from locust.env import Environment

from tailgate.loadgen.control.channel import Message
from tailgate.loadgen.control.injector_processes import Injectors
from tailgate.loadgen.control.user_counts import UserCounts

if TYPE_CHECKING:
    from tailgate.loadgen.llm_user import Answer

END_OF_USER = gevent.GreenletExit


class Coordinator:
    """Lives from the injectors' start until `over` is set."""

    def __init__(self, injectors: int, report: Callable[[Message], None]) -> None:
        self._report = report
        self._injectors = Injectors(injectors, self._on_injector_message)
        self._first = 0
        self._ready = 0
        self._stamps = True
        self._users_made = 0
        self._turn_ends: dict[int, AsyncResult] = {}  # user -> the end of its session's turn, if it waits for one
        self._answers: dict[int, AsyncResult] = {}  # request of a locustfile -> its answer, if anybody waits for it
        self._open: set[int] = set()  # requests of locustfiles whose answers may yet be judged
        self._asked = 0
        self._last_wakeups: dict[int, tuple[int, int]] = {}  # user of a locustfile -> last answer, and when it came
        self._job: dict[str, Any] = {}
        self._request_limit: int | None = None
        self._began = False
        self.user_counts = UserCounts()
        self.closing = False
        self.over = Event()  # every injector has ended

    def __len__(self) -> int:
        return len(self._injectors)

    # --- commands --------------------------------------------------------------------------------------

    def prepare(self, job: dict[str, Any], first: int, of: int, requests: int | None) -> None:
        """Tell the injectors their jobs: numbers ``first`` ... of ``of``; at most ``requests`` are asked for."""
        self._first = first
        self._request_limit = requests
        self._job = job
        for k in range(len(self._injectors)):
            self._injectors.send(k, {"op": "job", "job": {**job, "injector": first + k, "injectors": of}})

    def go(self, t0_unix_ns: int) -> None:
        """The run's clock starts at this time (CLOCK_REALTIME)."""
        self._began = True
        self._injectors.send_all({"op": "go", "t0_unix_ns": t0_unix_ns})
        if self._request_limit == 0:  # all of them are others'
            self.finish()

    def close_at(self, unix_ns: int) -> None:
        """Closed loop: from this time on nobody asks any more."""
        gevent.spawn_later(max(unix_ns - time.time_ns(), 0) / 1e9, self.finish)

    def finish(self, early: bool = False) -> None:
        """Closed loop: nobody asks any more, what is in flight drains."""
        if not self.closing:
            self.closing = True
            self._report_users(early)
            self._injectors.send_all({"op": "finish", "open": sorted(self._open.union(self._answers))})

    def wind_down(self, why: str) -> None:
        """Nothing more is sent from now on; what is in flight may end, within the plan's drain."""
        if not self._began:
            self.stop(why)
        elif self._job["loop"] == "open":
            self._injectors.send_all({"op": "finish"})
        else:
            self.finish(early=True)

    def stop(self, why: str) -> None:
        """End now: what is in flight is cancelled, what was measured is kept."""
        if not self.closing:
            self.closing = True
            if self._began and self._job["loop"] != "open":
                self._report_users(early=True)
        self._injectors.send_all({"op": "stop", "why": why})

    def _report_users(self, early: bool) -> None:
        users = self.user_counts.summary()
        self._report({"op": "closing", "at_unix_ns": time.time_ns(), "users": users, "early": early})

    def renew_headers(self, message: Message) -> None:
        """Other headers from now on."""
        self._injectors.send_all(message)

    def close(self) -> None:
        """End the injectors."""
        self._injectors.close()

    # --- the users -------------------------------------------------------------------------------------

    def next_user(self) -> int:
        """A number for a new user; its injector is that number modulo their count."""
        self._users_made += 1
        return self._users_made - 1

    def user_started(self) -> None:
        """A user has begun."""
        self.user_counts.change(+1)

    def user_left(self, user: int) -> None:
        """A user has ended; its request in flight, if any, goes on and is recorded."""
        self._turn_ends.pop(user, None)
        self._last_wakeups.pop(user, None)
        self._injectors.send(user % len(self._injectors), {"op": "left", "user": user})
        self.user_counts.change(-1)

    def follow_plan(self) -> None:
        """The open loop's dispatcher: waits until every injector has ended."""
        self.over.wait()
        raise END_OF_USER

    def dispatch_next(self, user: int) -> int:
        """Have the user's next request sent; returns when it has ended, with the think time in ns."""
        self._count_request()
        ended = self._turn_ends[user] = AsyncResult()
        self._injectors.send(user % len(self._injectors), {"op": "dispatch-next", "user": user, "at": time.time_ns()})
        think_ns: int = ended.get()["think_ns"]
        return think_ns

    def _count_request(self) -> None:
        """One more request, or the end of the user who wants it."""
        if self.closing or (self._request_limit is not None and self._asked >= self._request_limit):
            self.finish()
            raise END_OF_USER
        self._asked += 1

    # --- users of locustfiles (loadgen.llm_user) ------------------------------------------------------------

    def request(self, user: int, message: Message) -> Message:
        """Have a body sent; what the injector tells of the answer, under the request's `number`.

        An answer goes to who asked for it and to nobody else: if they wait no longer (a timeout of their own, or the
        user's end), it is recorded and not told.
        """
        self._count_request()
        number = self._asked
        body = {"model": self._job["model"], **self._job["extra"], **message["body"], **_streamed(self._job)}
        answer = self._answers[number] = AsyncResult()
        now = time.time_ns()
        after, woke_ns = self._last_wakeups.get(user, (0, now))
        message = {
            **message, "op": "dispatch-body", "user": user, "number": number, "body": body,
            "at": now, "after": after, "woke": woke_ns,
        }  # fmt: skip
        self._injectors.send(user % len(self._injectors), message)
        try:
            done: Message = answer.get()
        except BaseException:
            if answer.ready():  # it came at the very moment at which they gave up
                self.release_answer(user, number)
            raise
        finally:
            del self._answers[number]
        self._last_wakeups[user] = number, time.time_ns()
        self._open.add(number)
        return done

    def judge(self, user: int, answer: "Answer", reason: str) -> None:
        """A user found an answer wrong."""
        verdict = {"op": "judge", "index": answer.index, "class": answer.kind, "error": reason}
        self._injectors.send(user % len(self._injectors), verdict)

    def release_answer(self, user: int, number: int) -> None:
        """Nothing more will be said of an answer. Told only at the end, when the injectors wait for it."""
        self._open.discard(number)
        if self.closing:
            self._injectors.send(user % len(self._injectors), {"op": "settled", "number": number})

    def on_answer(self, answer: "Answer") -> None:
        """An answer has come; what it counts as is in the records."""

    def on_settled(self, user: User, answer: "Answer") -> None:
        """Nothing more will be said of an answer."""

    # --- from the injectors ----------------------------------------------------------------------------

    def _on_injector_message(self, k: int, message: Message) -> None:
        match message["op"]:
            case "ready":
                self._ready += 1
                self._stamps &= bool(message["stamps"])
                if self._ready == len(self._injectors):
                    self._report({"op": "ready", "stamps": self._stamps})
            case "done" if "number" in message:
                answer = self._answers.get(message["number"])
                if answer is None:
                    self.release_answer(message["user"], message["number"])
                else:
                    answer.set(message)
            case "done":
                ended = self._turn_ends.pop(message["user"], None)
                if ended is not None:
                    ended.set(message)
            case "stalled":
                self._report({"op": "event", "kind": "stalled", "text": f"{message['why']}: the run ends here"})
                self.finish()
            case _:
                self._report({"injector": self._first + k, **message})
        if self._injectors.all_ended and not self.over.is_set():
            self.over.set()
            self._report({"op": "all-ended"})


def _streamed(job: dict[str, Any]) -> dict[str, Any]:
    return {"stream": True, "stream_options": {"include_usage": True}} if job["streamed"] else {}


def count_failed_assertions(environment: Environment) -> None:
    """An `assert` that fails in a locustfile's task is an error of the answer before it."""

    def listen(user_instance: User, exception: Exception, **_: Any) -> None:
        answer = getattr(getattr(user_instance, "client", None), "last", None)
        if isinstance(exception, AssertionError) and answer is not None:
            answer.fail(str(exception) or "an assertion failed")

    environment.events.user_error.add_listener(listen)  # type: ignore[no-untyped-call]
