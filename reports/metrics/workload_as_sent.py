"""The workload as it was sent: rate, burstiness, lengths, reuse, each beside what was planned.

The figures are `workloads.statistics.arrivals`'s and `workloads.statistics.prefix_reuse`'s: the same for a trace, a
plan and a run.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.rundir.run import Run
from tailgate.workloads.common.arrays import Floats, Ints, Mask
from tailgate.workloads.statistics import arrivals

WINDOWS_S: Final = (1, 10, 60)
# Fewer gaps than this say nothing about their variation.
_LEAST_GAPS: Final = 10


@dataclass(frozen=True)
class DispersionAsSent:
    """Index of dispersion at one window length, as planned and as sent.

    A process of which counts in different windows are independent lies in [sent_low, sent_high] with 95 %
    confidence; a Poisson process of as many windows would show [poisson_low, poisson_high] in 95 of 100 cases.
    """

    window_s: int
    planned: float | None
    sent: float | None
    sent_low: float | None
    sent_high: float | None
    poisson_low: float
    poisson_high: float


@dataclass(frozen=True)
class WorkloadAsSent:
    """What was sent in the measure phase."""

    # requests due (of an open loop) and sent inside the steady window, per second
    planned_rps: float | None
    sent_rps: float | None
    # gap_cv_planned, gap_cv_sent: coefficient of variation of the gaps between requests (Poisson: 1)
    gap_cv_planned: float | None
    gap_cv_sent: float | None
    dispersion: tuple[DispersionAsSent, ...]  # at WINDOWS_S, where the run holds enough windows
    # prompt_ks, output_ks: Kolmogorov-Smirnov distance of the ok requests' lengths by usage from those of all requests
    # that were due: a server that drops the long ones shows here
    prompt_ks: float | None
    output_ks: float | None
    # mismatched, prompt_mismatched: ok requests whose output, prompt is not of the planned length
    mismatched: int
    prompt_mismatched: int
    # share of the ok requests' prompt tokens that a cache without limit would have found, in whole blocks of the
    # server's where it tells their length; None if the plan has no blocks
    planned_reuse: float | None
    cached_share: float | None  # share of prompt tokens that the server found in its cache; None if it doesn't tell
    cache_block_tokens: int | None  # the server's block; None where it doesn't tell


def workload_as_sent(analysis: Analysis) -> WorkloadAsSent:
    run = analysis.run
    planned = _inside(run, run.column("scheduled_ns"))
    sent = _inside(run, run.column("dispatched_ns"))
    seconds = run.duration_s
    ok = run.ok & run.measured
    return WorkloadAsSent(
        planned_rps=len(planned) / seconds if seconds and run.manifest.loop == "open" else None,
        sent_rps=analysis.sent_rps,
        gap_cv_planned=_gap_cv(planned),
        gap_cv_sent=_gap_cv(sent),
        dispersion=tuple(
            at_window for window in WINDOWS_S if (at_window := _dispersion(planned, sent, window, seconds)) is not None
        ),
        prompt_ks=_ks(run.column("prompt_tokens")[ok], run.column("prompt_tokens_planned")[analysis.offered]),
        output_ks=_ks(run.column("output_tokens")[ok], run.column("output_tokens_planned")[analysis.offered]),
        mismatched=_mismatched(run, ok, "output_tokens"),
        prompt_mismatched=_mismatched(run, ok, "prompt_tokens"),
        planned_reuse=planned_reuse(run, ok, run.cache_block_tokens or 1),
        cached_share=_cached_share(run, ok),
        cache_block_tokens=run.cache_block_tokens,
    )


def planned_reuse(run: Run, rows: Mask, granularity: int = 1) -> float | None:
    """Share of these requests' planned prompt tokens that earlier ones began with; None if the plan has no blocks."""
    hits, prompt = run.implied_hits(granularity), run.column("prompt_tokens_planned")
    total = float(prompt[rows].sum())
    return float(hits[rows].sum()) / total if hits is not None and total else None


def _inside(run: Run, times_ns: Floats) -> Floats:
    """Rising times of the measured requests inside the steady window, seconds from its start."""
    return np.sort(times_ns[run.measured & run.inside(times_ns)] - run.window_ns[0]) / 1e9


def _gap_cv(times_s: Floats) -> float | None:
    return arrivals.gap_cv(times_s) if len(times_s) > _LEAST_GAPS else None


def _dispersion(planned_s: Floats, sent_s: Floats, window_s: int, span_s: float) -> DispersionAsSent | None:
    sent = arrivals.dispersion(sent_s, window_s, span_s)
    if sent.value is None:
        return None
    planned = arrivals.dispersion(planned_s, window_s, span_s).value
    # For Poisson counts (n - 1) I is about chi-square with n - 1 degrees; Wilson and Hilferty (1931).
    df = sent.windows - 1
    low, high = ((1 - 2 / (9 * df) + z * np.sqrt(2 / (9 * df))) ** 3 for z in (-1.959964, 1.959964))
    return DispersionAsSent(window_s, planned, sent.value, sent.low, sent.high, float(low), float(high))


def _mismatched(run: Run, rows: Mask, name: str) -> int:
    """Requests whose length by usage is known and not the planned one."""
    by_usage, planned = run.column(name)[rows], run.column(f"{name}_planned")[rows]
    return int(np.count_nonzero(np.isfinite(by_usage) & (by_usage != planned)))


def _ks(a: Floats, b: Floats) -> float | None:
    """Distance between two samples' laws, unknown values left out; None where one is empty."""
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    return arrivals.ks_distance(a, b) if len(a) and len(b) else None


def _cached_share(run: Run, rows: Mask) -> float | None:
    cached, prompt = run.column("cached_tokens")[rows], run.column("prompt_tokens")[rows]
    both = np.isfinite(cached) & np.isfinite(prompt)
    total = prompt[both].sum()
    return float(cached[both].sum() / total) if total else None


def lengths(analysis: Analysis, name: str) -> tuple[Floats, Ints]:
    """(values, counts) of a length column over the measure phase, values rising."""
    column = pa.array(analysis.run.column(name)[analysis.run.measured])
    counted = pc.value_counts(column.filter(pc.is_finite(column)))
    values = counted.field("values").to_numpy()
    order = np.argsort(values)
    return values[order], counted.field("counts").to_numpy()[order]
