"""The GPUs over the steady window: power, clocks, utilization, throttling, memory, energy.

Read from `gpu.parquet`; sampling is `harness.telemetry`. Energy is the difference of NVML's counter where
there is one, checked against the integral of power; both cautions of docs/metrics.md on short windows hold.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.rundir.telemetry import Series, Telemetry, longest_gap_s

# NVML clocksEventReasons (nvml.h): heat and the power brake, of which the hardware itself slows down ...
HARDWARE: Final = {0x40: "hardware thermal slowdown", 0x80: "hardware power brake"}
# ... and what the driver does against heat, or what names no cause (it comes with a change of state, too).
MILD: Final = {0x08: "hardware slowdown", 0x20: "software thermal slowdown"}
SLOWDOWN: Final = MILD | HARDWARE
POWER_CAP: Final = 0x04
# Shorter windows mislead: the counter moves every 100 ms, and sensors of some GPUs see a part of the time.
ENERGY_WINDOW_S: Final = 30.0
AGREEMENT: Final = 0.05
# The most of a window that the counter may leave open at its edges: it is read once a second.
_UNCOUNTED: Final = 0.1


@dataclass(frozen=True)
class GpuView:
    """One GPU (or MIG instance) over the steady window; None where it doesn't tell."""

    gpu: str  # UUID
    parent: str | None  # of a MIG instance the whole GPU's UUID, which stands for its power and energy too
    # power_w, sm_clock_mhz, utilization, mem_used_bytes: time-weighted means (utilization says that some kernel ran,
    # not how full the GPU was)
    power_w: float | None
    sm_clock_mhz: float | None
    utilization: float | None
    mem_used_bytes: float | None
    mem_peak_bytes: float | None
    temperature_max_c: float | None  # largest sample
    slowdown_share: float | None  # share of the window with a hardware thermal or power-brake slowdown (HARDWARE)
    mild_slowdown_share: float | None  # share of the window with one of MILD only
    slowdown_reasons: tuple[str, ...]  # which of both
    power_cap_share: float | None  # share of the window at the power limit
    energy_j: float | None  # energy, by the counter where it has one, else by integrating power
    energy_source: str  # `counter` or `power`
    energy_disagreement: float | None  # |counter - integral of power| / counter
    gap_s: float  # longest pause between samples in the window


def gpu_views(analysis: Analysis) -> list[GpuView]:
    """Every sampled GPU; empty if none was."""
    telemetry, (start, end) = analysis.gpu, analysis.run.window_ns
    if telemetry is None or end <= start:
        return []
    names = sorted({source.key[0] for name in telemetry.names for source in telemetry.series(name)})
    sampled = (analysis.run.manifest.telemetry.get("gpu") or {}).get("gpus") or []
    parents = {source.get("uuid"): source.get("parent") for source in sampled}
    return [_view(telemetry, gpu, parents.get(gpu), start, end) for gpu in names]


def whole_gpus(views: list[GpuView]) -> list[GpuView]:
    return [view for view in views if view.parent is None]


def _view(telemetry: Telemetry, gpu: str, parent: str | None, start: int, end: int) -> GpuView:
    def of(name: str) -> Series | None:
        return next((source for source in telemetry.series(name) if source.key[0] == gpu), None)

    def mean(name: str) -> float | None:
        return source.mean(start, end) if (source := of(name)) else None

    def most(name: str) -> float | None:
        return source.most(start, end) if (source := of(name)) else None

    energy, source, apart = _energy(of("energy_j"), of("power_w"), start, end)
    slow, mild, reasons, capped = _throttling(of("throttle_reasons"), start, end)
    sampled = of("power_w") or of("sm_clock_mhz") or of("utilization") or of("mem_used_bytes")
    return GpuView(
        gpu=gpu,
        parent=parent,
        power_w=mean("power_w"),
        sm_clock_mhz=mean("sm_clock_mhz"),
        utilization=mean("utilization"),
        mem_used_bytes=mean("mem_used_bytes"),
        mem_peak_bytes=most("mem_used_bytes"),
        temperature_max_c=most("temperature_c"),
        slowdown_share=slow,
        mild_slowdown_share=mild,
        slowdown_reasons=reasons,
        power_cap_share=capped,
        energy_j=energy,
        energy_source=source,
        energy_disagreement=apart,
        gap_s=longest_gap_s(sampled.t_ns, start, end) if sampled else (end - start) / 1e9,
    )


def _energy(
    counter: Series | None, power: Series | None, start: int, end: int
) -> tuple[float | None, str, float | None]:
    """(Joules, by what, how far counter and power are apart).

    What of the window lies before the counter's first reading or behind its last is filled in from power; where that
    is more than `_UNCOUNTED` of it, or there is no power, the counter is left out.
    """
    mean = power.mean(start, end) if power else None
    integral = None if mean is None else mean * (end - start) / 1e9
    if counter is None or len(counter.t_ns) < 2:
        return integral, "power" if integral is not None else "", None
    first, last = max(int(counter.t_ns[0]), start), min(int(counter.t_ns[-1]), end)
    uncounted = (end - start) - max(0, last - first)
    if uncounted > _UNCOUNTED * (end - start) or (uncounted and power is None):
        return integral, "power" if integral is not None else "", None
    counted = counter.delta(first, last)
    if power is not None:
        counted += sum((power.mean(a, b) or 0.0) * (b - a) / 1e9 for a, b in ((start, first), (last, end)) if b > a)
    apart = abs(counted - integral) / counted if integral is not None and counted else None
    return counted, "counter", apart


def _throttling(
    series: Series | None, start: int, end: int
) -> tuple[float | None, float | None, tuple[str, ...], float | None]:
    """Shares of the window: (hardware slowdown, a mild one only, which of them came, at the power limit)."""
    if series is None or series.t_ns[0] >= end:
        return None, None, (), None
    edges = np.clip(np.append(series.t_ns, max(end, int(series.t_ns[-1]))), start, end)
    weight = np.diff(edges) / (end - start)
    bits = series.values.astype(np.int64)

    def share(wanted: int, without: int = 0) -> float:
        return float(weight[((bits & wanted) != 0) & ((bits & without) == 0)].sum())

    reasons = tuple(name for bit, name in SLOWDOWN.items() if share(bit) > 0)
    return share(sum(HARDWARE)), share(sum(MILD), without=sum(HARDWARE)), reasons, share(POWER_CAP)
