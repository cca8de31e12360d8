"""The closed loop: a Locust user asks, its next request goes out at once; when it has ended, the user is told.

Users live in the Locust process and decide when; rows come from the plan's endless sequence and say what. A
user works through one session after another, turn by turn. The next sessions' first requests are made ahead.
"""

from collections import deque

from loadgen.injector.dispatch import Dispatcher
from loadgen.injector.exchange import Exchange
from loadgen.injector.plan import Share
from loadgen.injector.request import RequestMaker
from loadgen.job import Job

AHEAD_REQUESTS = 64


class ClosedLoop:
    """Feeds the dispatcher from users' hand-overs."""

    def __init__(self, share: Share, maker: RequestMaker, dispatcher: Dispatcher, job: Job) -> None:
        self._share = share
        self._maker = maker
        self._dispatcher = dispatcher
        self._job = job
        self._starts = share.session_starts()
        self._next = 0
        self._ready: deque[tuple[int, Exchange]] = deque()
        self._turn: dict[int, int] = {}  # user -> position of its session's next turn
        self._asked: dict[int, tuple[int, int]] = {}  # index -> (user, position)
        self._stopped = False

    @property
    def finished(self) -> bool:
        """Whether nobody asks any more."""
        return self._stopped

    def prepare(self, _now_ns: int) -> bool:
        """Make one request ahead, if there is room; whether there is more to make at once."""
        if self._stopped or len(self._ready) >= AHEAD_REQUESTS:
            return False
        self._ready.append(self._make_start())
        return len(self._ready) < AHEAD_REQUESTS

    def _make_start(self) -> tuple[int, Exchange]:
        if self._next == len(self._starts):
            self._share.extend()
            self._starts = self._share.session_starts()
        position = int(self._starts[self._next])
        self._next += 1
        return position, self._make(position)

    def _make(self, position: int) -> Exchange:
        row = self._share.row(position)
        followed = self._share.follower(position) is not None
        return self._maker.exchange(row, row.index % len(self._job.urls), followed=followed)

    def hand_over(self, user: int, asked_ns: int) -> None:
        """A user wants its next request sent; it asked at ``asked_ns`` (CLOCK_REALTIME)."""
        if self._stopped:
            return
        position = self._turn.pop(user, None)
        if position is not None:
            exchange = self._make(position)
        else:
            position, exchange = self._ready.popleft() if self._ready else self._make_start()
        least = self._job.balance == "least-in-flight"
        self._maker.readdress(exchange, self._dispatcher.least_loaded() if least else exchange.endpoint)
        exchange.handed_over_ns = asked_ns
        if exchange.patience_ns is not None:
            exchange.hang_up_ns = asked_ns + exchange.patience_ns
        if self._job.timeout_ns is not None:
            exchange.timeout_ns = asked_ns + self._job.timeout_ns
        self._asked[exchange.index] = (user, position)
        self._dispatcher.dispatch(exchange, asked_ns)

    def ended(self, exchange: Exchange) -> tuple[int, int]:
        """Whose request it was, and how long that user thinks before its next one (ns)."""
        user, position = self._asked.pop(exchange.index)
        follower = self._share.follower(position)
        if follower is None:
            return user, 0
        self._turn[user] = follower
        return user, self._share.row(follower).think_ns

    def stop(self) -> None:
        """Send nothing more."""
        self._stopped = True
        self._ready.clear()
