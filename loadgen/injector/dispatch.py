"""Exchanges to connections: the pool of idle ones, who is in flight, and deadlines.

Open loop or closed, nothing here waits: a request that is due is sent, on an idle connection or a new one.
There is no cap on connections and no retry.
"""

import time
from collections.abc import Callable

from loadgen.injector.conduct import Conduct
from loadgen.injector.connection import Connection
from loadgen.injector.endpoint import Endpoint
from loadgen.injector.exchange import Exchange
from loadgen.injector.loop import Loop
from loadgen.injector.tls import TlsConnection
from loadgen.records import HungUp, Status

# Deadlines are checked this often: a timeout is late by at most this much.
_SWEEP_NS = 20_000_000


class Dispatcher:
    """Sends exchanges at once and reports each one's end to ``ended``."""

    def __init__(
        self,
        loop: Loop,
        endpoints: list[Endpoint],
        conduct: Conduct,
        ended: Callable[[Exchange], None],
        keepalive_ns: int,
    ) -> None:
        self._loop = loop
        self._endpoints = endpoints
        self._conduct = conduct
        self._ended = ended
        self._keepalive_ns = keepalive_ns
        self._idle: list[list[Connection]] = [[] for _ in endpoints]
        self._busy: dict[Exchange, Connection] = {}
        self._load = [0] * len(endpoints)
        self._with_deadline: set[Exchange] = set()
        self._sweeping = False

    @property
    def in_flight(self) -> int:
        """Requests dispatched and not ended."""
        return len(self._busy)

    def open_exchanges(self) -> list[Exchange]:
        """Requests dispatched and not ended, the oldest first."""
        return list(self._busy)

    def least_loaded(self) -> int:
        """The endpoint with the fewest requests in flight."""
        return self._load.index(min(self._load))

    def dispatch(self, exchange: Exchange, due_ns: int) -> None:
        """Send now. ``due_ns`` (CLOCK_REALTIME) is when it should have been: the difference is our lateness."""
        now = exchange.dispatched_ns = time.time_ns()
        self._conduct.began(now, now - due_ns)
        if exchange.timeout_ns is not None or exchange.hang_up_ns is not None:
            self._with_deadline.add(exchange)
            self._sweep_soon()
        self._load[exchange.endpoint] += 1
        connection = self._take(exchange.endpoint, now)
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
        kind = TlsConnection if self._endpoints[endpoint].tls else Connection
        return kind(self._loop, self._endpoints[endpoint], self._conduct, self._on_ended)

    def _on_ended(self, connection: Connection, exchange: Exchange) -> None:
        now = time.time_ns()
        assert exchange.end_ns is not None
        self._conduct.ended(now, exchange.end_ns, exchange.bytes_received)
        del self._busy[exchange]
        self._with_deadline.discard(exchange)
        self._load[exchange.endpoint] -= 1
        if connection.open:
            connection.idle_since_ns = now
            self._idle[exchange.endpoint].append(connection)
        self._ended(exchange)

    def _sweep_soon(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self._loop.at(time.monotonic_ns() + _SWEEP_NS, self._sweep)

    def _sweep(self) -> None:
        """Give up on those whose time is over."""
        self._sweeping = False
        now = time.time_ns()
        for exchange in list(self._with_deadline):
            connection = self._busy.get(exchange)
            if connection is None:  # an earlier one's end was the end of the run
                continue
            if exchange.timeout_ns is not None and exchange.timeout_ns <= now:
                connection.hang_up(Status.TIMEOUT, "no answer within the request's timeout")
            elif exchange.hang_up_ns is not None and exchange.hang_up_ns <= now:
                exchange.hung_up = HungUp.PATIENCE
                connection.hang_up(Status.CANCELLED, "hung up as planned")
        if self._with_deadline:
            self._sweep_soon()

    def give_up(self, status: Status, error: str) -> None:
        """End everything in flight: the drain is over, or the run was stopped."""
        for exchange, connection in list(self._busy.items()):
            exchange.hung_up = HungUp.STOPPED if status is Status.CANCELLED else None
            connection.hang_up(status, error)

    def close(self) -> None:
        """Close idle connections."""
        for idle in self._idle:
            for connection in idle:
                connection.close()
            idle.clear()
