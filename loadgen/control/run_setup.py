"""The users and the load shape of a run, and how they start, on one machine or several.

Users find their machine's coordinator as `environment.coordinator`.
"""

import time
import traceback
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import gevent
from locust import LoadTestShape, User, constant, task
from locust.env import Environment

from tailgate.loadgen.control.channel import Message
from tailgate.loadgen.control.coordinator import Coordinator, count_failed_assertions
from tailgate.loadgen.control.locustfile import ignored_parts, user_classes
from tailgate.loadgen.control.stages import Stage, mean_users, moments, users_at
from tailgate.workloads.common.errors import UserError

_MOST_REPORTED: Final = 20


@dataclass(frozen=True)
class RunSetup:
    """What Locust runs: one dispatcher per machine for an open loop (no stages), users for a closed one."""

    closed: bool
    stages: tuple[Stage, ...]
    warmup_ns: int
    measure_end_ns: int
    report: Callable[[Message], None]
    locustfile_classes: tuple[type[User], ...] = ()  # of the user's locustfile

    @classmethod
    def of(
        cls, message: dict[str, Any], report: Callable[[Message], None], locustfile_classes: Sequence[type[User]] = ()
    ) -> "RunSetup":
        stages = tuple(Stage(**stage) for stage in message["stages"])
        return cls(
            bool(stages), stages, message["warmup_ns"], message["measure_end_ns"], report, tuple(locustfile_classes)
        )

    def apply_to(self, environment: Environment) -> None:
        environment.user_classes = list(self.locustfile_classes) or [SessionUser if self.closed else OpenLoopUser]
        if self.locustfile_classes:
            count_failed_assertions(environment)
            report_user_errors(environment, self.report)
        if self.closed:
            environment.shape_class = Stages(self.stages, self.warmup_ns, self._users_change)
            environment.shape_class.runner = environment.runner

    @property
    def _edges(self) -> set[int]:
        """When stages begin and ramps end, in ns after the warm-up. The start of the run is one of them."""
        edges, begin = {-self.warmup_ns}, 0
        for stage in self.stages:
            edges |= {begin, begin + stage.ramp_ns}
            begin += stage.for_ns
        return edges

    def begin(self, environment: Environment, t0_unix_ns: int, machines: int) -> None:
        """Start the users at the run's time zero: one dispatcher per machine, or as many as the load shape says."""
        runner = environment.runner
        assert runner is not None
        if not self.closed:
            gevent.spawn(runner.start, machines, spawn_rate=machines)
            return
        assert isinstance(environment.shape_class, Stages)
        environment.shape_class.begin(t0_unix_ns)
        runner.start_shape()

    def watch_the_clock(self, coordinator: Coordinator, t0_unix_ns: int) -> None:
        """In a closed loop, count users from the measure phase's start and end it in time, by this machine's clock."""
        if self.closed:
            until = (t0_unix_ns + self.warmup_ns - time.time_ns()) / 1e9
            gevent.spawn_later(max(until, 0), coordinator.user_counts.restart)
            coordinator.close_at(t0_unix_ns + self.measure_end_ns)

    def planned_users(self, t0_unix_ns: int, until_unix_ns: int) -> float:
        """The mean number of users that a closed loop should have had from the measure phase's start to this time."""
        return mean_users(self.stages, until_unix_ns - t0_unix_ns - self.warmup_ns)

    def _users_change(self, users: int, t_ns: int) -> None:
        if t_ns in self._edges:  # not within a ramp
            self.report({"op": "event", "kind": "users", "text": f"{users} users", "users": users})


class Stages(LoadTestShape):
    """The stages of a run for Locust: the first one's users through the warm-up, then stage by stage.

    It never ends the test: that is the run's to do, at its own clock's measure end. Locust looks at a shape about once
    a second, so a ramp is a staircase of one step a second; edges of stages that lie at least a second apart are met to
    a few milliseconds.
    """

    use_common_options = False

    def __init__(self, stages: Sequence[Stage], warmup_ns: int, changed: Callable[[int, int], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stages = stages
        self._changed = changed  # called with (users, ns since the measure phase began) before each change
        self._before = stages[0].users if warmup_ns else 0
        self._moments = [t + warmup_ns for t in moments(stages)]
        if warmup_ns:
            self._moments.insert(0, 0)
        self._warmup_ns = warmup_ns
        self._next = 0
        self._users = -1
        self._at_once = 1
        self._t0_mono_ns = 0

    def begin(self, t0_unix_ns: int) -> None:
        """Start the run's clock at this time (CLOCK_REALTIME)."""
        self._t0_mono_ns = time.monotonic_ns() + t0_unix_ns - time.time_ns()

    def tick(self) -> tuple[int, float]:
        """Sleep until the next change; return the number of users then, all of whom come or go at once."""
        if self._next == len(self._moments):
            gevent.sleep(1.0)
        else:
            wait_ns = self._t0_mono_ns + self._moments[self._next] - time.monotonic_ns()
            if wait_ns > 0:
                gevent.sleep(wait_ns / 1e9)
            # Moments that have passed meanwhile are not made up for.
            now = max(time.monotonic_ns() - self._t0_mono_ns, self._moments[self._next])
            self._next = bisect_right(self._moments, now)
            self._set(self._moments[self._next - 1] - self._warmup_ns)
        return self._users, self._at_once

    def _set(self, t_ns: int) -> None:
        users = self._before if t_ns < 0 else users_at(self._stages, t_ns, self._before)
        if users != self._users:
            # Locust's rate of coming and going; at or above the change, all come or go together.
            self._at_once = max(users, self._users, 1)
            self._users = users
            self._changed(users, t_ns)


class _CoordinatedUser(User):
    abstract = True
    wait_time = constant(0)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.coordinator: Coordinator = self.environment.coordinator
        self.number = self.coordinator.next_user()


class OpenLoopUser(_CoordinatedUser):
    """The open loop's one user: lets the injectors follow the plan, and lives until they have.

    A second one on the same machine (its master gave it a dead worker's) changes nothing.
    """

    @task
    def follow_plan(self) -> None:
        self.coordinator.follow_plan()


class SessionUser(_CoordinatedUser):
    """A closed-loop user: asks for its next request, waits for its end, thinks, asks again.

    One that a ramp takes away leaves at once: its request in flight is finished and recorded, its session ends.
    """

    def run(self) -> None:  # type: ignore[misc]
        """Live as a Locust user does. It counts as a user for as long, however that ends."""
        self.coordinator.user_started()
        try:
            super().run()  # type: ignore[no-untyped-call]
        finally:
            self.coordinator.user_left(self.number)

    @task
    def turns(self) -> None:
        """Send all requests in one task: Locust's bookkeeping between tasks would cost more than a dispatch."""
        while True:
            think_ns = self.coordinator.dispatch_next(self.number)
            if think_ns:
                gevent.sleep(think_ns / 1e9)


def report_user_errors(environment: Environment, report: Callable[[Message], None]) -> None:
    """Report each exception of a user's own code once, as an event of the run. Failed assertions are in the records."""
    reported: set[str] = set()

    def listen(user_instance: User, exception: Exception, tb: TracebackType, **_: Any) -> None:
        user = getattr(user_instance, "user", user_instance)  # Locust gives the task set
        text = f"{type(user).__name__}: {type(exception).__name__}: {exception}"
        if isinstance(exception, AssertionError) or text in reported or len(reported) == _MOST_REPORTED:
            return
        reported.add(text)
        where = "".join(traceback.format_tb(tb)[-1:]).strip()
        report({"op": "event", "kind": "locustfile", "text": text, "where": where})

    environment.events.user_error.add_listener(listen)  # type: ignore[no-untyped-call]


def load_classes(message: Message, report: Callable[[Message], None]) -> list[type[User]]:
    """The user classes of a `load` message's locustfile. Reports what of it is ignored, or why it can't be used."""
    path = Path(message["path"])
    try:
        classes = user_classes(path, message["tags"], message["exclude_tags"])
    except UserError as error:
        report({"op": "refused", **error.parts})
        return []
    report({"op": "loaded", "ignored": ignored_parts(path)})
    return classes
