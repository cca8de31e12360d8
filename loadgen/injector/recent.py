"""Running figures for the progress display: totals, and the latencies of the last seconds.

For eyes only. Figures of a report are computed from the records, never from here.
"""

from collections import Counter
from typing import Any

import numpy as np

from loadgen.injector.exchange import Exchange
from loadgen.records import Status


class Recent:
    """Totals since the start, and what ended since the last tick."""

    def __init__(self) -> None:
        self._statuses: Counter[str] = Counter()
        self._ttft_ms: list[float] = []
        self._itl_ms: list[float] = []
        self._e2e_ms: list[float] = []
        self._tokens = 0

    def add(self, exchange: Exchange) -> None:
        """A request has ended."""
        self._statuses[str(exchange.status)] += 1
        stream = exchange.stream
        if exchange.status is not Status.OK or stream.last_ns is None:
            return
        begun = exchange.scheduled_ns or exchange.sent_ns or stream.last_ns
        self._e2e_ms.append((stream.last_ns - begun) / 1e6)
        contents = stream.reading.contents
        self._tokens += stream.reading.output_tokens or contents
        if stream.first_ns is not None:
            self._ttft_ms.append((stream.first_ns - begun) / 1e6)
            if contents > 1:
                self._itl_ms.append((stream.last_ns - stream.first_ns) / 1e6 / (contents - 1))

    def tick(self) -> dict[str, Any]:
        """What ended since the last tick: at most 200 latencies of each kind, evenly picked."""
        tick = {
            **self.totals(),
            "ttft_ms": _pick(self._ttft_ms),
            "itl_ms": _pick(self._itl_ms),
            "e2e_ms": _pick(self._e2e_ms),
            "tokens": self._tokens,
        }
        self._ttft_ms, self._itl_ms, self._e2e_ms, self._tokens = [], [], [], 0
        return tick

    def totals(self) -> dict[str, Any]:
        """Requests by status since the start."""
        return {"statuses": dict(self._statuses)}


def _pick(values: list[float]) -> list[float]:
    if len(values) <= 200:
        return [round(v, 3) for v in values]
    at = np.linspace(0, len(values) - 1, 200).astype(int)
    return [round(values[i], 3) for i in at]
