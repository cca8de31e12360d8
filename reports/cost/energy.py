"""Energy over the steady window, per token and per request, and what it costs and emits where prices are given.

The GPUs' own figures are `reports.telemetry.gpu`; money for GPUs is `reports.cost.cost`.
"""

from dataclasses import dataclass

from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.telemetry.gpu import AGREEMENT, ENERGY_WINDOW_S, GpuView


@dataclass(frozen=True)
class Energy:
    """Energy of all sampled GPUs over the steady window."""

    joules: float
    mean_power_w: float
    j_per_output_token: float | None
    j_per_request: float | None
    usd: float | None  # at the stated price per kWh
    gco2: float | None  # at the stated intensity
    gco2_per_million_output_tokens: float | None
    warnings: tuple[str, ...]  # what the figures should not be trusted for


def energy(
    analysis: Analysis, gpus: list[GpuView], usd_per_kwh: float | None = None, gco2_per_kwh: float | None = None
) -> Energy | None:
    """Add up the GPUs; None if no GPU reports its energy, or the window has no length."""
    each = [gpu.energy_j for gpu in gpus if gpu.energy_j is not None]
    rates, seconds = analysis.throughput, analysis.run.duration_s
    if not each or rates is None:
        return None
    joules = sum(each)
    tokens, requests = rates.output_tokens_per_s * seconds, rates.requests_per_s * seconds
    kwh = joules / 3.6e6
    gco2 = None if gco2_per_kwh is None else kwh * gco2_per_kwh
    return Energy(
        joules=joules,
        mean_power_w=joules / seconds,
        j_per_output_token=joules / tokens if tokens else None,
        j_per_request=joules / requests if requests else None,
        usd=None if usd_per_kwh is None else kwh * usd_per_kwh,
        gco2=gco2,
        gco2_per_million_output_tokens=1e6 * gco2 / tokens if gco2 is not None and tokens else None,
        warnings=tuple(_warnings(gpus, seconds)),
    )


def _warnings(gpus: list[GpuView], seconds: float) -> list[str]:
    warnings = []
    if seconds < ENERGY_WINDOW_S:
        warnings.append(f"a window of {seconds:.0f} s is too short for energy figures (at least {ENERGY_WINDOW_S:.0f})")
    for gpu in gpus:
        if gpu.energy_disagreement is not None and gpu.energy_disagreement > AGREEMENT:
            warnings.append(f"{gpu.gpu}: counter and power disagree by {100 * gpu.energy_disagreement:.0f} %")
        if gpu.parent is not None:
            continue  # its part of the whole GPU's energy, which is in the sum, nobody measures
        if gpu.energy_j is None:
            warnings.append(f"{gpu.gpu}: tells neither energy nor power; it is not in the sum")
        elif gpu.energy_source == "power":
            warnings.append(f"{gpu.gpu}: has no energy counter; energy is the integral of its power samples")
        if gpu.gap_s > 3:
            warnings.append(f"{gpu.gpu}: no sample for {gpu.gap_s:.1f} s")
    return warnings
