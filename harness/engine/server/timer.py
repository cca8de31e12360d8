"""Waking up on time: a Linux timerfd in an asyncio loop, whose own timers are only good to a millisecond.

Python has `os.timerfd_create` from 3.13 on; before that the C library is called directly.
"""

import asyncio
import ctypes
import os
import time

_TFD_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1
_CLOCK_MONOTONIC = 1
_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Timer:
    """Sleeps until an absolute time of CLOCK_MONOTONIC (that of `time.monotonic`). One sleeper at a time."""

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
