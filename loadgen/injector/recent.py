"""Running figures for the progress display and the web UI: totals, and the latencies of the last second.

For eyes only. Figures of a report are computed from the records, never from here.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from loadgen.injector.exchange import Exchange
from loadgen.records import Status

_MOST: Final = 200


class _Second:
    """What ended since the last tick."""

    def __init__(self) -> None:
        self.ok = self.failed = self.tokens = 0
        self._ttft_ms: list[float] = []
        self._gaps_us: list[npt.NDArray[np.int64]] = []
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
            arrivals_us = np.frombuffer(stream.arrivals_us, np.uint32).astype(np.int64)
            self._gaps_us.append(arrivals_us[1:] - arrivals_us[:-1])

    def latencies(self) -> dict[str, list[float]]:
        """At most `_MOST` of each kind, evenly picked; ITL are the gaps of all answers together."""
        gaps_ms = np.concatenate(self._gaps_us) / 1e3 if self._gaps_us else np.empty(0)
        return {"ttft_ms": _pick(self._ttft_ms), "itl_ms": _pick(gaps_ms), "e2e_ms": _pick(self._e2e_ms)}


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


def _pick(values: Sequence[float] | npt.NDArray[np.float64]) -> list[float]:
    at = np.linspace(0, len(values) - 1, min(len(values), _MOST)).astype(int)
    return [round(float(values[i]), 3) for i in at]
