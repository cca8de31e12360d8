"""Running figures for the progress display and the web UI: totals, and the latencies of the last second.

For eyes only. Figures of a report are computed from the records, never from here.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from loadgen.injector.exchange import Exchange
from loadgen.records import Status


class _Second:
    """What ended since the last tick."""

    def __init__(self) -> None:
        self.ok = self.failed = self.tokens = 0
        self._ttft_ms: list[float] = []
        self._itl_ms: list[float] = []
        self._e2e_ms: list[float] = []

    def add(self, exchange: Exchange) -> None:
        stream = exchange.stream
        if exchange.status is not Status.OK or stream.last_ns is None:
            self.failed += 1
            return
        self.ok += 1
        begun = exchange.scheduled_ns or exchange.sent_ns or stream.last_ns
        self._e2e_ms.append((stream.last_ns - begun) / 1e6)
        contents = stream.reading.contents
        self.tokens += stream.reading.output_tokens or contents
        if stream.first_ns is not None:
            self._ttft_ms.append((stream.first_ns - begun) / 1e6)
            if contents > 1:
                self._itl_ms.append((stream.last_ns - stream.first_ns) / 1e6 / (contents - 1))

    def latencies(self) -> dict[str, list[float]]:
        """At most 200 of each kind, evenly picked."""
        return {"ttft_ms": _pick(self._ttft_ms), "itl_ms": _pick(self._itl_ms), "e2e_ms": _pick(self._e2e_ms)}


class Recent:
    """Totals since the start, and the last second; by class where ``class_of`` (of a row's index) is given."""

    def __init__(self, class_of: Callable[[int], str] | None = None) -> None:
        self._statuses: Counter[str] = Counter()
        self._class_of = class_of
        self._all = _Second()
        self._classes: dict[str, _Second] = {}

    def add(self, exchange: Exchange) -> None:
        """A request has ended."""
        self._statuses[str(exchange.status)] += 1
        self._all.add(exchange)
        if self._class_of is not None:
            self._classes.setdefault(self._class_of(exchange.index), _Second()).add(exchange)

    def tick(self) -> dict[str, Any]:
        """What ended since the last tick."""
        tick: dict[str, Any] = {**self.totals(), **self._all.latencies(), "tokens": self._all.tokens}
        if self._class_of is not None:
            tick["classes"] = {
                name: {"ok": second.ok, "failed": second.failed, **second.latencies()}
                for name, second in self._classes.items()
            }
        self._all, self._classes = _Second(), {}
        return tick

    def totals(self) -> dict[str, Any]:
        """Requests by status since the start."""
        return {"statuses": dict(self._statuses)}


def _pick(values: list[float]) -> list[float]:
    if len(values) <= 200:
        return [round(v, 3) for v in values]
    at = np.linspace(0, len(values) - 1, 200).astype(int)
    return [round(values[i], 3) for i in at]
