"""Which GPUs a run watches, what is said about them while it goes on and after, and what becomes of their faults."""

import asyncio
from pathlib import Path
from typing import Any

from yarl import URL

from tailgate.harness.config.masking import without_credentials
from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.engine.server.gpu_page import PATH as SIMULATED_GPUS
from tailgate.harness.load.event_log import EventLog
from tailgate.harness.load.listener import Watcher
from tailgate.harness.targets.base import Identity, Target
from tailgate.harness.telemetry.gpu.sources import GpuSource, Latest, gpu_source
from tailgate.loadgen.loopback import is_loopback
from tailgate.reports.rundir.manifest import Manifest
from tailgate.workloads.common.errors import UserError

_SHOW_S = 1.0
# Of what a GPU tells about itself, what belongs into a fingerprint.
_FACTS = (
    "name", "memory_bytes", "power_limit_w", "max_sm_clock_mhz", "max_mem_clock_mhz", "app_sm_clock_mhz",
    "app_mem_clock_mhz",
)  # fmt: skip


async def look_for_gpus(
    spec: RunSpec, identity: Identity, target: Target, run_dir: Path, manifest: Manifest
) -> GpuSource | None:
    """The source that will be sampled; None if there is nothing to sample. The manifest says what was found."""
    wanted = spec.telemetry.gpu
    asked_for = wanted != "auto"
    if not asked_for and identity.simulated:
        wanted = f"dcgm:{identity.urls[0]}{SIMULATED_GPUS}"
    pids = list(target.processes().values())
    local = bool(pids) or is_loopback(URL(identity.urls[0]).host or "")
    source = gpu_source(wanted, spool=run_dir / "spool" / "gpu.arrows", pids=pids, local=local)
    if source is None:
        if not asked_for:
            manifest.notices.append(
                "no GPU metrics: the target runs elsewhere; name its DCGM exporter (telemetry: {gpu: dcgm:URL})"
            )
        return None
    gpus = await source.start()
    if not gpus.gpus:
        await source.stop()
        if asked_for:
            raise UserError(f"no GPU can be watched: {gpus.problem}", where="telemetry.gpu")
        manifest.notices.append(f"no GPU metrics: {gpus.problem}")
        return None
    simulated = wanted != spec.telemetry.gpu
    if not simulated:  # what simulated GPUs don't tell is nothing to look into
        manifest.notices += gpus.notices
    source_name = "simulated" if simulated else without_credentials(wanted)
    manifest.telemetry["gpu"] = {"source": source_name, "driver": gpus.driver, "gpus": gpus.gpus}
    manifest.target.fingerprint["gpus"] = [
        {name: gpu[name] for name in _FACTS if gpu.get(name)} for gpu in gpus.gpus if not gpu.get("parent")
    ]
    if gpus.topology:
        manifest.target.fingerprint["gpu_topology"] = gpus.topology
    if gpus.driver:
        manifest.target.fingerprint["gpu_driver"] = gpus.driver
    return source


async def show(source: GpuSource, watcher: Watcher, events: EventLog, t0_unix_ns: int) -> None:
    """Tell a person what the GPUs do, and the run's events what befell them, until cancelled."""
    while True:
        events.follow("gpu", gpu_events(source, t0_unix_ns))
        if source.now:
            watcher.gpu(in_words(source.now))
        await asyncio.sleep(_SHOW_S)


def in_words(now: Latest) -> str:
    """All GPUs together: mean utilization, power and memory in sum; what none of them tells is left out."""
    # An instance of MIG has only memory, which is counted with its GPU's.
    whole = [reading for reading in now.values() if reading.keys() & {"utilization", "power_w"}] or list(now.values())
    utilization, power_w, used = (
        [reading[name] for reading in whole if name in reading] for name in ("utilization", "power_w", "mem_used_bytes")
    )
    words = ["GPU" if len(whole) == 1 else f"{len(whole)} GPUs"]
    if utilization:
        words.append(f"{100 * sum(utilization) / len(utilization):.0f} %")
    if power_w:
        words.append(f"{sum(power_w):,.0f} W")
    if used:
        words.append(f"{sum(used) / 2**30:,.0f} GiB")
    return " ".join(words)


def gpu_events(source: GpuSource, t0_unix_ns: int) -> list[dict[str, Any]]:
    return [
        {"t_ns": fault["unix_ns"] - t0_unix_ns, "kind": "gpu", "text": f"{fault['gpu']} {fault['text']}".strip()}
        for fault in source.faults
    ]
