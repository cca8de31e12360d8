"""Ctrl-C and SIGTERM over the whole length of a run, so that nothing it started is left behind.

| when | what the first signal does |
|---|---|
| preparing | cancels the work: every `finally` runs |
| under load (`gently`) | is passed on: the load ends, what was measured is kept |
| taking down (`hold`) | nothing more: that is under way and bounded |

Further signals change nothing. Where the run didn't end as interrupted, `KeyboardInterrupt` says so: exit code 130.
"""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """A context manager around all of a run, in its task. May be nested: the inner one hears."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._before: dict[signal.Signals, Any] = {}
        self._gently: asyncio.Event | None = None
        self._holding = False
        self._unanswered = False  # a signal that did not end the load

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._struck) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._unanswered and (kind is None or issubclass(kind, asyncio.CancelledError)):
            raise KeyboardInterrupt from None

    @contextlib.contextmanager
    def gently(self) -> Iterator[asyncio.Event]:
        """The load phase: a signal sets the event."""
        self._gently = asyncio.Event()
        try:
            yield self._gently
        finally:
            self._gently = None

    def hold(self) -> None:
        """From now on only bounded things are done, and to their end."""
        self._holding = True

    def _struck(self, _number: int, _frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._heard)

    def _heard(self) -> None:
        if self._gently is not None:
            self._gently.set()
            return
        first, self._unanswered = not self._unanswered, True
        if first and not self._holding and self._task is not None:
            self._task.cancel()
