"""The Locust users of plain runs: one dispatcher for the open loop, one user per session for the closed."""

from typing import TYPE_CHECKING, Any

import gevent
from locust import User, constant, task

if TYPE_CHECKING:
    from loadgen.control.run import ControlledRun


class _Controlled(User):
    abstract = True
    wait_time = constant(0)
    control: "ControlledRun"  # set by ControlledRun before users are made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.number = self.control.next_user()


class OpenLoopUser(_Controlled):
    """The open loop's one user: lets the injectors follow the plan, and lives until they have."""

    fixed_count = 1

    @task
    def follow_the_plan(self) -> None:
        """From go to the last record."""
        self.control.follow_the_plan()


class SessionUser(_Controlled):
    """A closed-loop user: asks for its next request, waits for its end, thinks, asks again."""

    @task
    def turn(self) -> None:
        """One request."""
        think_ns = self.control.ask(self.number)
        if think_ns:
            gevent.sleep(think_ns / 1e9)
