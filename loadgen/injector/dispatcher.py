"""Sends exchanges on connections, and keeps the idle ones, those in flight, and their deadlines.

Open loop or closed, nothing here waits: a request that is due is sent, on an idle connection or a new one.
There is no cap on connections and no retry.
"""

import heapq
import time
from collections.abc import Callable

from tailgate.loadgen.injector.client_stats import ClientStats
from tailgate.loadgen.injector.event_loop import EventLoop
from tailgate.loadgen.injector.exchange import Exchange
from tailgate.loadgen.injector.http import AVAILABLE
from tailgate.loadgen.injector.http.connection import Connection
from tailgate.loadgen.injector.http.endpoint import Endpoint
from tailgate.loadgen.injector.http.fast_connection import FastConnection
from tailgate.loadgen.injector.http.tls import TlsConnection
from tailgate.loadgen.records import HungUp, Status

# Deadlines are checked this often: a timeout is late by at most this much.
_SWEEP_NS = 20_000_000
_MANY_ENDED = 1_000


class Dispatcher:
    """Sends exchanges at once, and calls ``ended`` with each when it has ended."""

    def __init__(
        self,
        loop: EventLoop,
        endpoints: list[Endpoint],
        servers: int,
        stats: ClientStats,
        ended: Callable[[Exchange], None],
        keepalive_ns: int,
    ) -> None:
        self._loop = loop
        self._endpoints = endpoints
        self._stats = stats
        self._ended = ended
        self._keepalive_ns = keepalive_ns
        self._idle: list[list[Connection]] = [[] for _ in endpoints]
        self._busy: dict[Exchange, Connection] = {}
        # In flight by server: endpoint k is of server k modulo their number.
        self._load = [0] * servers
        self._turn = 0  # the server that a tie falls to
        self._with_deadline: dict[int, Exchange] = {}  # by index
        # (deadline, index): an exchange that has ended stays until its time, or until it is one of many.
        self._deadlines: list[tuple[int, int]] = []
        self._sweeping = False

    @property
    def in_flight(self) -> int:
        return len(self._busy)

    def open_exchanges(self) -> list[Exchange]:
        """Requests dispatched and not ended, oldest first."""
        return list(self._busy)

    def least_loaded(self) -> int:
        """The server with the fewest requests in flight; several such take turns."""
        servers, least = len(self._load), min(self._load)
        server = next(k for step in range(servers) if self._load[k := (self._turn + step) % servers] == least)
        self._turn = (server + 1) % servers
        return server

    def dispatch(self, exchange: Exchange, due_ns: int) -> None:
        """Send now. ``due_ns`` (CLOCK_REALTIME) is when it should have been; the difference is our lateness."""
        now = exchange.dispatched_ns = time.time_ns()
        self._stats.began(now, now - due_ns)
        deadline = _deadline(exchange)
        if deadline is not None:
            self._with_deadline[exchange.index] = exchange
            heapq.heappush(self._deadlines, (deadline, exchange.index))
            self._sweep_soon()
        self._load[exchange.endpoint % len(self._load)] += 1
        connection = self._take(exchange.endpoint, now)
        if not self._busy:
            self._loop.attend(True)
        self._busy[exchange] = connection
        connection.send(exchange)

    def _take(self, endpoint: int, now: int) -> Connection:
        idle = self._idle[endpoint]
        while idle:
            connection = idle.pop()
            if connection.open:
                if now - connection.idle_since_ns < self._keepalive_ns and connection.alive():
                    return connection
                connection.close()
        return self._kind(endpoint)(self._loop, self._endpoints[endpoint], self._stats, self._on_ended)

    def _kind(self, endpoint: int) -> type[Connection]:
        if self._endpoints[endpoint].tls:
            return TlsConnection
        return FastConnection if AVAILABLE and self._stats.kernel_stamps else Connection

    def _on_ended(self, connection: Connection, exchange: Exchange) -> None:
        self._stats.ended(connection.ended_ns, exchange.bytes_received)
        del self._busy[exchange]
        if not self._busy:
            self._loop.attend(False)
        self._with_deadline.pop(exchange.index, None)
        self._load[exchange.endpoint % len(self._load)] -= 1
        if connection.open:
            connection.idle_since_ns = time.time_ns()
            self._idle[exchange.endpoint].append(connection)
        self._ended(exchange)

    def _sweep_soon(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self._loop.at(time.monotonic_ns() + _SWEEP_NS, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = False
        now = time.time_ns()
        if len(self._deadlines) > 2 * len(self._with_deadline) + _MANY_ENDED:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._with_deadline]
            heapq.heapify(self._deadlines)
        while self._deadlines and self._deadlines[0][0] <= now:
            exchange = self._with_deadline.get(heapq.heappop(self._deadlines)[1])
            if exchange is None:  # it has ended
                continue
            connection = self._busy[exchange]
            if exchange.timeout_ns is not None and exchange.timeout_ns <= now:
                connection.hang_up(Status.TIMEOUT, "no answer within the request's timeout")
            else:
                exchange.hung_up = HungUp.PATIENCE
                connection.hang_up(Status.CANCELLED, "hung up as planned")
        if self._with_deadline:
            self._sweep_soon()

    def give_up(self, status: Status, error: str) -> None:
        """End everything in flight, because the drain is over or the run was stopped."""
        for exchange, connection in list(self._busy.items()):
            exchange.hung_up = HungUp.STOPPED if status is Status.CANCELLED else None
            connection.hang_up(status, error)

    def close(self) -> None:
        for idle in self._idle:
            for connection in idle:
                connection.close()
            idle.clear()


def _deadline(exchange: Exchange) -> int | None:
    """When to give up on a request, if ever (CLOCK_REALTIME)."""
    times = [at for at in (exchange.timeout_ns, exchange.hang_up_ns) if at is not None]
    return min(times, default=None)
