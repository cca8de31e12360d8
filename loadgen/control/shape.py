"""The stages of a run as a Locust `LoadTestShape`.

Arrivals are not its business: users ask for their requests themselves, and the open loop follows a plan. Locust looks
at a shape about once a second, so a ramp is a staircase of one step a second; edges of stages that lie at least a
second apart are met to a few milliseconds.
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Sequence

import gevent
from locust import LoadTestShape

from tailgate.loadgen.control.stages import Stage, moments, users_at


class Stages(LoadTestShape):
    """The shape of a run: the first stage's users through the warm-up, then stage by stage.

    It never ends the test: that is the run's to do, at its own clock's measure end.
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
