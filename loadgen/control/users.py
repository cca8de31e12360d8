"""The Locust users of plain runs: one dispatcher for the open loop, one user per session for the closed.

They find their machine's coordinator as `environment.coordinator`.
"""

from typing import TYPE_CHECKING, Any

import gevent
from locust import User, constant, task

if TYPE_CHECKING:
    from tailgate.loadgen.control.coordinator import Coordinator


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
