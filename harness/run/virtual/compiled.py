"""The same simulation by the compiled kernel, where what comes out is the same to the bit.

It knows one replica and an open loop of requests that share nothing. A sequence that is preempted finds blocks of its
own again in the prefix cache, which the kernel doesn't model: a simulation in which that could be is Python's.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from tailgate.harness.engine.config import Resolved
from tailgate.harness.engine.virtual import kernel
from tailgate.harness.engine.virtual.outcome import ServedRequests, ServerSeries
from tailgate.harness.engine.virtual.plan_load import OpenPlan
from tailgate.workloads.common.arrays import Floats, Ints


class CompiledRows:
    """`ServedRows` of what the kernel gave, in the order of arrival."""

    def __init__(self, served: ServedRequests, position: Ints) -> None:
        assert served.token_s is not None and served.token_at is not None
        self._token_s, self._token_at = served.token_s, served.token_at
        last = np.full(len(position), np.nan)
        begun = served.generated > 0
        last[begun] = self._token_s[self._token_at[1:][begun] - 1]
        self._times = {
            "arrival_s": served.arrival_s, "scheduled_s": served.scheduled_s, "first_token_s": served.first_token_s,
            "last_token_s": last, "end_s": served.end_s,
        }  # fmt: skip
        self._counts = {
            "row": position, "replica": np.ones(len(position), np.int64), "generated": served.generated,
            "cached_tokens": served.cached_tokens, "preemptions": served.preemptions, "ending": served.ending,
        }  # fmt: skip

    def __len__(self) -> int:
        return len(self._counts["row"])

    def time(self, name: str) -> Floats:
        return self._times[name]

    def count(self, name: str) -> Ints:
        return self._counts[name]

    def token_times(self, places: Iterable[int]) -> Floats:
        at = self._token_at
        parts = [self._token_s[at[place] : at[place + 1]] for place in places]
        return np.concatenate([np.zeros(0), *parts])


class CompiledSeries:
    """`SeriesRecorder` of what the kernel gave. Nothing is found in the prefix cache."""

    def __init__(self, series: ServerSeries, prefix_queries: Ints) -> None:
        self._series = series
        self.prefix_queries: Sequence[int] = prefix_queries.tolist()
        self.prefix_hits: Sequence[int] = [0] * len(prefix_queries)

    def series(self) -> ServerSeries:
        return self._series


class CompiledFleet:
    """What `Fleet` knows when it has run."""

    def __init__(self, served: ServedRequests, position: Ints, prompt_tokens: Ints) -> None:
        self.rows = CompiledRows(served, position)
        self.ended_s = float(served.end_s.max(initial=0.0))
        self.happened: list[tuple[float, str, str]] = []
        series = _with_end(served, prompt_tokens, self.ended_s)
        scheduled = np.isfinite(served.scheduled_s)
        order = np.argsort(served.scheduled_s[scheduled], kind="stable")
        queried = np.concatenate([np.zeros(1, np.int64), np.cumsum(prompt_tokens[scheduled][order])])
        # A step that begins when the series is sampled begins behind it.
        before = np.searchsorted(served.scheduled_s[scheduled][order], series.t_s)
        self.series = [CompiledSeries(series, queried[before])]


def compiled(resolved: Resolved, load: OpenPlan, tick_s: float) -> CompiledFleet | None:
    """What the kernel makes of a load that has not begun; None if Python has to simulate it."""
    settings, rows = resolved.settings, load.rows
    if load.feedback or settings.jitter or kernel.why_not(settings) is not None or not rows.shares_nothing:
        return None
    timed = sorted((at, position) for position, at in enumerate(rows.at_ns) if at is not None)
    position = np.array([position for _, position in timed], np.int64)
    at_ns = np.array([at for at, _ in timed], np.int64)
    arrival_s = at_ns / 1e9
    if not timed or arrival_s[-1] > load.until_s:
        return None
    index = rows.column("index")
    deadline_s = [load.deadline_s(index[place], at) for at, place in timed]
    if any(deadline < np.inf for deadline in deadline_s):
        return None  # the kernel adds patience to the arrival, and rounds once more
    prompt_tokens = np.array(rows.column("prompt_tokens"), np.int64)[position]
    lengths = np.array([rows.output_tokens(place) for place in position.tolist()], np.int64)
    served = kernel.serve(
        kernel.RequestArrays(arrival_s, prompt_tokens, lengths),
        kernel.EngineLimits.of(resolved), resolved.step_time.law,
        horizon_s=load.until_s, interval_s=tick_s, tokens=True,
    )  # fmt: skip
    if settings.enable_prefix_caching and served.preemptions.any():
        return None
    load.due_ns.update(zip(position.tolist(), at_ns.tolist(), strict=True))
    return CompiledFleet(served, position, prompt_tokens)


def _with_end(served: ServedRequests, prompt_tokens: Ints, ended_s: float) -> ServerSeries:
    """The samples before the end, and one at the end, when nobody is there any more."""
    series = served.series
    kept = series.t_s < ended_s
    begun = np.isfinite(served.first_token_s)
    totals = (int(prompt_tokens[begun].sum()), int(served.generated.sum()), int(served.preemptions.sum()))
    columns = (series.running, series.waiting, series.blocks_used, series.prompt_tokens, series.generation_tokens,
               series.preemptions)  # fmt: skip
    ends = (0, 0, 0, *totals)
    return ServerSeries(
        np.append(series.t_s[kept], ended_s),
        *(np.append(column[kept], end) for column, end in zip(columns, ends, strict=True)),
    )
