"""Ctrl-C and SIGTERM over the whole length of a run, so that nothing it started is left behind.

| when | what the first signal does |
|---|---|
| preparing | cancels the work: every `finally` runs |
| under load (`gently`) | is passed on: Ctrl-C winds the load down, SIGTERM and a second Ctrl-C end it at once |
| taking down (`hold`) | nothing more: that is under way and bounded |

What was measured is kept. Further signals change nothing: a load that one has ended is reported all the same.
Where the run didn't end as interrupted, `KeyboardInterrupt` says so: exit code 130.
"""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Interruption:
    """What the person has asked of the load phase."""

    wind_down: asyncio.Event = field(default_factory=asyncio.Event)  # send nothing more, let what is in flight end
    at_once: asyncio.Event = field(default_factory=asyncio.Event)  # end now
    by: str = ""  # what was sent, in words

    def struck(self, number: int) -> None:
        """Count one more signal. Whoever sends SIGTERM may well send SIGKILL a few seconds later."""
        self.by = "SIGTERM" if number == signal.SIGTERM else "Ctrl-C"
        if number == signal.SIGTERM or self.wind_down.is_set():
            self.at_once.set()
        else:
            self.wind_down.set()


class Interrupts:
    """A context manager around a whole run, in its task. It may be nested: the inner one gets the signals."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._before: dict[signal.Signals, Any] = {}
        self._gently: Interruption | None = None
        self._holding = False
        self._answered = False  # a signal has ended the load
        self.unanswered = False  # a signal has not

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._struck) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.unanswered and (kind is None or issubclass(kind, asyncio.CancelledError)):
            raise KeyboardInterrupt from None

    @contextlib.contextmanager
    def gently(self) -> Iterator[Interruption]:
        self._gently = Interruption()
        try:
            yield self._gently
        finally:
            self._gently = None

    def hold(self) -> None:
        """From now on only work of bounded length is left, which is finished."""
        self._holding = True

    def _struck(self, number: int, _frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._heard, number)

    def _heard(self, number: int) -> None:
        if self._gently is not None:
            self._answered = True
            self._gently.struck(number)
        if self._answered:
            return
        first, self.unanswered = not self.unanswered, True
        if first and not self._holding and self._task is not None:
            self._task.cancel()
