"""A run on a virtual clock, from spec to run directory; or to its figures, without a file."""

import datetime
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.engine.config import as_dict
from tailgate.harness.engine.server.api import VERSION
from tailgate.harness.load.listener import Watcher
from tailgate.harness.run import run_directory
from tailgate.harness.run.preflight import admit, with_context
from tailgate.harness.run.prepare import first_manifest
from tailgate.harness.run.virtual.simulate import SimulatedRun, simulate
from tailgate.harness.targets.base import Identity
from tailgate.harness.targets.inspect.fingerprint import resolved_settings
from tailgate.harness.targets.sim import SimDeployment, sim_deployment
from tailgate.reports.metrics.analysis import analyse_run
from tailgate.reports.rundir.collect import requests_of
from tailgate.reports.rundir.events import append_event
from tailgate.reports.rundir.manifest import Manifest, checksums
from tailgate.reports.rundir.run import Run
from tailgate.reports.summary.model import Summary
from tailgate.reports.summary.summary import summary_of
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.plan.plan import Plan, make_plan, write_plan
from tailgate.workloads.table.hashing import plan_hash

_NOTICE: Final = "virtual clock: no load generator and no network took part, so nothing is late but the server"


def execute_virtual(spec: RunSpec, out: Path | None, command_line: list[str], watcher: Watcher) -> Path:
    """Simulate a run; its directory is returned, holding everything but the documents.

    Raises:
        UserError: something is wrong with the spec, or it asks for what there is in real time only.
    """
    refuse_unsimulated(spec)
    with run_directory.new_run_directory(out, spec.name) as made:
        spec, deployment, plan, notices = planned(spec)
        watcher.note(f"simulating {plan.table.num_rows:,} requests on a virtual clock")
        began = time.monotonic()
        run = simulate(plan, deployment, spec)
        took = time.monotonic() - began
        watcher.note(f"simulated {run.ended_ns / 1e9:,.0f} s in {took:.1f} s")
        manifest = manifest_of(spec, plan, deployment, run, made.path.name, command_line, notices)
        made.keep()
        run_directory.release(made.path)
        _write(made.path, plan, run, manifest)
        return made.path


def figures(spec: RunSpec, *, arrivals: bool = True) -> Summary:
    """The summary of a simulated run, without files."""
    refuse_unsimulated(spec)
    spec, deployment, plan, notices = planned(spec)
    return figures_of(spec, plan, deployment, arrivals=arrivals, notices=notices)


def figures_of(
    spec: RunSpec, plan: Plan, deployment: SimDeployment, *, arrivals: bool = True, notices: tuple[str, ...] = ()
) -> Summary:
    """The same, of a plan and a deployment that are there already."""
    run = simulate(plan, deployment, spec, arrivals=arrivals)
    manifest = manifest_of(spec, plan, deployment, run, spec.name, [], notices)
    return summary_of(analyse_run(Run.in_memory(manifest, tables(run, manifest, plan))))


def refuse_unsimulated(spec: RunSpec) -> None:
    """UserError for what a run on a virtual clock can't have, by name."""
    if spec.target.kind != "sim":
        raise UserError(
            f"a target of kind {spec.target.kind} has no virtual clock", where="target.clock",
            remedy="Only the embedded engine can be simulated: --target sim:GPU/MODEL.",
        )  # fmt: skip
    workload = spec.workload
    asked = {
        "workload.locustfile": workload.locustfile is not None,
        "workload.content: replay": workload.content.kind == "replay",
        "streamed: false": not spec.streamed,
        "abort_if": bool(spec.abort_if),
        "workers": spec.workers is not None,
        "ui": spec.ui is not None,
        "cache: warm": spec.cache == "warm" and not workload.warmup,
    }
    for where, wanted in asked.items():
        if wanted:
            raise UserError(
                "is not simulated on a virtual clock", where=where, remedy="Leave it out, or run in real time."
            )


def planned(spec: RunSpec) -> tuple[RunSpec, SimDeployment, Plan, tuple[str, ...]]:
    """The spec with the engine's context, the deployment, the plan, and what a reader should know."""
    assert spec.target.sim is not None
    deployment = sim_deployment(spec.target.sim, spec.target.args, spec.seed)
    identity = identity_of(deployment)
    spec = with_context(spec, identity)
    plan = make_plan(spec.workload, spec.seed)
    return spec, deployment, plan, (_NOTICE, *admit(spec, plan, identity))


def identity_of(deployment: SimDeployment) -> Identity:
    """What the engine would say that it is."""
    resolved = deployment.resolved
    facts: dict[str, Any] = {
        "served_model": resolved.model_name,
        "replicas": deployment.address.replicas,
        "max_model_len": resolved.max_model_len,
        "config": resolved_settings(as_dict(resolved)),
        "config_source": "the engine's own settings",
    }
    if deployment.address.replicas > 1:
        facts["router"] = deployment.address.router
    return Identity(
        deployment.names, resolved.model_name, (resolved.model_name,), "vllm", VERSION, resolved.max_model_len,
        simulated=True, fingerprint=facts,
    )  # fmt: skip


def manifest_of(
    spec: RunSpec, plan: Plan, deployment: SimDeployment, run: SimulatedRun, name: str, command_line: list[str],
    notices: tuple[str, ...],
) -> Manifest:  # fmt: skip
    """The manifest of a complete run."""
    identity = identity_of(deployment)
    manifest = first_manifest(spec, plan, identity, Path(name), command_line)
    resolved = deployment.resolved
    blocks, size = resolved.num_gpu_blocks, resolved.settings.block_size
    manifest.target.urls = list(deployment.names)
    manifest.target.memory = {"kv_blocks": blocks, "kv_block_tokens": size, "kv_cache_tokens": blocks * size}
    manifest.clock = manifest.stamp = "virtual"
    manifest.injectors = 1
    manifest.cache = spec.cache or "isolated"
    manifest.plan_hash = plan_hash(run.plan)
    manifest.users = run.users
    manifest.measure_end_ns = run.measure_end_ns
    manifest.drain_end_ns = run.measure_end_ns + int(spec.drain * 1e9)
    manifest.ended_ns = run.ended_ns
    manifest.state = "complete"
    manifest.duplicates = 0
    manifest.started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    manifest.notices += notices
    return manifest


def tables(run: SimulatedRun, manifest: Manifest, plan: Plan) -> dict[str, Any]:
    """Everything that is measured in a run, by the name of its file."""
    block = {"tailgate.block_tokens": str(plan.block_tokens)}
    found = {
        "plan.parquet": run.plan.replace_schema_metadata(block),
        "requests.parquet": requests_of(run.reported, run.plan, manifest),
        "client.parquet": run.client,
    }
    if run.server.num_rows:
        found["server.parquet"] = run.server
    return found if run.arrivals is None else {**found, "arrivals.parquet": run.arrivals}


def _write(run_dir: Path, plan: Plan, run: SimulatedRun, manifest: Manifest) -> None:
    import pyarrow.parquet as pq

    manifest.t0_unix_ns = time.time_ns()
    for name, table in tables(run, manifest, plan).items():
        if name != "plan.parquet":
            pq.write_table(table, run_dir / name, compression="zstd")
    write_plan(replace(plan, table=run.plan, plan_hash=manifest.plan_hash), run_dir / "plan.parquet")
    for at_s, kind, text in run.happened:
        append_event(run_dir, {"t_ns": round(at_s * 1e9), "kind": kind, "text": text})
    (run_dir / "spool").rmdir()
    manifest.checksums = checksums(run_dir)
    manifest.save(run_dir)
