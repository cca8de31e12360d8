"""Whether one URL leads to several servers: a balancer that passes `/metrics` through shows another one at each scrape.

Differences of such samples are differences between servers. Nothing is worked out from them.
"""

from collections.abc import Collection
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tailgate.reports.rundir.telemetry import Series, Telemetry
from tailgate.workloads.common.arrays import Mask

_BORN: Final = "process_start_time_seconds"
# Counters that never fall while a process lives. Start times have a resolution of 10 ms, so two replicas may share one.
_NEVER_FALL: Final = (
    "process_cpu_seconds_total", "vllm:prompt_tokens_total", "vllm:generation_tokens_total",
    "vllm:request_success_total", "vllm:iteration_tokens_total_count",
)  # fmt: skip
# Where no start time tells a restart, one fall may be one.
_FALLS: Final = 2


def several_behind(server: Telemetry) -> tuple[str, ...]:
    """The endpoints behind which several servers answer, in order.

    A restart brings a later start time, and counters that begin anew. It is several servers where a start time goes
    back, or counters fall at least twice without a later start time.
    """
    births, counters = server.series(_BORN), [s for name in _NEVER_FALL for s in server.series(name)]
    return tuple(
        endpoint
        for endpoint in sorted({series.key[0] for series in (*births, *counters)})
        if _mixed(_of(births, endpoint), _of(counters, endpoint))
    )


def without(server: Telemetry, endpoints: Collection[str]) -> Telemetry:
    """The samples of the other endpoints; of these, only whether they answered."""
    theirs = pc.is_in(server.table["endpoint"], pa.array(endpoints, pa.string()))
    kept: Any = pc.or_(pc.invert(theirs), pc.equal(server.table["name"], "up"))
    return Telemetry(server.table.filter(kept), server.source)


def _of(series: list[Series], endpoint: str) -> list[Series]:
    return [source for source in series if source.key[0] == endpoint]


def _mixed(births: list[Series], counters: list[Series]) -> bool:
    restarts = {t_ns for birth in births for t_ns in _at(birth, np.diff(birth.values) > 0)}
    falls = {t_ns for counter in counters for t_ns in _at(counter, np.diff(counter.values) < 0)}
    return any((np.diff(birth.values) < 0).any() for birth in births) or len(falls - restarts) >= _FALLS


def _at(series: Series, steps: Mask) -> list[int]:
    """The times of the samples with which these steps end."""
    times: list[int] = series.t_ns[1:][steps].tolist()
    return times
