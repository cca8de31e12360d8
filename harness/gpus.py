"""Which GPUs a run watches, what is said about them, and what becomes of their faults."""

from pathlib import Path
from typing import Any

from yarl import URL

from harness.spec import RunSpec
from harness.targets.base import Identity, Target
from harness.telemetry.gpu import GpuSource, gpu_source
from reports.manifest import Manifest
from workloads.errors import UserError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Of what a GPU tells about itself, what belongs into a fingerprint.
_FACTS = ("name", "memory_bytes", "power_limit_w", "max_sm_clock_mhz", "max_mem_clock_mhz")


async def look_for_gpus(
    spec: RunSpec, identity: Identity, target: Target, run_dir: Path, manifest: Manifest
) -> GpuSource | None:
    """The source that will be sampled; None if there is nothing to sample. The manifest says what was found.

    Raises:
        UserError: GPUs were asked for by name and can't be had.
    """
    wanted = spec.telemetry.gpu
    asked_for = wanted != "auto"
    if not asked_for and spec.target.kind == "sim":
        return None
    pids = list(target.processes().values())
    local = bool(pids) or URL(identity.urls[0]).host in _LOOPBACK
    source = gpu_source(wanted, spool=run_dir / "spool" / "gpu.arrows", pids=pids, local=local)
    if source is None:
        if not asked_for:
            manifest.notices.append(
                "no GPU figures: the target runs elsewhere; name its DCGM exporter (telemetry: {gpu: dcgm:URL})"
            )
        return None
    found = await source.start()
    if not found.gpus:
        await source.stop()
        if asked_for:
            raise UserError(f"no GPU can be watched: {found.problem}", where="telemetry.gpu")
        manifest.notices.append(f"no GPU figures: {found.problem}")
        return None
    manifest.notices += found.notices
    manifest.telemetry["gpu"] = {"source": wanted, "driver": found.driver, "gpus": found.gpus}
    manifest.target.fingerprint["gpus"] = [
        {name: gpu[name] for name in _FACTS if gpu.get(name)} for gpu in found.gpus if not gpu.get("parent")
    ]
    if found.driver:
        manifest.target.fingerprint["gpu_driver"] = found.driver
    return source


def gpu_events(source: GpuSource, t0_unix_ns: int) -> list[dict[str, Any]]:
    """The faults as events on the run's clock."""
    return [
        {"t_ns": fault["unix_ns"] - t0_unix_ns, "kind": "gpu", "text": f"{fault['gpu']} {fault['text']}".strip()}
        for fault in source.faults
    ]
