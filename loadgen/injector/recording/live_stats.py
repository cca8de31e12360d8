"""Running figures for the progress display, the web UI and the kill switch: totals, and the latencies of the last
second, with what is in flight and how long it has waited.

For eyes and emergencies only. Figures of a report are computed from the records, never from here.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from tailgate.loadgen.injector.exchange import Exchange
from tailgate.loadgen.injector.http.token_stream import TokenStream
from tailgate.loadgen.records import Status

_MOST: Final = 200

T = TypeVar("T")


class _Second:
    """The requests that ended since the last tick."""

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
        begun = _begun(exchange) or stream.last_ns
        self._e2e_ms.append((stream.last_ns - begun) / 1e6)
        contents = stream.reading.contents
        self.tokens += max(stream.reading.output_tokens or 0, contents)
        if stream.first_ns is not None:
            self._ttft_ms.append((stream.first_ns - begun) / 1e6)
            arrivals_us = np.frombuffer(stream.arrivals_us, np.uint32).astype(np.int64)
            self._gaps_us.append(arrivals_us[1:] - arrivals_us[:-1])

    def latencies(self) -> dict[str, list[float] | int]:
        """At most `_MOST` values of each kind, evenly picked, and of how many. ITL are all answers' gaps together."""
        gaps_ms = np.concatenate(self._gaps_us) / 1e3 if self._gaps_us else np.empty(0)
        kinds = (("ttft", self._ttft_ms), ("itl", gaps_ms), ("e2e", self._e2e_ms))
        return {f"{kind}_ms": _rounded(values) for kind, values in kinds} | {
            f"{kind}_n": len(values) for kind, values in kinds
        }


class LiveStats:
    """Totals since the start and of the last second, also by class if ``class_of`` a row's index is given."""

    def __init__(self, class_of: Callable[[int], str] | None = None) -> None:
        self._statuses: Counter[str] = Counter()
        self._abandoned = 0
        self._class_of = class_of
        self._all = _Second()
        self._classes: dict[str, _Second] = {}
        self._ended: list[tuple[float, float | None, bool]] = []

    def add(self, exchange: Exchange) -> None:
        self._statuses[str(exchange.status)] += 1
        self._all.add(exchange)
        begun, first, end = _begun(exchange), exchange.stream.first_ns, exchange.end_ns
        self._abandoned += exchange.status is Status.CANCELLED and first is not None
        if begun is not None and end is not None:
            ttft = None if first is None else (first - begun) / 1e6
            self._ended.append(((end - begun) / 1e6, ttft, exchange.status is Status.OK))
        if self._class_of is not None:
            self._classes.setdefault(self._class_of(exchange.index), _Second()).add(exchange)

    def judged(self, name: str) -> None:
        """Count an answer as wrong that had ended well; `name` is its class."""
        self._statuses[str(Status.OK)] -= 1
        self._statuses[str(Status.BAD_RESPONSE)] += 1
        if self._class_of is not None:
            self._classes.setdefault(name, _Second()).failed += 1

    def tick(self, in_flight: Sequence[Exchange] = (), now_ns: int = 0) -> dict[str, Any]:
        """What ended since the last tick, and what of ``in_flight`` (oldest first) has waited for how long.

        `ended`: at most 200 of `ended_n`, evenly picked, each (ms from its due time to its end, TTFT in ms or None,
        whether it ended ok). `open`: at most 200 of those in flight, each (ms since due, TTFT or None, ms since
        anything came or None).
        """
        tick: dict[str, Any] = {
            **self.totals(),
            **self._all.latencies(),
            "tokens": self._all.tokens,
            "ended_n": len(self._ended),
            "ended": _pick(self._ended),
            "open": [_so_far(exchange, now_ns) for exchange in _pick(in_flight)],
        }
        if self._class_of is not None:
            tick["classes"] = {
                name: {"ok": second.ok, "failed": second.failed, **second.latencies()}
                for name, second in self._classes.items()
            }
        self._all, self._classes, self._ended = _Second(), {}, []
        return tick

    @property
    def ended(self) -> int:
        return self._statuses.total()

    def totals(self) -> dict[str, Any]:
        """Requests by status since the start, and how many users hung up on an answer that had begun."""
        return {"statuses": dict(self._statuses), "abandoned": self._abandoned}


def _begun(exchange: Exchange) -> int | None:
    return exchange.scheduled_ns or exchange.sent_ns or exchange.dispatched_ns


def _so_far(exchange: Exchange, now_ns: int) -> tuple[float, float | None, float | None]:
    """What is known of a request in flight before its answer is parsed: its first event counts as the first token."""
    begun, stream = _begun(exchange) or now_ns, exchange.stream
    first = stream.first_ns or _first_event_ns(stream)
    if first is None:
        stream.catch_up()
        first = _first_event_ns(stream)
    ttft = None if first is None else (first - begun) / 1e6
    last = stream.last_read_ns
    silent = None if first is None or last is None else (now_ns - last) / 1e6
    return (now_ns - begun) / 1e6, ttft, silent


def _first_event_ns(stream: TokenStream) -> int | None:
    """When the first unparsed event came; neither the head nor a comment (`: keep-alive`) is one."""
    size = stream.start + len(stream.pending)
    for piece in stream.pieces:
        size += len(piece)
        if b"data:" in piece:
            return next((stamp for stamp, end in zip(stream.stamps, stream.ends, strict=True) if end >= size), None)
    return None


def _pick(values: Sequence[T]) -> list[T]:
    """At most `_MOST` of the values, evenly picked."""
    return [values[i] for i in np.linspace(0, len(values) - 1, min(len(values), _MOST)).astype(int)]


def _rounded(values: Sequence[float] | npt.NDArray[np.float64]) -> list[float]:
    return [round(float(value), 3) for value in _pick(values)]  # type: ignore[arg-type]
