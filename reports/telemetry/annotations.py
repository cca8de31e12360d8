"""What the samples say happened, on the run's timeline: restarts, cold starts, scale events, preemptions, throttling.

Pure: from telemetry to events. Deaths, GPU faults and people's marks are booked where they happen.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from tailgate.reports.rundir.replicas import several_behind, without
from tailgate.reports.rundir.telemetry import Series, Telemetry, labels_of
from tailgate.reports.telemetry.gpu import SLOWDOWN

# Fewer preemptions than this within a burst are the ordinary life of a full cache.
_BURST: Final = 5
_QUIET_S: Final = 3.0  # a pause of this length ends a burst
_MASK: Final = sum(SLOWDOWN)

Event = dict[str, Any]


def annotations(server: Telemetry | None, gpu: Telemetry | None, several: Sequence[str] = ()) -> list[Event]:
    """All events that the samples show, in the order of time; each `{t_ns, kind, text}`.

    Of a URL behind which several servers answer (`several`: known from before the load) only outages are told.
    """
    events: list[Event] = []
    if server is not None:
        server = without(server, {*several, *several_behind(server)})
        events += [*_answering(server), *_restarts(server), *_engines(server), *_preemptions(server)]
    if gpu is not None:
        events += _throttling(gpu)
    return sorted(events, key=lambda event: int(event["t_ns"]))


def _event(t_ns: float, kind: str, text: str) -> Event:
    return {"t_ns": int(t_ns), "kind": kind, "text": text}


def _changes(series: Series) -> Iterator[tuple[int, float, float]]:
    """(time, before, after) wherever a gauge's value changes."""
    for at in np.flatnonzero(np.diff(series.values)) + 1:
        yield int(series.t_ns[at]), float(series.values[at - 1]), float(series.values[at])


def _answering(server: Telemetry) -> Iterator[Event]:
    """Endpoints that stop or begin to answer, with how many of all do so then.

    One that comes back as another process, or was not there before, had a cold start.
    """
    every = server.series("up")
    births = {endpoint.key[0]: endpoint for endpoint in server.series("process_start_time_seconds")}
    for endpoint in every:
        gone_ns = endpoint.t_ns[0]
        for t_ns, _, now in _changes(endpoint):
            there = sum((other.before(t_ns) or 0) > 0 for other in every)
            answering = f"{there} of {len(every)} endpoints do"
            birth = births.get(endpoint.key[0])
            if not now:
                gone_ns = t_ns
                yield _event(t_ns, "scale", f"{endpoint.key[0]} no longer answers /metrics: {answering}")
            elif birth is not None and birth.before(t_ns - 1) != birth.before(t_ns):
                away = f"after {(t_ns - gone_ns) / 1e9:.1f} s without an answer"
                yield _event(
                    t_ns, "cold-start", f"{endpoint.key[0]} answers /metrics as a new process, {away}: {answering}"
                )
            else:
                yield _event(t_ns, "scale", f"{endpoint.key[0]} answers /metrics again: {answering}")


def _restarts(server: Telemetry) -> Iterator[Event]:
    for endpoint in server.series("process_start_time_seconds"):
        for t_ns, _, _ in _changes(endpoint):
            yield _event(t_ns, "restart", f"{endpoint.key[0]} was restarted: its counters began anew")


def _engines(server: Telemetry) -> Iterator[Event]:
    """Engines (the `engine` label) that appear later than their endpoint's first, or vanish before its last."""
    running = server.series("vllm:num_requests_running")
    for endpoint in sorted({source.key[0] for source in running}):
        own = [source for source in running if source.key[0] == endpoint]
        first, last = min(o.t_ns[0] for o in own), max(o.t_ns[-1] for o in own)
        for source in own:
            engine = labels_of(source).get("engine", "?")
            if source.t_ns[0] > first:
                yield _event(source.t_ns[0], "scale", f"{endpoint}: engine {engine} appeared")
            if source.t_ns[-1] < last:
                yield _event(source.t_ns[-1], "scale", f"{endpoint}: engine {engine} is gone")


def _preemptions(server: Telemetry) -> Iterator[Event]:
    """Bursts: preemptions with less than `_QUIET_S` between them."""
    for source in server.first("vllm:num_preemptions_total"):
        grown = np.diff(source.growth(), prepend=0.0)
        hits = np.flatnonzero(grown > 0)
        if not len(hits):
            continue
        breaks = np.flatnonzero(np.diff(source.t_ns[hits]) > _QUIET_S * 1e9) + 1
        for burst in np.split(hits, breaks):
            count = grown[burst].sum()
            if count >= _BURST:
                # They fell into the interval that ends with the first sample that shows them.
                begin, end = source.t_ns[max(burst[0] - 1, 0)], source.t_ns[burst[-1]]
                text = f"{source.key[0]}: {count:.0f} preemptions in {(end - begin) / 1e9:.1f} s"
                yield _event(begin, "preemption", text)


def _throttling(gpu: Telemetry) -> Iterator[Event]:
    for source in gpu.series("throttle_reasons"):
        reasons = source.values.astype(np.int64) & _MASK
        for at in np.flatnonzero(np.diff(reasons, prepend=0)):
            names = ", ".join(text for bit, text in SLOWDOWN.items() if int(reasons[at]) & bit)
            text = f"throttled: {names}" if names else "no longer throttled"
            yield _event(source.t_ns[at], "throttle", f"{source.key[0]} {text}")
