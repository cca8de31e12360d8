"""The deployment's start and end, and its GPU memory: from the manifest's `target.life` and from `gpu.parquet`.

Cold start: phases without gaps, so that they add up. Memory: what the server's log says of weights, graphs and
cache, and what NVML says of each GPU before the start, when the server was up, at most in the run, and after the end.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.rundir.telemetry import Telemetry

PROCESS = "process_mem_bytes:"


@dataclass(frozen=True)
class Lifecycle:
    """A deployment that we started and stopped; seconds."""

    ready_s: float  # from the spawn until it answered; the sum of `phases`
    phases: dict[str, float]
    details: dict[str, float]  # figures of its log: model_load_s, engine_init_s, ...
    stop_s: float | None = None  # from SIGTERM until it, its children and its port were gone
    killed: bool = False  # SIGTERM was not enough
    exit_code: int | None = None
    # port_free, memory_back_s: see `harness.targets.base.Life`
    port_free: bool | None = None
    memory_back_s: float | None = None


@dataclass(frozen=True)
class GpuMemoryUse:
    """One GPU's memory in bytes; None where it wasn't seen."""

    gpu: str
    total: float | None = None
    # before_start, loaded, after_stop: used before the server's start, when it was up, after its end
    before_start: float | None = None
    loaded: float | None = None
    after_stop: float | None = None
    taken: float | None = None  # loaded - before_start
    peak: float | None = None  # most used in the run
    headroom: float | None = None  # least free in the run
    reserved: float | None = None  # most that the driver and firmware kept for themselves
    processes: float | None = None  # most that processes held in sum; what is used beyond it is nobody's by name


@dataclass(frozen=True)
class DeploymentMemory:
    """Where GPU memory goes. `server`: of its log and metrics: model_gib, graph_gib, kv_cache_gib, kv_blocks, ..."""

    server: dict[str, float] = field(default_factory=dict)
    gpus: tuple[GpuMemoryUse, ...] = ()


def lifecycle(manifest: Manifest) -> Lifecycle | None:
    """Start and end of a deployment; None for one that we did not start."""
    life = manifest.target.life
    if not life.get("phases"):
        return None
    return Lifecycle(**{name: life[name] for name in Lifecycle.__dataclass_fields__ if name in life})


def deployment_memory(manifest: Manifest, telemetry: Telemetry | None) -> DeploymentMemory | None:
    """GPU memory of the deployment; None where nothing is known of it."""
    server, over_life = manifest.target.memory, manifest.target.life.get("vram") or {}
    sampled = set(_gpus(telemetry)) if telemetry is not None else set()
    # Of all GPUs that were seen at the start, those of the deployment: sampled in the run, or with memory taken.
    gpus = tuple(_memory(gpu, over_life.get(gpu, {}), telemetry) for gpu in sorted(sampled or over_life))
    return DeploymentMemory(server, gpus) if server or gpus else None


def _gpus(telemetry: Telemetry) -> Iterator[str]:
    for source in telemetry.series("mem_used_bytes"):
        yield source.key[0]


def _memory(gpu: str, life: dict[str, float], telemetry: Telemetry | None) -> GpuMemoryUse:
    def extreme(name: str, choose: Any) -> float | None:
        values = [source.values for source in (telemetry.series(name) if telemetry else ()) if source.key[0] == gpu]
        return float(choose(np.concatenate(values))) if values else None

    names = telemetry.names if telemetry else ()
    held = [extreme(name, np.max) for name in names if name.startswith(PROCESS)]
    seen = [source for source in held if source is not None]
    before, loaded = life.get("before_start"), life.get("loaded")
    return GpuMemoryUse(
        gpu=gpu,
        total=life.get("total"),
        before_start=before,
        loaded=loaded,
        after_stop=life.get("after_stop"),
        taken=None if before is None or loaded is None else loaded - before,
        peak=extreme("mem_used_bytes", np.max),
        headroom=extreme("mem_free_bytes", np.min),
        reserved=extreme("mem_reserved_bytes", np.max),
        processes=sum(seen) if seen else None,
    )
