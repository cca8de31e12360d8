"""One machine's part of a run: its injectors, and the users for whom they send requests.

It is the same in a run on one machine (`local_run`) and on each of several (`worker`). It reports everything to its
owner by ``report``.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import AsyncResult, Event
from locust import User
from locust.env import Environment

from tailgate.loadgen.control.channel import Message
from tailgate.loadgen.control.injectors import Injectors
from tailgate.loadgen.control.stages import UserCounts
from tailgate.loadgen.job import STREAMED

if TYPE_CHECKING:
    from tailgate.loadgen.llm_user import Answer

END_OF_USER = gevent.GreenletExit


class Coordinator:
    """Passes messages between users and injectors, which have all ended when `over` is set."""

    def __init__(self, injectors: Injectors, report: Callable[[Message], None]) -> None:
        self._report = report
        self._injectors = injectors
        self._first = 0
        self._ready = 0
        self._stamps = True
        self._users_made = 0
        self._turn_ends: dict[int, AsyncResult] = {}  # user -> the end of its session's turn, if it waits for one
        self._answers: dict[int, AsyncResult] = {}  # request of a locustfile -> its answer, if anybody waits for it
        self._open: set[int] = set()  # requests of locustfiles whose answers may yet be judged
        self._request_count = 0
        self._last_wakeups: dict[int, tuple[int, int]] = {}  # user of a locustfile -> last answer, and when it came
        self._job: dict[str, Any] = {}
        self._request_limit: int | None = None
        self._began = False
        self.user_counts = UserCounts()
        self.closing = False
        self.over = Event()  # every injector has ended
        injectors.listen(self._on_injector_message)

    def __len__(self) -> int:
        return len(self._injectors)

    # --- commands --------------------------------------------------------------------------------------

    def grow(self, injectors: int) -> None:
        """Have at least so many injectors; before they get their jobs."""
        self._injectors.grow(injectors)

    def prepare(self, job: dict[str, Any], first: int, of: int, requests: int | None) -> None:
        """Send the injectors their jobs, numbered ``first`` ... of ``of``. At most ``requests`` are dispatched."""
        self._first = first
        self._request_limit = requests
        self._job = job
        for k in range(len(self._injectors)):
            self._injectors.send(k, {"op": "job", "job": {**job, "injector": first + k, "injectors": of}})

    def go(self, t0_unix_ns: int) -> None:
        """Start the run's clock at this time (CLOCK_REALTIME)."""
        self._began = True
        self._injectors.send_all({"op": "go", "t0_unix_ns": t0_unix_ns})
        if self._request_limit == 0:  # all of them are others'
            self.finish()

    def close_at(self, unix_ns: int) -> None:
        """End a closed loop at this time (CLOCK_REALTIME)."""
        gevent.spawn_later(max(unix_ns - time.time_ns(), 0) / 1e9, self.finish)

    def finish(self, early: bool = False) -> None:
        """End a closed loop: users get no further request, and requests in flight drain."""
        if not self.closing:
            self.closing = True
            self._report_users(early)
            self._injectors.send_all({"op": "finish", "open": sorted(self._open.union(self._answers))})

    def wind_down(self, why: str) -> None:
        """Send nothing more, and let requests in flight end within the plan's drain."""
        if not self._began:
            self.stop(why)
        elif self._job["loop"] == "open":
            self._injectors.send_all({"op": "finish"})
        else:
            self.finish(early=True)

    def stop(self, why: str) -> None:
        """End now: requests in flight are cancelled, and records are kept."""
        if not self.closing:
            self.closing = True
            if self._began and self._job["loop"] != "open":
                self._report_users(early=True)
        self._injectors.send_all({"op": "stop", "why": why})

    def _report_users(self, early: bool) -> None:
        users = self.user_counts.summary()
        self._report({"op": "closing", "at_unix_ns": time.time_ns(), "users": users, "early": early})

    def renew_headers(self, message: Message) -> None:
        self._injectors.send_all(message)

    def close(self) -> None:
        self._injectors.close()

    # --- the users -------------------------------------------------------------------------------------

    def next_user(self) -> int:
        """A number for a new user. Its injector is that number modulo the number of injectors."""
        self._users_made += 1
        return self._users_made - 1

    def user_started(self) -> None:
        self.user_counts.change(+1)

    def user_left(self, user: int) -> None:
        """Count a user out. Its request in flight, if any, goes on and is recorded."""
        self._turn_ends.pop(user, None)
        self._last_wakeups.pop(user, None)
        self._injectors.send(user % len(self._injectors), {"op": "left", "user": user})
        self.user_counts.change(-1)

    def follow_plan(self) -> None:
        """Wait until every injector has ended: the open loop needs nothing of its one user."""
        self.over.wait()
        raise END_OF_USER

    def dispatch_next(self, user: int) -> int:
        """Have the user's next request sent, wait for its end, and return the think time in ns."""
        self._count_request()
        ended = self._turn_ends[user] = AsyncResult()
        self._injectors.send(user % len(self._injectors), {"op": "dispatch-next", "user": user, "at": time.time_ns()})
        think_ns: int = ended.get()["think_ns"]
        return think_ns

    def _count_request(self) -> None:
        """Count one more request, or end the user who wants it if there are none left."""
        if self.closing or (self._request_limit is not None and self._request_count >= self._request_limit):
            self.finish()
            raise END_OF_USER
        self._request_count += 1

    # --- users of locustfiles (loadgen.llm_user) ------------------------------------------------------------

    def request(self, user: int, message: Message) -> Message:
        """Have a body sent, and return the injector's message about the answer, under the request's `number`.

        An answer goes only to the user who asked for it. If that one waits no longer (a timeout of its own, or its
        end), the answer is only recorded.
        """
        self._count_request()
        number = self._request_count
        omitted = self._job["omitted"]
        streamed = {name: STREAMED[name] for name in STREAMED if self._job["streamed"] and name not in omitted}
        body = {"model": self._job["model"], **self._job["extra"], **message["body"], **streamed}
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
        verdict = {"op": "judge", "index": answer.index, "class": answer.kind, "error": reason}
        self._injectors.send(user % len(self._injectors), verdict)

    def release_answer(self, user: int, number: int) -> None:
        """No user can fail this answer any more. Injectors need to know that only when the run is closing."""
        self._open.discard(number)
        if self.closing:
            self._injectors.send(user % len(self._injectors), {"op": "settled", "number": number})

    def on_answer(self, answer: "Answer") -> None:
        """For subclasses: an answer has come."""

    def on_settled(self, user: User, answer: "Answer") -> None:
        """For subclasses: no user can fail this answer any more."""

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


def count_failed_assertions(environment: Environment) -> None:
    """Make a failed `assert` in a locustfile's task an error of the answer before it."""

    def listen(user_instance: User, exception: Exception, **_: Any) -> None:
        answer = getattr(getattr(user_instance, "client", None), "last", None)
        if isinstance(exception, AssertionError) and answer is not None:
            answer.fail(str(exception) or "an assertion failed")

    environment.events.user_error.add_listener(listen)  # type: ignore[no-untyped-call]
