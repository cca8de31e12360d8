"""The injector's measurement of itself, second by second: the validity checks judge it by that.

How late it sent and read, how busy its thread was, how many requests were in flight by its own count (summed up as
they begin and end, apart from the records, so that one can be held against the other), how late users came back, and
whether the clock stepped.
"""

import time
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np

from tailgate.loadgen.injector.kernel_timestamps import clock_step_probe
from tailgate.loadgen.injector.machine_time import WaitingTime
from tailgate.loadgen.records import lag_histogram

_HELD_BACK = 3


class ClientStats:
    """Counters of the current interval; `close_interval` turns them into a row of CLIENT_SCHEMA."""

    def __init__(self, injector: int) -> None:
        self._injector = injector
        self._t0_ns = 0
        self._clock_offset_ns = 0
        self.lags = array("q")  # receive lag of every read
        self.other_lags: Callable[[], bytes] | None = None  # of reads counted elsewhere: uint32 per bucket
        self.dispatch_lags = array("q")
        self.turnaround_lags = array("q")  # closed loop: how late users came back
        self.bytes = 0
        self.dispatched = self.finished = 0
        self.in_flight = self.in_flight_max = 0
        self.kernel_stamps = True  # whether connections ask for them
        self.delayed_acks = "loopback"  # of which servers: loopback | always | never
        self.acks_delayed = False  # of any answer
        self.waiting_peers: set[str] = set()  # servers that wait for acknowledgements
        self._held_back: dict[str, list[int]] = {}  # by server: answers that looked held back, and answers looked at
        self.unstamped = 0  # reads without a kernel stamp, in all
        self.all_reads = 0
        # Integral of the number in flight over this interval, as a sum: each end's time less each begin's, and at the
        # interval's edges the time of as many as are in flight. In which order they are counted, and how late, is all
        # the same.
        self._in_flight_ns = 0
        self._since_ns = 0
        self._cpu_ns = 0
        self._clock_seen_ns = self._clock_jump_ns = 0
        self._waiting = WaitingTime()

    def start(self, t0_ns: int) -> None:
        """Begin the first interval at the run's time zero ``t0_ns`` (CLOCK_REALTIME)."""
        self._t0_ns = self._since_ns = t0_ns
        self._clock_offset_ns = self._clock_seen_ns = clock_step_probe()
        self._cpu_ns = time.thread_time_ns()

    def forget_cpu(self) -> None:
        """Drop the times used so far: the run's time zero has just come."""
        self._cpu_ns = time.thread_time_ns()
        self._waiting.since_last()

    def look_at_clock(self) -> None:
        """Look every tenth of a second whether the clock has stepped."""
        offset = clock_step_probe()
        self._clock_jump_ns = max(self._clock_jump_ns, abs(offset - self._clock_seen_ns))
        self._clock_seen_ns = offset

    def delayed_acks_seen(self, server: str, *, held: bool) -> None:
        """Count an answer whose acknowledgements were delayed, and whether it looked as if that had held it back.

        One of them may look so by chance: it takes half of a server's answers, and three.
        """
        counts = self._held_back.setdefault(server, [0, 0])
        counts[0] += held
        counts[1] += 1
        if counts[0] >= _HELD_BACK and 2 * counts[0] >= counts[1]:
            self.waiting_peers.add(server)

    def began(self, at_ns: int, dispatch_lag_ns: int) -> None:
        """Count a request that was dispatched at ``at_ns``: the very reading of the clock that its record has."""
        self._in_flight_ns -= at_ns
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        self.dispatched += 1
        self.dispatch_lags.append(dispatch_lag_ns)

    def ended(self, at_ns: int, bytes_received: int) -> None:
        """Count a request that ended at ``at_ns``, as its connection says: its last read's stamp, or when it failed."""
        self._in_flight_ns += at_ns
        self.in_flight -= 1
        self.finished += 1
        self.bytes += bytes_received

    def close_interval(self, loop_max_ns: int) -> tuple[Any, ...]:
        now = time.time_ns()
        cpu = time.thread_time_ns()
        receive_lags = lag_histogram(np.frombuffer(self.lags, np.int64))
        if self.other_lags is not None:
            receive_lags += np.frombuffer(self.other_lags(), np.uint32)
        reads = int(receive_lags.sum())
        duration = max(now - self._since_ns, 1)
        self._in_flight_ns += self.in_flight * now
        self.look_at_clock()
        row = (
            self._injector,
            self._since_ns - self._t0_ns,
            duration,
            self._in_flight_ns,
            self.in_flight_max,
            self.dispatched,
            self.finished,
            (cpu - self._cpu_ns) / duration,
            loop_max_ns,
            reads,
            self.bytes,
            lag_histogram(np.frombuffer(self.dispatch_lags, np.int64)),
            receive_lags,
            lag_histogram(np.frombuffer(self.turnaround_lags, np.int64)),
            self._clock_seen_ns - self._clock_offset_ns,
            self._clock_jump_ns,
            *self._waiting.since_last(),
        )
        self.all_reads += reads
        self.lags, self.dispatch_lags, self.turnaround_lags = array("q"), array("q"), array("q")
        self.bytes = self.dispatched = self.finished = self._clock_jump_ns = 0
        self._in_flight_ns = -self.in_flight * now
        self.in_flight_max = self.in_flight
        self._since_ns = now
        self._cpu_ns = cpu
        return row
