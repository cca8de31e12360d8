"""The engine in real time: one task that runs step after step by absolute deadlines.

A step that begins at `t` and takes `d` delivers its tokens at `t + d`, and the next one begins then, however
late this process came round to it; the lateness is measured. Only when it is more than `GIVE_UP_S` behind
is the schedule begun anew (counted: the simulation was overloaded). HTTP is not known here: a request brings
its `sink`.
"""

import asyncio
import ctypes
import os
import time
from typing import Protocol

from tailgate.harness.engine.config import Resolved, make_scheduler, variation_of
from tailgate.harness.engine.model.pace import StepPace
from tailgate.harness.engine.model.power import PowerMeter
from tailgate.harness.engine.model.scheduler import EngineSequence
from tailgate.harness.engine.server.metrics import EngineMetrics

GIVE_UP_S = 0.1
_TFD_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1
_CLOCK_MONOTONIC = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Sink(Protocol):
    """Where a request's tokens go."""

    def token(self, last: bool) -> None:
        """Take the next token."""


class Engine:
    """Owns scheduler, cache and metrics; `run` is its one task."""

    def __init__(self, resolved: Resolved) -> None:
        self.resolved = resolved
        self.scheduler = make_scheduler(resolved)
        self.metrics = EngineMetrics(resolved, self.scheduler)
        limit_w = resolved.power_limit_w
        self.meter = None if limit_w is None else PowerMeter(resolved.step_time, limit_w)
        self._sinks: dict[EngineSequence, Sink] = {}
        self._wake = asyncio.Event()

    def submit(self, sequence: EngineSequence, sink: Sink) -> None:
        """Put a request into the queue; its tokens go to `sink`."""
        self.scheduler.submit(sequence)
        self._sinks[sequence] = sink
        self._wake.set()

    def abort(self, sequence: EngineSequence) -> None:
        """Remove a request whose client has gone; nothing happens if it was never submitted or has ended."""
        if self.scheduler.abort(sequence):
            del self._sinks[sequence]
            self.metrics.ended(sequence, "abort")

    async def run(self) -> None:
        timer = Timer(asyncio.get_running_loop())
        try:
            begin = time.monotonic()
            settings = self.resolved.settings
            pace = StepPace(self.resolved.step_time, variation_of(settings), settings.seed, launched_s=begin)
            while True:
                step = self.scheduler.schedule(begin)
                if not step.parts:
                    self._wake.clear()
                    await self._wake.wait()
                    begin = time.monotonic()
                    continue
                deadline = pace.end(begin, step.shape)
                pace.advance()
                await timer.sleep_until(deadline)
                now = time.monotonic()
                outcome = self.scheduler.complete(step, now)
                self.metrics.stepped(step, outcome, now)
                if self.meter is not None:
                    self.meter.stepped(step.shape, deadline - begin)
                for sequence in outcome.ended:
                    self._sinks.pop(sequence).token(True)
                    self.metrics.ended(sequence, sequence.finish_reason)
                sinks = self._sinks
                for sequence in outcome.emitted:
                    sink = sinks.get(sequence)
                    if sink is not None:
                        sink.token(False)
                self.metrics.lateness.observe(time.monotonic() - deadline)  # of the last token written
                begin = deadline
                if now - deadline > GIVE_UP_S:
                    begin = now
                    self.metrics.overruns += 1
        finally:
            timer.close()


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Timer:
    """Sleeps until an absolute time of CLOCK_MONOTONIC (that of `time.monotonic`). One sleeper at a time.

    By a Linux timerfd, since asyncio's own timers are only good to a millisecond. Python has `os.timerfd_create` from
    3.13 on; before that the C library is called directly.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._fd = _libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = _Itimerspec()
        self._waiter: asyncio.Future[None] | None = None
        loop.add_reader(self._fd, self._fired)

    async def sleep_until(self, deadline_s: float) -> None:
        """Return at or just after `deadline_s`; when it has passed, after other tasks had a turn."""
        if deadline_s <= time.monotonic():
            await asyncio.sleep(0)
            return
        seconds = int(deadline_s)
        self._spec.value.seconds = seconds
        self._spec.value.nanoseconds = int((deadline_s - seconds) * 1e9)
        self._waiter = self._loop.create_future()
        if _libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(self._spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        await self._waiter

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _fired(self) -> None:
        os.read(self._fd, 8)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
