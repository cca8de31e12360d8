"""The closed loop: a Locust user asks, its next request goes out at once, and the user hears of its end.

Users live in the Locust process and decide when; rows come from the plan's endless sequence and say what. A
user works through one session after another, turn by turn. The next sessions' first requests are made ahead, and a
later turn as soon as its predecessor has ended, while its user thinks or is on the way.

How late users come back is measured here: from when they could have asked again (the end of their last request and
the time to think) to their asking. That is time in which the load was not what it was said to be.
"""

import time
from collections import deque

from tailgate.loadgen.injector.api.request_builder import RequestMaker
from tailgate.loadgen.injector.client_stats import ClientStats
from tailgate.loadgen.injector.dispatcher import Dispatcher
from tailgate.loadgen.injector.exchange import Exchange
from tailgate.loadgen.injector.schedule.plan_share import PlanShare
from tailgate.loadgen.job import Job

# So many first turns are made ahead, and as many more are known: by the time at which a session begins whose last rows
# were not in the plan yet, they are.
AHEAD_REQUESTS = 64


class ClosedLoop:
    """Dispatches the next request of a user when the user asks for it."""

    def __init__(
        self, share: PlanShare, maker: RequestMaker, dispatcher: Dispatcher, stats: ClientStats, job: Job
    ) -> None:
        self._share = share
        self._maker = maker
        self._dispatcher = dispatcher
        self._stats = stats
        self._job = job
        self._starts = deque(share.session_starts().tolist())
        self._ready: deque[tuple[int, Exchange]] = deque()
        self._turn: dict[int, int] = {}  # user -> position of its session's next turn
        self._to_make: deque[int] = deque()  # users whose next turn is to be made
        self._made: dict[int, Exchange] = {}  # user -> its session's next turn
        self._in_flight: dict[int, tuple[int, int]] = {}  # index -> (user, position)
        self._free_since: dict[int, int] = {}  # user -> from when it may ask again (CLOCK_REALTIME)
        self._departed: set[int] = set()  # users who left with a request in flight
        self._ends_ns = 0  # when the measure phase is to end (CLOCK_REALTIME)
        self._stopped = False

    def start(self, t0_unix_ns: int) -> None:
        assert self._job.measure_end_ns is not None
        self._ends_ns = t0_unix_ns + self._job.measure_end_ns

    @property
    def finished(self) -> bool:
        return self._stopped

    def prepare(self, _now_ns: int) -> bool:
        """Make one request ahead if there is room; returns whether there is more to make at once."""
        if self._stopped:
            return False
        if self._to_make:
            user = self._to_make.popleft()
            if user in self._turn:  # it has not asked yet
                self._made[user] = self._make(self._turn[user])
            return True
        if self._share.endless and len(self._starts) < AHEAD_REQUESTS:
            self._starts.extend(self._share.extend().tolist())
            return True
        if len(self._ready) >= AHEAD_REQUESTS:
            return False
        self._ready.append(self._make_start())
        return len(self._ready) < AHEAD_REQUESTS

    def _make_start(self) -> tuple[int, Exchange]:
        while not self._starts:
            self._starts.extend(self._share.extend().tolist())
        position = self._starts.popleft()
        return position, self._make(position)

    def _make(self, position: int) -> Exchange:
        row = self._share.row(position)
        followed = self._share.follower(position) is not None
        return self._maker.exchange(row, row.index % len(self._job.urls), followed=followed)

    def dispatch_next(self, user: int, asked_ns: int) -> None:
        """Send the next request of a user who asked for it at ``asked_ns`` (CLOCK_REALTIME)."""
        if self._stopped:
            return
        free_since = self._free_since.pop(user, None)
        if free_since is not None:
            self._stats.turnaround_lags.append(asked_ns - free_since)
        position = self._turn.pop(user, None)
        if position is not None:
            exchange = self._made.pop(user, None) or self._make(position)
        else:
            position, exchange = self._ready.popleft() if self._ready else self._make_start()
        least = self._job.balance == "least-in-flight"
        self._maker.readdress(exchange, self._dispatcher.least_loaded() if least else exchange.endpoint)
        exchange.handed_over_ns = asked_ns
        exchange.set_deadlines(asked_ns, self._job.timeout_ns)
        self._in_flight[exchange.index] = (user, position)
        self._dispatcher.dispatch(exchange, asked_ns)

    def ended(self, exchange: Exchange) -> tuple[int, int]:
        """Return whose request it was, and how long that user thinks before its next one (ns)."""
        user, position = self._in_flight.pop(exchange.index)
        if user in self._departed:
            self._departed.remove(user)
            return user, 0
        assert exchange.end_ns is not None
        follower, think_ns = self._share.follower(position), 0
        if follower is not None:
            think_ns = self._share.row(follower).think_ns
            self._turn[user] = follower
            self._to_make.append(user)
        self._free_since[user] = exchange.end_ns + think_ns
        return user, think_ns

    def left(self, user: int) -> None:
        if self._stopped:
            return
        if self._free_since.pop(user, None) is None and any(who == user for who, _ in self._in_flight.values()):
            self._departed.add(user)
        self._turn.pop(user, None)
        self._made.pop(user, None)

    def stop(self) -> None:
        """Send nothing more. Users who could have asked by now and have not are as late as that."""
        if not self._stopped:
            now = min(time.time_ns(), self._ends_ns)
            self._stats.turnaround_lags.extend(now - since for since in self._free_since.values() if since < now)
        self._stopped = True
        self._ready.clear()
        self._made.clear()
