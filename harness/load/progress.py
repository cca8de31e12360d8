"""What a person sees while a run goes on: a live line on a terminal, one line every ten seconds elsewhere.

Figures are of the last ten seconds and for eyes only; those of the report are computed from the records.
"""

import sys
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tailgate.harness.load.listener import Watcher
from tailgate.workloads.common.formatting import visible

if TYPE_CHECKING:
    from rich.status import Status

_EVERY_S = 10.0
_WINDOW_S = 10.0


class RecentTicks:
    """The injectors' last ten seconds, put together from their ticks."""

    def __init__(self, due_s: npt.NDArray[np.float64] | None) -> None:
        self._due_s = due_s  # planned times, rising; None in a closed loop
        self._statuses: dict[int, Counter[str]] = {}
        self._in_flight: dict[int, int] = {}
        self._ticks: deque[tuple[float, dict[str, Any]]] = deque()
        self._sent: deque[tuple[float, int]] = deque([(0.0, 0)])

    def add(self, elapsed_s: float, tick: dict[str, Any]) -> None:
        self._statuses[tick["injector"]] = Counter(tick["statuses"])
        self._in_flight[tick["injector"]] = tick["in_flight"]
        self._ticks.append((elapsed_s, tick))
        self._sent.append((elapsed_s, self._ended.total() + sum(self._in_flight.values())))
        while self._ticks[0][0] < elapsed_s - _WINDOW_S:
            self._ticks.popleft()
        while len(self._sent) > 1 and self._sent[1][0] < elapsed_s - _WINDOW_S:
            self._sent.popleft()

    @property
    def _ended(self) -> Counter[str]:
        return sum(self._statuses.values(), Counter[str]())

    def line(self, elapsed_s: float, *, draining: bool = False) -> str:
        """What happens now; while the last requests end, nothing is offered or sent."""
        ended = self._ended
        ok = ended.pop("ok", 0)
        window_s = min(max(elapsed_s, 1.0), _WINDOW_S)
        tokens = sum(tick["tokens"] for _, tick in self._ticks) / window_s
        return "  ".join(
            [
                *(["draining"] if draining else self._rates(elapsed_s)),
                f"in flight {sum(self._in_flight.values()):,}",
                f"ok {ok:,}",
                f"failed {ended.total():,}",
                f"TTFT {self._middle('ttft')}",
                f"ITL {self._middle('itl')}",
                f"{tokens:,.0f} tokens/s",
            ]
        )

    def _rates(self, elapsed_s: float) -> list[str]:
        (since, before), (now, sent) = self._sent[0], self._sent[-1]
        rates = [f"sent {(sent - before) / (now - since):.1f}/s"] if now > since else []
        if self._due_s is not None:
            begin = max(elapsed_s - _WINDOW_S, 0.0)
            due = np.searchsorted(self._due_s, [begin, elapsed_s])
            rates.insert(0, f"offered {(due[1] - due[0]) / max(elapsed_s - begin, 1e-9):.1f}/s")
        return rates

    def _middle(self, key: str) -> str:
        """p50/p99. What a tick picked of a busy second stands for more than what it picked of a quiet one."""
        picked = [(tick[f"{key}_ms"], tick[f"{key}_n"]) for _, tick in self._ticks if tick[f"{key}_ms"]]
        if not picked:
            return "-"
        values = np.concatenate([ms for ms, _ in picked])
        weights = np.concatenate([np.full(len(ms), n / len(ms)) for ms, n in picked])
        low, high = np.percentile(values, [50, 99], weights=weights, method="inverted_cdf")
        return f"{low:.0f}/{high:.0f} ms"


class Progress(Watcher):
    """Progress on standard error."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._status: Status | None = None
        self._began = 0.0
        self._seconds: float | None = None
        self._closing = False
        self._said_s = 0.0
        self._gpu = ""
        self._recent = RecentTicks(None)

    def note(self, text: str) -> None:
        # It may hold a server's words: none of them moves the cursor or erases a line.
        print(visible(text), file=sys.stderr, flush=True)

    def began(self, seconds: float | None, due_s: npt.NDArray[np.float64] | None) -> None:
        self._began, self._seconds = time.monotonic(), seconds
        self._recent = RecentTicks(due_s)
        if self._live:
            from rich.console import Console

            console = Console(stderr=True)
            spinner = "dots" if console.encoding.startswith("utf") else "line"
            self._status = console.status("sending", spinner=spinner, refresh_per_second=4)
            self._status.start()

    def tick(self, message: dict[str, Any]) -> None:
        elapsed = time.monotonic() - self._began
        self._recent.add(elapsed, message)
        if self._status is not None:
            self._status.update(self._line(elapsed))
        elif elapsed - self._said_s >= _EVERY_S:
            self._said_s = elapsed
            self.note(self._line(elapsed))

    def gpu(self, text: str) -> None:
        self._gpu = f"  {text}"

    def closing(self) -> None:
        self._closing = True

    def ended(self) -> None:
        if self._status is not None:
            self._status.stop()

    def _line(self, elapsed_s: float) -> str:
        draining = self._closing or (self._seconds is not None and elapsed_s > self._seconds)
        of = "" if draining or self._seconds is None else f"/{self._seconds:.0f}"
        return f"{elapsed_s:4.0f}{of} s  {self._recent.line(elapsed_s, draining=draining)}{self._gpu}"
