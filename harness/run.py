"""One run, from spec to report: start the target, make the plan, let Locust and the injectors work, watch, report.

    target up, identified -> plan, content -> injectors ready -> first scrape -> go -> drained -> last scrape -> report

The order of things and the clock marks are here; what each step does is elsewhere.
"""

import asyncio
import datetime
import os
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson

from harness import auth, content, distributed, rundir
from harness.abort import KillSwitch
from harness.admission import admit, needs_context, with_context
from harness.annotations import annotations
from harness.begin import first_manifest
from harness.calibrate import store as calibration
from harness.control import Control
from harness.gpus import gpu_events, look_for_gpus, show
from harness.handover import prepare_message
from harness.job import extend_plan, injector_count, make_jobs, trust_of
from harness.load import Listener, Watcher
from harness.settle import settle
from harness.spec import RunSpec
from harness.targets.base import Identity, Target
from harness.targets.caches import prepare_caches
from harness.targets.fingerprint import fingerprint, memory
from harness.targets.make import make_target, served_model
from harness.targets.probe import identify, session
from harness.telemetry.host import HostSampler
from harness.telemetry.server import ServerScraper
from loadgen.injector.endpoint import public_name
from reports.manifest import Manifest
from reports.prices import price_of
from reports.telemetry import read_gpu, read_server
from workloads.plan import Plan, make_plan, write_plan

# Targets that we start and that compile, tune or capture with their first requests.
_COLD_KINDS = ("vllm", "command")
# Between "all are ready" and the run's time zero: the first scrape, and the message's way to the injectors.
_LEAD_NS = 150_000_000


async def execute(
    spec: RunSpec, out: Path | None, command_line: list[str], watcher: Watcher, target: Target | None = None
) -> Path:
    """Do the run; its directory is returned, holding everything but the documents.

    `target` is one that someone else brought up and will take down; without it the spec's own is made.

    Raises:
        UserError: something is wrong with spec, target or environment; no load was sent.
    """
    spec = _priced(spec)
    trust = trust_of(spec)
    credentials = auth.credentials(spec.target)
    switch = KillSwitch(spec.abort_if, _dollars_per_hour(spec))
    target = target or make_target(spec)
    control = await distributed.spawn(spec, injector_count(spec))
    try:
        # Lengths that are to be fitted to the target's context wait for it to be told.
        plan_making = None if needs_context(spec) else _planning(spec)
        urls = await target.start()
        async with session({**spec.target.headers, **await credentials.headers()}, trust) as http:
            identity = await identify(http, urls, served_model(spec), simulated=spec.target.kind == "sim")
            spec = with_context(spec, identity)
            plan_making = plan_making or _planning(spec)
            identity.fingerprint.update(await fingerprint(http, identity, ours=target.life is not None))
            plan = await plan_making
            notices = await asyncio.to_thread(admit, spec, plan, identity)
            run_dir = rundir.make(out, spec.name)
            target.keep_log(run_dir)
            write_plan(plan, run_dir / "plan.parquet")
            prompts = await content.prepare(http, identity, spec, plan, run_dir)
            settled = None
            if spec.target.kind in _COLD_KINDS and plan.table.num_rows:
                watcher.note("warming up until the server's pace is steady")
                settled = await settle(http, identity, spec.target.endpoint, plan)
            caches = await prepare_caches(http, identity, spec.cache)
            vram = await memory(http, identity, target.life)
        manifest = first_manifest(spec, plan, identity, run_dir, command_line)
        manifest.cache = caches.policy
        manifest.target.memory = vram  # type: ignore[attr-defined]
        spec = spec.model_copy(update={"extra": {**caches.extra, **spec.extra}})
        manifest.content = prompts.facts
        manifest.notices += [*notices, *prompts.notices, *_beyond_calibration(plan, manifest, watcher)]
        if settled is not None:
            manifest.telemetry["settle"] = settled.as_dict()
            if not settled.steady:
                manifest.notices.append(
                    f"the server's pace was not steady after {sum(settled.rounds_s):.0f} s of warm-up"
                )
        if target.life is not None:
            manifest.target.life = target.life.as_dict()  # type: ignore[attr-defined]
        manifest.save(run_dir)
        await _load(spec, plan, manifest, run_dir, control, credentials, identity, prompts, target, watcher, switch)
        await target.stop()
        if target.life is not None:
            manifest.target.life = target.life.as_dict()  # type: ignore[attr-defined]
            manifest.save(run_dir)
        return run_dir
    finally:
        await control.close()
        await target.stop()


def _planning(spec: RunSpec) -> asyncio.Task[Plan]:
    """The plan, in the making beside what else is to be done."""
    return asyncio.create_task(asyncio.to_thread(make_plan, spec.workload, spec.seed))


async def _load(
    spec: RunSpec, plan: Plan, manifest: Manifest, run_dir: Path, control: Control, credentials: auth.Credentials,
    identity: Identity, prompts: content.Prompts, target: Target, watcher: Watcher, switch: KillSwitch,
) -> None:  # fmt: skip
    """From the injectors' preparation to the last scrape; the manifest says how it ended."""
    key = await credentials.headers()
    # Workers find the key in their own environment.
    jobs = make_jobs(spec, plan, manifest, identity, prompts, run_dir, {} if spec.workers else key)
    control.send(prepare_message(spec, plan, manifest, jobs[0]))
    joined = await distributed.ready(control, spec, manifest, watcher)
    gpus = await look_for_gpus(spec, identity, target, run_dir, manifest)
    scraper, t0 = await _start_scraping(spec, identity, {**spec.target.headers, **key}, run_dir, manifest)
    if gpus is not None:
        await gpus.go(t0)
    host = HostSampler(t0, spool=run_dir / "spool" / "host.arrows")
    for role, pid in {"cli": os.getpid(), "locust": control.pid, **target.processes()}.items():
        host.watch(role, pid)
    await host.start()
    control.send({"op": "go", "t0_unix_ns": t0})
    manifest.t0_unix_ns = t0
    manifest.started_at = datetime.datetime.fromtimestamp(t0 / 1e9, datetime.UTC).isoformat(timespec="milliseconds")
    manifest.save(run_dir)
    watcher.began(manifest.measure_end_ns / 1e9, _due_s(plan))
    refreshing = asyncio.create_task(credentials.keep_fresh(control, spec.target.headers, [scraper.renew]))
    showing = asyncio.create_task(show(gpus, watcher)) if gpus is not None else None
    outcome = await Listener(control, manifest, watcher, target, switch).until_over()
    refreshing.cancel()
    if showing is not None:
        showing.cancel()
    watcher.ended()
    await scraper.stop()
    await host.stop()
    scraper.write(run_dir / "server.parquet")
    host.write(run_dir / "host.parquet")
    if gpus is not None:
        await gpus.stop()
        gpus.write(run_dir / "gpu.parquet")
        outcome.events += gpu_events(gpus, t0)
    extend_plan(spec, plan, run_dir)
    outcome.events += [{"t_ns": event.pop("t_unix_ns") - t0, **event} for event in credentials.events]
    outcome.events += annotations(read_server(run_dir), read_gpu(run_dir))
    with (run_dir / "events.jsonl").open("ab") as file:  # marks may be there already
        for event in sorted(distributed.on_run_clock(joined, t0) + outcome.events, key=lambda e: e["t_ns"]):
            file.write(orjson.dumps(event) + b"\n")
    manifest.state = outcome.state  # type: ignore[assignment]
    manifest.state_reason = outcome.reason
    manifest.failed_side = outcome.failed_side  # type: ignore[assignment]
    manifest.ended_ns = outcome.ended_ns
    manifest.save(run_dir)


async def _start_scraping(
    spec: RunSpec, identity: Identity, headers: dict[str, str], run_dir: Path, manifest: Manifest
) -> tuple[ServerScraper, int]:
    """The first scrape is done and the run's time zero lies far enough ahead for the message to go."""
    urls = [] if spec.telemetry.server == "none" else list(identity.urls)
    lead = distributed.LEAD_NS if spec.workers else _LEAD_NS
    while True:
        t0 = time.time_ns() + lead
        spool = run_dir / "spool" / "server.arrows"
        scraper = ServerScraper(urls, t0, spec.telemetry.server_interval, headers, spool, trust_of(spec))
        found = await scraper.start()
        if time.time_ns() < t0 - _LEAD_NS // 3:
            manifest.notices += [f"{public_name(f.endpoint)}/metrics: {f.problem}" for f in found if f.problem]
            return scraper, t0
        await scraper.stop()  # a slow server: its first scrape took longer than the lead
        lead *= 4


def _due_s(plan: Plan) -> npt.NDArray[np.float64] | None:
    """When the plan's requests are due, in seconds, rising; None in a closed loop."""
    if plan.loop == "closed":
        return None
    return np.sort(plan.table["at_ns"].drop_null().to_numpy()) / 1e9


def _priced(spec: RunSpec) -> RunSpec:
    """The spec with the price of its GPUs filled in from the catalogue, where it names their type.

    Raises:
        UserError: a type that the catalogue doesn't know, and no price.
    """
    price = price_of(spec.gpus.model_dump(exclude_none=True))
    if price is None:
        return spec
    update = {"price_per_hour": price.usd_per_gpu_hour, "price_source": price.source}
    return spec.model_copy(update={"gpus": spec.gpus.model_copy(update=update)})


def _dollars_per_hour(spec: RunSpec) -> float | None:
    """Of the whole deployment."""
    return None if spec.gpus.price_per_hour is None else spec.gpus.price_per_hour * spec.gpus.count


def _beyond_calibration(plan: Plan, manifest: Manifest, watcher: Watcher) -> list[str]:
    """A warning, where this machine was calibrated and the plan is near what it can measure."""
    import pyarrow.compute as pc

    seconds = manifest.measure_end_ns / 1e9
    if plan.loop == "closed" or seconds <= 0:
        return []
    rows = plan.table.num_rows
    warning = calibration.warning(rows / seconds, (pc.sum(plan.table["output_tokens"]).as_py() or 0) / seconds)
    if warning is None:
        return []
    watcher.note(f"warning: {warning}")
    return [warning]
