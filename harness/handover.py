"""What the Locust process is told of a run: who asks, in which stages, until when, and the injectors' job."""

from typing import Any

from harness.control import Message
from harness.spec import RunSpec
from loadgen.job import Job
from reports.manifest import Manifest

# A closed loop without an end of its own is ended by its number of requests, or by the manifest's measure end.
_FOREVER_NS = 1 << 62


def prepare_message(spec: RunSpec, manifest: Manifest, job: Job) -> Message:
    """The `prepare` message."""
    return {
        "op": "prepare",
        "loop": manifest.loop,
        "stages": _stages(spec),
        "warmup_ns": manifest.warmup_ns,
        "measure_end_ns": manifest.measure_end_ns,
        "drain_ns": job.drain_ns,
        "requests": spec.workload.requests if manifest.loop == "closed" else None,
        "job": job.to_dict(),
    }


def _stages(spec: RunSpec) -> list[dict[str, Any]]:
    """Users over the measure phase; empty for an open loop."""
    workload = spec.workload
    if workload.stages:
        return [
            {"users": stage.users, "for_ns": int(stage.for_ * 1e9), "ramp_ns": int(stage.ramp * 1e9)}
            for stage in workload.stages
        ]
    return [{"users": workload.users, "for_ns": _FOREVER_NS}] if workload.users else []
