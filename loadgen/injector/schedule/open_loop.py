"""The open loop: every arrival has a planned time and is sent then, whatever is still in flight.

Nothing is skipped or re-anchored: a late send is recorded as late. Requests are made ahead of their time,
while the event loop has nothing else to do, in a look-ahead bounded by time, count and bytes. A later turn is made
while its user thinks; one that leaves no time for that, while its predecessor is in flight, unless it has to send that
one's answer again.
"""

import time
from collections import deque
from functools import partial

from tailgate.loadgen.injector.api.request_builder import RequestMaker
from tailgate.loadgen.injector.dispatcher import Dispatcher
from tailgate.loadgen.injector.event_loop import EventLoop
from tailgate.loadgen.injector.exchange import Exchange
from tailgate.loadgen.injector.schedule.plan_share import PlanShare
from tailgate.loadgen.job import Job

AHEAD_NS = 2_000_000_000
AHEAD_REQUESTS = 1_024
AHEAD_BYTES = 16 << 20
_LOOK_AGAIN_NS = 1_000_000
# A request that follows its predecessor's end is made about this long before its time.
_FOLLOW_AHEAD_NS = 50_000_000


class OpenLoop:
    """Dispatches a share of the plan at its planned times. Times are ns from the run's start unless named otherwise."""

    def __init__(
        self, loop: EventLoop, share: PlanShare, maker: RequestMaker, dispatcher: Dispatcher, job: Job
    ) -> None:
        self._loop = loop
        self._share = share
        self._maker = maker
        self._dispatcher = dispatcher
        self._endpoints = len(job.urls)
        self._least_in_flight = job.balance == "least-in-flight"
        self._timeout_ns = job.timeout_ns
        self._next = 0  # next timed row to be made
        self._ready: deque[tuple[int, Exchange]] = deque()
        self._ready_bytes = 0
        self._to_make: dict[int, None] = {}  # positions of later turns that are to be made, the first first
        self._made: dict[int, Exchange] = {}  # position -> a later turn that is ready
        self._made_bytes = 0
        self._position_of: dict[int, int] = {}  # index -> position, of rows that a later turn waits for
        self._t0_real_ns = self._t0_mono_ns = 0
        self._look_again_ns = 0
        self._waiting = 0  # later turns whose time is set but has not come
        self._stopped = False

    @property
    def has_followers(self) -> bool:
        """Whether any request waits for the end of another one."""
        return self._share.has_followers

    @property
    def finished(self) -> bool:
        exhausted = self._next == len(self._share.timed) and not self._ready
        return self._stopped or (exhausted and not self._waiting and not self._position_of)

    def prepare(self, now_ns: int) -> bool:
        """Make one request ahead, if the look-ahead has room; whether there is more to make at once.

        ``now_ns`` is CLOCK_MONOTONIC. This is called at every turn of the loop, so "no room" holds for a millisecond.
        """
        if self._to_make and self._made_bytes < AHEAD_BYTES and not self._stopped:
            position = next(iter(self._to_make))
            del self._to_make[position]
            made = self._made[position] = self._make(position)
            self._made_bytes += len(made.payload)
            return True
        if now_ns < self._look_again_ns:
            return False
        if not self._has_room(now_ns):
            self._look_again_ns = now_ns + _LOOK_AGAIN_NS
            return False
        self._make_next()
        return True

    def _has_room(self, now_ns: int) -> bool:
        return (
            self._next < len(self._share.timed)
            and len(self._ready) < AHEAD_REQUESTS
            and self._ready_bytes < AHEAD_BYTES
            and self._share.timed_at_ns[self._next] < now_ns - (self._t0_mono_ns or now_ns) + AHEAD_NS
            and not self._stopped
        )

    def _make_next(self) -> None:
        at = self._share.timed_at_ns[self._next]
        exchange = self._make(self._share.timed[self._next])
        self._next += 1
        self._ready.append((at, exchange))
        self._ready_bytes += len(exchange.payload)

    def _make(self, position: int) -> Exchange:
        row = self._share.row(position)
        followed = self._share.follower(position) is not None
        if followed:
            self._position_of[row.index] = position
        return self._maker.exchange(row, row.index % self._endpoints, followed=followed)

    def start(self, t0_real_ns: int, t0_mono_ns: int) -> None:
        self._t0_real_ns, self._t0_mono_ns = t0_real_ns, t0_mono_ns
        self._arm()

    def _arm(self) -> None:
        if self._ready:
            self._loop.at(self._t0_mono_ns + self._ready[0][0], self._due)
        elif self._next < len(self._share.timed) and not self._stopped:
            self._loop.at(self._t0_mono_ns + self._share.timed_at_ns[self._next], self._due)

    def _due(self) -> None:
        now = time.monotonic_ns() - self._t0_mono_ns
        while not self._stopped:
            if not self._ready:
                if self._next == len(self._share.timed) or self._share.timed_at_ns[self._next] > now:
                    break
                self._make_next()  # not made ahead: late, and recorded as such
            at, exchange = self._ready[0]
            if at > now:
                break
            self._ready.popleft()
            self._ready_bytes -= len(exchange.payload)
            self._send(exchange, at)
        self._arm()

    def _send(self, exchange: Exchange, at_ns: int) -> None:
        to = self._dispatcher.least_loaded() if self._least_in_flight else exchange.endpoint
        self._maker.readdress(exchange, to)
        due = self._t0_real_ns + at_ns
        exchange.scheduled_ns = due
        exchange.set_deadlines(due, self._timeout_ns)
        position = self._position_of.get(exchange.index)
        if position is not None:
            self._look_ahead(position)
        self._dispatcher.dispatch(exchange, due)

    def _look_ahead(self, position: int) -> None:
        """Make the turn after one that is sent now, if it is due as soon as this one has ended."""
        follower = self._share.follower(position)
        assert follower is not None
        row = self._share.row(follower)
        if row.think_ns < _FOLLOW_AHEAD_NS and not self._maker.needs_answers(row):
            self._make_soon(follower)

    def _make_soon(self, position: int) -> None:
        if position not in self._made:
            self._to_make[position] = None

    def ended(self, exchange: Exchange) -> None:
        """Schedule the session's next turn after its think time."""
        position = self._position_of.pop(exchange.index, None)
        if position is None or self._stopped:
            return
        follower = self._share.follower(position)
        assert follower is not None and exchange.end_ns is not None
        at = exchange.end_ns - self._t0_real_ns + self._share.row(follower).think_ns
        self._waiting += 1
        self._loop.at(self._t0_mono_ns + at - _FOLLOW_AHEAD_NS, partial(self._make_soon, follower))
        self._loop.at(self._t0_mono_ns + at, partial(self._send_follower, follower, at))

    def _send_follower(self, position: int, at_ns: int) -> None:
        self._waiting -= 1
        if self._stopped:
            return
        self._to_make.pop(position, None)
        exchange = self._made.pop(position, None)
        if exchange is None:
            exchange = self._make(position)  # no time to make it ahead: late, and recorded as such
        else:
            self._made_bytes -= len(exchange.payload)
        self._send(exchange, at_ns)

    def stop(self) -> None:
        self._stopped = True
        self._ready.clear()
        self._made.clear()
