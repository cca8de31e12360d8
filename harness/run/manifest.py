"""A run's manifest at its start: what is about to be run, on what, within which clock marks."""

import os
from pathlib import Path

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.host.facts import host_facts, versions
from tailgate.harness.targets.base import Identity
from tailgate.loadgen.injector.http.endpoint import public_name
from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.rundir.manifest import TargetRecord as ManifestTarget
from tailgate.workloads.plan.plan import Plan


def first_manifest(spec: RunSpec, plan: Plan, identity: Identity, run_dir: Path, command_line: list[str]) -> Manifest:
    owned = spec.target.kind != "url"
    end_ns = measure_end_ns(spec, plan)
    return Manifest(
        run=run_dir.name,
        name=spec.name,
        state="running",
        tailgate_version=versions()["tailgate"],
        command_line=command_line,
        spec=spec.public(),
        seed=spec.seed,
        plan_hash=plan.plan_hash,
        workload_hash=plan.workload_hash,
        loop=plan.loop,
        warmup_ns=int(spec.workload.warmup * 1e9),
        measure_start_ns=int(spec.workload.warmup * 1e9),
        measure_end_ns=end_ns,
        drain_end_ns=end_ns + int(spec.drain * 1e9),
        target=ManifestTarget(
            kind=spec.target.kind,
            urls=[public_name(url) for url in identity.urls],
            model=identity.model,
            endpoint=spec.target.endpoint,
            simulated=identity.simulated,
            server=identity.dialect,
            version=identity.version,
            fingerprint=identity.fingerprint,
        ),
        host=host_facts(),
        versions=versions(),
        injectors=spec.injector_count,
        notices=list(plan.notices),
        insecure_tls=spec.target.tls.insecure,
        isolation=spec.isolation or ("exclusive" if owned else "shared"),
        cache=spec.cache or "as-is",
        pid=os.getpid(),
    )


def measure_end_ns(spec: RunSpec, plan: Plan) -> int:
    """The planned end of the measure phase: where arrivals were to end, or, ended by a number, just after the last.

    A closed loop that ends by a number of requests has none; an hour bounds it, and the manifest is set right
    when the last request has been asked for.
    """
    if plan.loop == "open":
        return round(plan.span_s * 1e9)
    measured_s = spec.workload.measured_s()
    return round((spec.workload.warmup + (3600.0 if measured_s is None else measured_s)) * 1e9)
