"""The slowest requests of a run, taken apart: what each waited for, and how the server stood at that moment.

Slow is what took longest from its due time to its end, whatever became of it.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from tailgate.reports.metrics.analysis import HOW_MANY, Analysis
from tailgate.reports.metrics.timeline import KV_USAGE, RUNNING, WAITING
from tailgate.reports.rundir.run import slowest_rows
from tailgate.reports.rundir.telemetry import Telemetry

# At most this many of a request's gaps are shown as stalls, each at least that many times its median gap.
_STALLS: Final = 3
_STALL_TIMES: Final = 5.0


@dataclass(frozen=True)
class Slow:
    """One request. Spans are (begin, end) in ms after it was due; None where nothing is known."""

    index: int
    request_id: str
    status: str
    klass: str
    tenant: str
    due_s: float  # when it was due, seconds from the run's start
    prompt_tokens: float | None
    output_tokens: float | None
    ttft_ms: float | None
    e2e_ms: float | None
    longest_gap_ms: float | None
    # by name: `late` (the client's lateness), `connect`, `queue` (as the server reports it), `wait` (sent to first
    # token, less the queue), `tokens`, `tail` (last token to end)
    segments: dict[str, tuple[float, float]] = field(default_factory=dict)
    stalls: tuple[tuple[float, float], ...] = ()  # its longest gaps
    # kv_usage, running, waiting, gpu_clock_mhz: the server's and the GPU's last samples when it was sent
    kv_usage: float | None = None
    running: float | None = None
    waiting: float | None = None
    gpu_clock_mhz: float | None = None


def slowest(analysis: Analysis) -> list[Slow]:
    run = analysis.run
    rows = slowest_rows(run, HOW_MANY)
    due = run.due_ns[rows]
    names = ("dispatched_ns", "sent_ns", "first_token_ns", "last_token_ns", "end_ns", "server_queue_ms")
    columns = {name: run.column(name)[rows] for name in names}
    table = run.requests.take(rows).select(["index", "request_id", "status", "class", "tenant"]).to_pylist()
    requests = []
    for place, (row, texts) in enumerate(zip(rows.tolist(), table, strict=True)):
        times = {name: float(values[place]) for name, values in columns.items()}
        sent = times["sent_ns"] if np.isfinite(times["sent_ns"]) else float(due[place])
        requests.append(
            Slow(
                index=texts["index"],
                request_id=texts["request_id"] or "",
                status=texts["status"],
                klass=texts["class"],
                tenant=texts["tenant"],
                due_s=float(due[place]) / 1e9,
                prompt_tokens=_known(run.column("prompt_tokens")[row]),
                output_tokens=_known(run.column("output_tokens")[row]),
                ttft_ms=_known(analysis.figures.ms["ttft"][row]),
                e2e_ms=_known(analysis.figures.ms["e2e"][row]),
                longest_gap_ms=_known(analysis.figures.ms["stall"][row]),
                segments=_segments(times, float(due[place])),
                stalls=_stalls(analysis.scan.kept.get(row), times["first_token_ns"], float(due[place])),
                kv_usage=_at(analysis.server, KV_USAGE, sent, share=True),
                running=_at(analysis.server, RUNNING, sent),
                waiting=_at(analysis.server, WAITING, sent),
                gpu_clock_mhz=_at(analysis.gpu, ("sm_clock_mhz",), sent, share=True),
            )
        )
    return requests


def _segments(times: dict[str, float], due: float) -> dict[str, tuple[float, float]]:
    """Spans between the events that happened."""
    at = {name: (value - due) / 1e6 for name, value in times.items() if name.endswith("_ns")}
    queue = times["server_queue_ms"]
    first = at["first_token_ns"]
    queued = at["sent_ns"] + (min(queue, first - at["sent_ns"]) if np.isfinite(queue) and np.isfinite(first) else 0.0)
    # Without a first token it waited until its end; without a sending it was in the client's hands.
    spans = {
        "late": (0.0, at["dispatched_ns"]),
        "connect": (at["dispatched_ns"], at["sent_ns"]),
        "queue": (at["sent_ns"], queued),
        "wait": (queued, first if np.isfinite(first) else at["end_ns"]),
        "tokens": (first, at["last_token_ns"]),
        "tail": (at["last_token_ns"], at["end_ns"]),
    }
    return {name: span for name, span in spans.items() if np.isfinite(span).all() and span[1] >= span[0]}


def _stalls(
    arrivals_us: np.ndarray[tuple[int], np.dtype[np.uint32]] | None, first_ns: float, due: float
) -> tuple[tuple[float, float], ...]:
    if arrivals_us is None or len(arrivals_us) < 3:
        return ()
    at = (first_ns - due) / 1e6 + arrivals_us / 1000
    gaps = np.diff(at)
    long = np.argsort(-gaps, kind="stable")[:_STALLS]
    return tuple(
        (float(at[place]), float(at[place + 1])) for place in long if gaps[place] > _STALL_TIMES * np.median(gaps)
    )


def _at(telemetry: Telemetry | None, names: tuple[str, ...], t_ns: float, share: bool = False) -> float | None:
    """The last samples at a time, summed over sources (or averaged, if they are shares)."""
    series = telemetry.first(*names) if telemetry else []
    values = [value for source in series if (value := source.before(t_ns)) is not None]
    return sum(values) / (len(values) if share else 1) if values else None


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
