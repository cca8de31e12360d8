"""What became of each request, kept as columns while a simulation runs."""

from array import array
from collections.abc import Iterable

import numpy as np

from tailgate.harness.engine.virtual.outcome import Ending, ServedRequests, ServerSeries
from tailgate.harness.engine.virtual.replica import VirtualSequence
from tailgate.workloads.common.arrays import Floats, Ints

_TIMES = ("arrival_s", "scheduled_s", "first_token_s", "last_token_s", "end_s")
_COUNTS = ("row", "replica", "generated", "cached_tokens", "preemptions", "ending")
_NO_TOKENS: "tuple[array[float], list[int]]" = (array("d"), [])


class ServedRows:
    """One entry a request, in the order of arrival; `row` is the load's name for it, `replica` 0 if none had it."""

    def __init__(self, keep_tokens: bool) -> None:
        self._place: dict[int, int] = {}  # of rows in flight
        self._times = {name: array("d") for name in _TIMES}
        self._counts = {name: array("q") for name in _COUNTS}
        # Of each request its tokens' steps (see `VirtualSequence.spans`), and when these ended.
        self._tokens: list[tuple[array[float], list[int]]] | None = [] if keep_tokens else None

    def __len__(self) -> int:
        return len(self._counts["row"])

    def arrived(self, sequence: VirtualSequence) -> None:
        self._place[sequence.row] = len(self)
        for times in self._times.values():
            times.append(np.nan)
        for counts in self._counts.values():
            counts.append(0)
        self._times["arrival_s"][-1] = sequence.arrival_s
        self._counts["row"][-1] = sequence.row
        if self._tokens is not None:
            self._tokens.append(_NO_TOKENS)

    def sent_to(self, sequence: VirtualSequence, replica: int) -> None:
        self._counts["replica"][self._place[sequence.row]] = replica

    def ended(
        self, sequence: VirtualSequence, now_s: float, ending: Ending, step_ends: "array[float] | None" = None
    ) -> None:
        place, times, counts = self._place.pop(sequence.row), self._times, self._counts
        for name in ("scheduled_s", "first_token_s", "last_token_s"):
            if (value := getattr(sequence, name)) is not None:
                times[name][place] = value
        times["end_s"][place] = now_s
        counts["generated"][place] = sequence.generated
        counts["cached_tokens"][place] = sequence.cached_tokens
        counts["preemptions"][place] = sequence.preemptions
        counts["ending"][place] = ending
        if self._tokens is not None and step_ends is not None:
            self._tokens[place] = step_ends, sequence.spans

    def time(self, name: str) -> Floats:
        return np.array(self._times[name], np.float64)

    def count(self, name: str) -> Ints:
        return np.array(self._counts[name], np.int64)

    def token_times(self, places: Iterable[int]) -> Floats:
        """When the tokens of some of them came, one request after the other."""
        assert self._tokens is not None
        tokens, times = self._tokens, array("d")
        for place in places:
            step_ends, spans = tokens[place]
            for begin, end in zip(spans[::2], spans[1::2], strict=True):
                times += step_ends[begin:end]
        return np.array(times, np.float64)

    def served(self, series: ServerSeries) -> ServedRequests:
        """All of them, once the simulation is over."""
        token_s = token_at = None
        if self._tokens is not None:
            token_s = self.token_times(range(len(self)))
            token_at = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.count("generated"))])
        return ServedRequests(
            arrival_s=self.time("arrival_s"),
            scheduled_s=self.time("scheduled_s"),
            first_token_s=self.time("first_token_s"),
            end_s=self.time("end_s"),
            generated=self.count("generated"),
            cached_tokens=self.count("cached_tokens"),
            preemptions=self.count("preemptions"),
            ending=self.count("ending"),
            series=series,
            token_s=token_s,
            token_at=token_at,
        )
