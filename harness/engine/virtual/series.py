"""A replica's state over time."""

from typing import Final

import numpy as np

from tailgate.harness.engine.virtual.outcome import ServerSeries
from tailgate.harness.engine.virtual.replica import VirtualReplica

_COUNTS: Final = ("running", "waiting", "blocks_used", "prompt_tokens", "generation_tokens", "preemptions")


class SeriesRecorder:
    """Collects samples of one replica; beside the series, prefix queries and hits in tokens."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._samples: list[tuple[int, ...]] = []
        self.prefix_queries: list[int] = []
        self.prefix_hits: list[int] = []

    def add(self, now_s: float, replica: VirtualReplica) -> None:
        if self._times and self._times[-1] == now_s:  # the end falls on a tick
            for samples in (self._times, self._samples, self.prefix_queries, self.prefix_hits):
                samples.pop()
        scheduler = replica.scheduler
        used = scheduler.pool.size - scheduler.pool.free
        self._times.append(now_s)
        self._samples.append(
            (
                len(scheduler.running), scheduler.waiting_count, used, replica.prompt_tokens,
                replica.generation_tokens, replica.counted("preemptions"),
            )
        )  # fmt: skip
        self.prefix_queries.append(replica.counted("prefix_queries"))
        self.prefix_hits.append(replica.counted("prefix_hits"))

    def series(self) -> ServerSeries:
        columns = np.array(self._samples, np.int64).reshape(-1, len(_COUNTS)).T
        return ServerSeries(np.array(self._times), **dict(zip(_COUNTS, columns, strict=True)))
