"""What a person sees while a run goes on: a live line on a terminal, one line every ten seconds elsewhere."""

import sys
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.load import Watcher

if TYPE_CHECKING:
    from rich.status import Status

_EVERY_S = 10.0
_WINDOW = 10  # seconds of latencies shown


class Progress(Watcher):
    """Progress on standard error; figures are of the last ten seconds and for eyes only."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._status: Status | None = None
        self._began = 0.0
        self._seconds = 0.0
        self._rows = 0
        self._said = 0.0
        self._statuses: dict[int, dict[str, int]] = {}
        self._in_flight: dict[int, int] = {}
        self._recent: deque[tuple[float, dict[str, Any]]] = deque()

    def note(self, text: str) -> None:
        """One line about what happens now."""
        print(text, file=sys.stderr, flush=True)

    def began(self, plan_rows: int, seconds: float) -> None:
        """Load starts."""
        self._began = time.monotonic()
        self._rows, self._seconds = plan_rows, seconds
        if self._live:
            from rich.console import Console

            self._status = Console(stderr=True).status("sending")
            self._status.start()

    def tick(self, message: dict[str, Any]) -> None:
        """An injector's second."""
        now = time.monotonic()
        self._statuses[message["injector"]] = message["statuses"]
        self._in_flight[message["injector"]] = message["in_flight"]
        self._recent.append((now, message))
        while self._recent[0][0] < now - _WINDOW:
            self._recent.popleft()
        if self._status is not None:
            self._status.update(self._line())
        elif now - self._said >= _EVERY_S:
            self._said = now
            self.note(self._line())

    def ended(self) -> None:
        """Load is over."""
        if self._status is not None:
            self._status.stop()

    def _line(self) -> str:
        totals: Counter[str] = Counter()
        for statuses in self._statuses.values():
            totals.update(statuses)
        ok = totals.pop("ok", 0)
        elapsed = time.monotonic() - self._began
        seconds = min(max(elapsed, 1.0), _WINDOW)
        tokens = sum(message["tokens"] for _, message in self._recent) / seconds
        return (
            f"{elapsed:4.0f}/{self._seconds:.0f} s  in flight {sum(self._in_flight.values())}  ok {ok}  "
            f"failed {totals.total()}  TTFT {self._middle('ttft_ms')}  ITL {self._middle('itl_ms')}  "
            f"{tokens:,.0f} tokens/s"
        )

    def _middle(self, key: str) -> str:
        values = [value for _, message in self._recent for value in message[key]]
        if not values:
            return "-"
        low, high = np.percentile(values, [50, 99])
        return f"{low:.0f}/{high:.0f} ms"
