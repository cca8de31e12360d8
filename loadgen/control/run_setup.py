"""The user classes and the load shape of a run, and how they start, on one machine or several."""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import gevent
from locust.env import Environment
from locust.user.users import User

from tailgate.loadgen.control.channel import Message
from tailgate.loadgen.control.coordinator import Coordinator, count_failed_assertions
from tailgate.loadgen.control.shape import Stages
from tailgate.loadgen.control.stages import Stage, mean_users
from tailgate.loadgen.control.users import OpenLoopUser, SessionUser

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
        """The set-up that a `prepare` message describes."""
        stages = tuple(Stage(**stage) for stage in message["stages"])
        return cls(
            bool(stages), stages, message["warmup_ns"], message["measure_end_ns"], report, tuple(locustfile_classes)
        )

    def user_classes(self) -> list[type[User]]:
        if self.locustfile_classes:
            return list(self.locustfile_classes)
        return [SessionUser] if self.closed else [OpenLoopUser]

    def apply_to(self, environment: Environment) -> None:
        """Give Locust's environment its user classes and its load shape."""
        environment.user_classes = self.user_classes()
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
        if t_ns not in self._edges:  # within a ramp
            return
        self.report({"op": "event", "kind": "users", "text": f"{users} users", "users": users})


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


def load_classes(message: Message) -> list[type[User]]:
    """The user classes of a `load` message's locustfile, or a UserError if it can't be used."""
    from tailgate.loadgen.control.locustfile import user_classes

    return user_classes(Path(message["path"]), message["tags"], message["exclude_tags"])
