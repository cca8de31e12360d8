"""What the Locust process is told of a run: who asks, in which stages, until when, and the injectors' job."""

from typing import Any

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.load.distributed import key_order
from tailgate.harness.load.locust_process import Message
from tailgate.harness.load.locustfiles import order_for_workers
from tailgate.loadgen.job import Job
from tailgate.reports.rundir.manifest import Manifest
from tailgate.workloads.plan.plan import Plan

# A closed loop without an end of its own is ended by its number of requests, or by the manifest's measure end.
_FOREVER_NS = 1 << 62


def prepare_message(spec: RunSpec, plan: Plan, manifest: Manifest, job: Job) -> Message:
    """The `prepare` message."""
    return {
        "op": "prepare",
        "loop": manifest.loop,
        "stages": _stages(spec),
        "warmup_ns": manifest.warmup_ns,
        "measure_end_ns": manifest.measure_end_ns,
        "drain_ns": job.drain_ns,
        "requests": spec.workload.requests if manifest.loop == "closed" else None,
        "job": {**job.to_dict(), "by_class": spec.ui is not None},
        "plan": _plan_order(spec, plan),
        "key": key_order(spec),
        "locustfile": order_for_workers(spec),
    }


def _plan_order(spec: RunSpec, plan: Plan) -> dict[str, Any]:
    """How a worker gets the plan: from spec and seed, or, where that needs files of this machine, as a file."""
    if spec.workload.locustfile is not None:
        return {"how": "none"}
    if spec.workload.trace is not None or spec.workload.content.file is not None:
        return {"how": "file", "hash": plan.plan_hash}
    workload = spec.workload.model_dump(mode="json", exclude_none=True)
    return {"how": "spec", "hash": plan.plan_hash, "workload": workload, "seed": spec.seed}


def _stages(spec: RunSpec) -> list[dict[str, Any]]:
    """Users over the measure phase; empty for an open loop."""
    workload = spec.workload
    if workload.stages:
        return [
            {"users": stage.users, "for_ns": int(stage.for_ * 1e9), "ramp_ns": int(stage.ramp * 1e9)}
            for stage in workload.stages
        ]
    return [{"users": workload.users, "for_ns": _FOREVER_NS}] if workload.users else []
