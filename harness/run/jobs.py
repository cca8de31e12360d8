"""What the load generator is told of a run: the injectors' jobs, and the message that has Locust prepare for them.

Afterwards, the rows that a closed loop added to its plan.
"""

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

from tailgate.harness.config.run_spec import RunSpec, trust_of
from tailgate.harness.load.distributed import key_order
from tailgate.harness.load.locust_process import Message, locustfile_message
from tailgate.harness.run.own_requests import with_form
from tailgate.harness.run.preflight import adapters
from tailgate.harness.run.prompt_content import Prompts
from tailgate.harness.run.request_form import RequestForm
from tailgate.harness.targets.base import Identity
from tailgate.loadgen.job import Job
from tailgate.reports.rundir.manifest import Manifest
from tailgate.workloads.plan.plan import Plan, write_plan
from tailgate.workloads.table.columns import PLAN_SCHEMA
from tailgate.workloads.table.hashing import plan_hash

# However short the drain: a server may take this long for a first token.
_LEAST_STALL_S = 10.0
# A closed loop without an end of its own is ended by its number of requests, or by the manifest's measure end.
_FOREVER_NS = 1 << 62


def make_jobs(
    spec: RunSpec,
    plan: Plan,
    manifest: Manifest,
    identity: Identity,
    form: RequestForm,
    prompts: Prompts,
    run_dir: Path,
    key: dict[str, str],
) -> list[Job]:
    """One job for each injector; ``key`` is the header with the API key."""
    job = Job(
        plan=str((run_dir / "plan.parquet").resolve()),
        spool=str((run_dir / "spool").resolve()),
        injector=0,
        injectors=spec.injector_count,
        loop="locustfile" if spec.workload.locustfile is not None else plan.loop,
        urls=identity.urls,
        api=spec.target.endpoint,
        model=identity.model,
        dialect=identity.dialect,
        adapters=adapters(spec, identity),
        headers={**spec.target.headers, **key},
        trust=trust_of(spec),
        balance=spec.target.balance,
        delayed_acks=spec.target.delayed_acks,
        timeout_ns=_ns(spec.timeout),
        measure_end_ns=manifest.measure_end_ns,
        drain_ns=int(spec.drain * 1e9),
        stall_ns=_stall_ns(spec, plan),
        run_nonce=secrets.token_hex(4),
        answers=_with_memory(spec),
        extend_plan=_extension(spec, plan),
        patience=str(spec.abandon.patience) if spec.abandon else None,
        patience_share=spec.abandon.share if spec.abandon else 1.0,
        patience_seed=spec.seed,
    )
    shared = with_form(job, spec, identity, form, prompts)
    return [shared.for_injector(k) for k in range(shared.injectors)]


def _with_memory(spec: RunSpec) -> tuple[str, ...]:
    """Classes whose sessions send the model's own answers back."""
    kinds = {} if spec.workload.locustfile is not None else spec.workload.class_specs()
    return tuple(name for name, kind in kinds.items() if kind.sessions and kind.sessions.history == "answers")


def _extension(spec: RunSpec, plan: Plan) -> dict[str, Any] | None:
    """How an injector gets more rows of a closed loop's endless plan than the file holds."""
    if plan.loop == "open" or spec.workload.locustfile is not None:
        return None
    return {"workload": spec.workload.model_dump(mode="json", exclude_none=True), "seed": spec.seed}


def prepare_message(spec: RunSpec, plan: Plan, manifest: Manifest, job: Job) -> Message:
    """The `prepare` message: who sends, in which stages, until when, and the injectors' job."""
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
        "locustfile": locustfile_message(spec, for_workers=True),
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


def extend_plan(spec: RunSpec, plan: Plan, run_dir: Path) -> None:
    """Add to the plan's file the rows that a closed loop has started beyond it."""
    if plan.loop == "open" or spec.workload.locustfile is not None:
        return
    import pyarrow as pa
    import pyarrow.compute as pc

    from tailgate.reports.rundir.spool import spool_files, whole_batches
    from tailgate.workloads.plan.plan import closed_rows

    have = plan.table.num_rows
    batches = (batch for path in spool_files(run_dir, "injector").values() for batch in whole_batches(path))
    last = max((pc.max(batch["index"]).as_py() for batch in batches), default=-1)
    if last >= have:
        more = closed_rows(spec.workload, spec.seed, have, last + 1 - have)
        table = pa.concat_tables([plan.table, more]).cast(PLAN_SCHEMA)
        write_plan(replace(plan, table=table, plan_hash=plan_hash(table)), run_dir / "plan.parquet")


def _stall_ns(spec: RunSpec, plan: Plan) -> int | None:
    """A closed loop that ends by a number of requests waits no longer for a silent server than a drain would."""
    counted = plan.loop == "closed" and spec.workload.requests is not None
    return int(max(spec.drain, _LEAST_STALL_S) * 1e9) if counted else None


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1e9)
