"""The workload as it was sent: rate, burstiness, lengths, reuse, each beside what was planned.

Index of dispersion: variance over mean of the arrivals counted in windows of one length; a Poisson process
has 1 at every length (D. R. Cox, P. A. W. Lewis, The Statistical Analysis of Series of Events, 1966).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reports.analysis import Analysis
from reports.rundata import Floats, Ints, planned_reuse

WINDOWS_S: Final = (1, 10, 60)
# Fewer windows than this say nothing about a variance.
_LEAST_WINDOWS: Final = 8


@dataclass(frozen=True)
class Dispersion:
    """Index of dispersion at one window length, as planned and as sent, with the sampling interval of Poisson.

    A Poisson process of as many windows would fall into [poisson_low, poisson_high] in 95 of 100 cases.
    """

    window_s: int
    planned: float | None
    sent: float | None
    poisson_low: float
    poisson_high: float


@dataclass(frozen=True)
class Workload:
    """What was sent in the measure phase.

    Attributes:
        planned_rps, sent_rps: open loop: due and dispatched requests per second; closed: dispatched.
        gap_cv_planned, gap_cv_sent: coefficient of variation of the gaps between requests (Poisson: 1).
        dispersion: at WINDOWS_S, where the run holds enough windows.
        prompt_ks, output_ks: Kolmogorov-Smirnov distance of lengths by usage from those planned.
        mismatched: ok requests whose output length is not the planned one.
        planned_reuse: share of planned prompt tokens in blocks seen before; None if the plan has no blocks.
        cached_share: share of prompt tokens that the server found in its cache; None if it doesn't tell.
    """

    planned_rps: float | None
    sent_rps: float | None
    gap_cv_planned: float | None
    gap_cv_sent: float | None
    dispersion: tuple[Dispersion, ...]
    prompt_ks: float | None
    output_ks: float | None
    mismatched: int
    planned_reuse: float | None
    cached_share: float | None


def workload_as_sent(analysis: Analysis) -> Workload:
    """Compare what was sent with what was planned."""
    run = analysis.run
    start, end = run.window_ns
    planned = _inside(run.column("scheduled_ns")[run.measured], start, end)
    sent = _inside(run.column("dispatched_ns")[run.measured], start, end)
    seconds = run.duration_s
    ok = run.ok & run.measured
    output, wanted = run.column("output_tokens")[ok], run.column("output_tokens_planned")[ok]
    return Workload(
        planned_rps=len(planned) / seconds if seconds and run.manifest.loop == "open" else None,
        sent_rps=len(sent) / seconds if seconds else None,
        gap_cv_planned=gap_cv(planned),
        gap_cv_sent=gap_cv(sent),
        dispersion=tuple(
            found for window in WINDOWS_S if (found := _dispersion(planned, sent, start, end, window)) is not None
        ),
        prompt_ks=ks_distance(run.column("prompt_tokens")[ok], run.column("prompt_tokens_planned")[ok]),
        output_ks=ks_distance(output, wanted),
        mismatched=int(np.count_nonzero(output[np.isfinite(output)] != wanted[np.isfinite(output)])),
        planned_reuse=planned_reuse(analysis.run),
        cached_share=_cached_share(analysis),
    )


def _inside(times_ns: Floats, start: int, end: int) -> Floats:
    known = times_ns[np.isfinite(times_ns)]
    return np.sort(known[(known >= start) & (known < end)])


def gap_cv(times_ns: Floats) -> float | None:
    """Standard deviation over mean of the gaps between rising times; None below ten of them."""
    gaps = np.diff(times_ns)
    return float(gaps.std() / gaps.mean()) if len(gaps) >= 10 and gaps.mean() > 0 else None


def index_of_dispersion(times_ns: Floats, start: int, end: int, window_s: float) -> float | None:
    """Variance over mean of the counts in whole windows; None without enough windows or any arrival."""
    windows = int((end - start) / (window_s * 1e9))
    if windows < _LEAST_WINDOWS:
        return None
    slots = ((times_ns - start) / (window_s * 1e9)).astype(np.int64)
    counts = np.bincount(slots[slots < windows], minlength=windows)
    return float(counts.var(ddof=1) / counts.mean()) if counts.any() else None


def _dispersion(planned: Floats, sent: Floats, start: int, end: int, window_s: int) -> Dispersion | None:
    windows = int((end - start) / (window_s * 1e9))
    if windows < _LEAST_WINDOWS:
        return None
    # For Poisson counts (n - 1) I is about chi-square with n - 1 degrees; Wilson and Hilferty (1931).
    df = windows - 1
    low, high = ((1 - 2 / (9 * df) + z * np.sqrt(2 / (9 * df))) ** 3 for z in (-1.959964, 1.959964))
    one, two = (index_of_dispersion(times, start, end, window_s) for times in (planned, sent))
    return Dispersion(window_s, one, two, float(low), float(high))


def ks_distance(a: Floats, b: Floats) -> float | None:
    """Largest distance between two empirical distribution functions; None where one is empty."""
    a, b = np.sort(a[np.isfinite(a)]), np.sort(b[np.isfinite(b)])
    if not len(a) or not len(b):
        return None
    points = np.union1d(a, b)
    return float(
        np.abs(np.searchsorted(a, points, "right") / len(a) - np.searchsorted(b, points, "right") / len(b)).max()
    )


def _cached_share(analysis: Analysis) -> float | None:
    ok = analysis.run.ok & analysis.run.measured
    cached, prompt = analysis.run.column("cached_tokens")[ok], analysis.run.column("prompt_tokens")[ok]
    known = np.isfinite(cached) & np.isfinite(prompt)
    total = prompt[known].sum()
    return float(cached[known].sum() / total) if total else None


def lengths(analysis: Analysis, name: str) -> tuple[Floats, Ints]:
    """(values, counts) of a length column over the measure phase, values rising."""
    values = pa.array(analysis.run.column(name)[analysis.run.measured])
    counted = pc.value_counts(values.filter(pc.is_finite(values)))
    found = counted.field("values").to_numpy()
    order = np.argsort(found)
    return found[order], counted.field("counts").to_numpy()[order]
