"""One run, from spec to report: start the target, make the plan, let Locust and the injectors work, watch, report.

    target up, identified -> plan, content -> injectors ready -> first scrape -> go -> drained -> last scrape -> report

The order of things and the clock marks are here; what each step does is elsewhere.
"""

import asyncio
import datetime
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tailgate.harness.config.run_spec import RunSpec, trust_of
from tailgate.harness.host.linux_only import require_linux
from tailgate.harness.load import distributed
from tailgate.harness.load.event_log import EventLog
from tailgate.harness.load.gpu_watch import gpu_events, look_for_gpus, show
from tailgate.harness.load.interrupts import Interrupts
from tailgate.harness.load.kill_switch import KillSwitch
from tailgate.harness.load.listener import Listener, Watcher
from tailgate.harness.load.locust_process import LocustProcess, Message
from tailgate.harness.run import run_directory
from tailgate.harness.run.jobs import extend_plan, make_jobs, prepare_message
from tailgate.harness.run.prepare import Planning, Prepared, prepare
from tailgate.harness.run.virtual.execute import execute_virtual
from tailgate.harness.targets import credentials as auth
from tailgate.harness.targets.base import Identity, Target, unless_gone
from tailgate.harness.targets.make import make_target
from tailgate.harness.telemetry.gpu.sources import GpuSource
from tailgate.harness.telemetry.host import HostSampler
from tailgate.harness.telemetry.server import FirstScrape, ServerScraper
from tailgate.loadgen.injector.http.endpoint import public_name
from tailgate.reports.cost.prices import price_of
from tailgate.reports.rundir.manifest import Manifest
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.plan.plan import Plan

# Between "all are ready" and the run's time zero: the first scrape, and the message's way to the injectors.
_LEAD_NS = 150_000_000


async def execute(
    spec: RunSpec, out: Path | None, command_line: list[str], watcher: Watcher, target: Target | None = None,
    locust: LocustProcess | None = None,
) -> Path:  # fmt: skip
    """Do the run; its directory is returned, holding everything but the documents.

    One on a virtual clock needs none of this (`harness.run.virtual`). `target` is one that someone else brought up and
    will take down; without it the spec's own is made. So it is with `locust`, which the run ends.

    Raises:
        UserError: something is wrong with spec, target or environment; no load was sent.
    """
    spec = _priced(spec)
    if spec.target.clock == "virtual":
        return await asyncio.to_thread(execute_virtual, spec, out, command_line, watcher)
    require_linux()
    credentials = auth.credentials(spec.target)
    switch = KillSwitch(spec.abort_if, _dollars_per_hour(spec))
    switch.refuse_unreachable(spec)
    target = target or make_target(spec)
    with Interrupts() as interrupts, run_directory.new_run_directory(out, spec.name) as made:
        run_dir = made.path
        locust = locust or await distributed.spawn(spec)
        manifest: Manifest | None = None
        try:
            planning = Planning(spec)
            urls = await planning.beside(target.start())
            work = prepare(spec, target, urls, planning, credentials, run_dir, command_line, watcher)
            ready = await unless_gone(target, work)
            manifest = ready.manifest
            armed = await unless_gone(target, _arm(ready, run_dir, locust, credentials, target, watcher))
            made.keep()
            target.keep_log(run_dir)
            await _load(ready, armed, run_dir, locust, credentials, target, watcher, switch, interrupts)
        finally:
            interrupts.hold()
            try:
                await locust.close()
            finally:
                await target.stop()
                if manifest is not None and target.life is not None:
                    manifest.target.life = target.life.as_dict()
                    manifest.notices += target.life.notices
                    manifest.save(run_dir)
        if interrupts.unanswered:
            watcher.note(f"interrupted: what was measured is kept: tailgate report {run_dir}")
        return run_dir


@dataclass(frozen=True)
class _Armed:
    """The injectors are ready and the first samples are taken; the run's time zero lies just ahead."""

    joined: list[Message]
    gpus: GpuSource | None
    scraper: ServerScraper
    t0_unix_ns: int


async def _arm(
    ready: Prepared,
    run_dir: Path,
    locust: LocustProcess,
    credentials: auth.Credentials,
    target: Target,
    watcher: Watcher,
) -> _Armed:
    """The injectors' preparation and the first scrape."""
    spec, manifest = ready.spec, ready.manifest
    key = await credentials.headers()
    # Workers find the key in their own environment.
    ours = {} if spec.workers else key
    jobs = make_jobs(spec, ready.plan, manifest, ready.identity, ready.form, ready.prompts, run_dir, ours)
    locust.send(prepare_message(spec, ready.plan, manifest, jobs[0]))
    joined = await distributed.ready(locust, spec, manifest, watcher)
    gpus = await look_for_gpus(spec, ready.identity, target, run_dir, manifest)
    try:
        scraper, t0 = await _start_scraping(spec, ready.identity, {**spec.target.headers, **key}, run_dir, manifest)
    except BaseException:
        if gpus is not None:
            await gpus.stop()
        raise
    return _Armed(joined, gpus, scraper, t0)


async def _load(
    ready: Prepared, armed: _Armed, run_dir: Path, locust: LocustProcess, credentials: auth.Credentials,
    target: Target, watcher: Watcher, switch: KillSwitch, interrupts: Interrupts,
) -> None:  # fmt: skip
    """From "go" to the last scrape; the manifest says how it ended."""
    spec, plan, manifest = ready.spec, ready.plan, ready.manifest
    gpus, scraper, t0 = armed.gpus, armed.scraper, armed.t0_unix_ns
    if gpus is not None:
        await gpus.go(t0)
    host = HostSampler(t0, spool=run_dir / "spool" / "host.arrows", wanted=spec.telemetry.host)
    for role, pid in {**target.processes(), "locust": locust.pid, "cli": os.getpid()}.items():
        host.watch(role, pid)
    await host.start()
    locust.send({"op": "go", "t0_unix_ns": t0})
    switch.load_begins(t0)
    manifest.t0_unix_ns = t0
    manifest.started_at = datetime.datetime.fromtimestamp(t0 / 1e9, datetime.UTC).isoformat(timespec="milliseconds")
    manifest.save(run_dir)
    by_number = plan.loop == "closed" and spec.workload.measured_s() is None
    watcher.began(None if by_number else manifest.measure_end_ns / 1e9, _due_s(plan))
    events = EventLog(run_dir)
    events.follow("workers", distributed.on_run_clock(armed.joined, t0))
    credentials.on_event = lambda event: events.follow("auth", _on_run_clock(credentials.events, t0))
    refreshing = asyncio.create_task(
        credentials.keep_fresh(spec.target.headers, [partial(_renew_injectors, locust), scraper.renew])
    )
    showing = asyncio.create_task(show(gpus, watcher, events, t0)) if gpus is not None else None
    with interrupts.gently() as interruption:
        outcome = await Listener(locust, manifest, watcher, target, switch, events, credentials.refused).until_over(
            interruption
        )
    interrupts.hold()
    refreshing.cancel()
    if showing is not None:
        showing.cancel()
    watcher.ended()
    await scraper.stop()
    await host.stop()
    if gpus is not None:
        await gpus.stop()
        events.follow("gpu", gpu_events(gpus, t0))
    manifest.state = outcome.state  # type: ignore[assignment]
    manifest.state_reason = outcome.reason
    manifest.failed_side = outcome.failed_side  # type: ignore[assignment]
    manifest.ended_ns = outcome.ended_ns
    run_directory.release(run_dir)
    manifest.save(run_dir)  # before anything that a full disk may stop
    steps = {
        "plan.parquet": lambda: extend_plan(spec, plan, run_dir),
        "server.parquet": lambda: scraper.write(run_dir / "server.parquet"),
        "host.parquet": lambda: host.write(run_dir / "host.parquet"),
        "gpu.parquet": lambda: gpus.write(run_dir / "gpu.parquet") if gpus is not None else None,
        "events.jsonl": lambda: events.follow("seen", _seen(run_dir, manifest)),
        "the last of events.jsonl": events.write,
    }
    if (problem := _done(steps)) and manifest.state == "complete":
        manifest.state, manifest.state_reason, manifest.failed_side = "failed", problem, "client"
        manifest.save(run_dir)


def _seen(run_dir: Path, manifest: Manifest) -> list[dict[str, Any]]:
    # Imported when the load is over, so that the first request need not wait for it.
    from tailgate.reports.rundir.telemetry import read_gpu, read_server
    from tailgate.reports.telemetry.annotations import annotations

    return annotations(read_server(run_dir), read_gpu(run_dir), manifest.telemetry.get("several_behind", ()))


def _done(steps: Mapping[str, Callable[[], None]]) -> str:
    """Do every step, even if others fail; the first failure, in words."""
    problems = []
    for name, do in steps.items():
        try:
            do()
        except OSError as error:
            problems.append(f"can't write {name}: {error.strerror or error}")
        except UserError as error:
            problems.append(f"{name}: {error.what}")
    return next(iter(problems), "")


def _renew_injectors(locust: LocustProcess, headers: dict[str, str]) -> None:
    locust.send({"op": "headers", "headers": headers})


def _on_run_clock(events: Sequence[dict[str, Any]], t0_unix_ns: int) -> list[dict[str, Any]]:
    return [{"t_ns": e["t_unix_ns"] - t0_unix_ns, "kind": e["kind"], "text": e["text"]} for e in events]


async def _start_scraping(
    spec: RunSpec, identity: Identity, headers: dict[str, str], run_dir: Path, manifest: Manifest
) -> tuple[ServerScraper, int]:
    """Scrape for the first time, with the run's time zero far enough ahead for the message to reach the injectors."""
    urls = [] if spec.telemetry.server == "none" else list(identity.urls)
    lead = distributed.LEAD_NS if spec.workers else _LEAD_NS
    while True:
        began = time.time_ns()
        t0 = began + lead
        spool = run_dir / "spool" / "server.arrows"
        scraper = ServerScraper(urls, t0, spec.telemetry.server_interval, headers, spool, trust_of(spec))
        scrapes = await scraper.start()
        if time.time_ns() < t0 - _LEAD_NS // 3:
            manifest.notices += [notice for scrape in scrapes if (notice := _lacking(scrape)) is not None]
            return scraper, t0
        # A slow server: its first scrape took longer than the lead. The next one will hardly take twice as long.
        lead += 2 * (time.time_ns() - began)
        await scraper.stop(last=False)


def _lacking(scrape: FirstScrape) -> str | None:
    """What the report will lack because a server's metrics can't be had or are not vLLM's."""
    where = f"{public_name(scrape.endpoint)}/metrics"
    lost = "queue, KV cache, prefix cache, batch and phase figures, token counts and foreign traffic"
    if scrape.problem:
        return f"{where}: {scrape.problem}; its {lost} are unknown"
    other = scrape.server == "other"
    return f"{where} is not vLLM's: it is stored as it is, and its {lost} are unknown" if other else None


def _due_s(plan: Plan) -> npt.NDArray[np.float64] | None:
    """When the plan's requests are due, in seconds, rising; None in a closed loop."""
    if plan.loop == "closed":
        return None
    return np.sort(plan.table["at_ns"].drop_null().to_numpy()) / 1e9


def _priced(spec: RunSpec) -> RunSpec:
    """The spec with the price of its GPUs filled in from the catalogue, where it names their type."""
    price = price_of(spec.gpus.model_dump(exclude_none=True))
    if price is None:
        return spec
    update = {"price_per_hour": price.usd_per_gpu_hour, "price_source": price.source}
    return spec.model_copy(update={"gpus": spec.gpus.model_copy(update=update)})


def _dollars_per_hour(spec: RunSpec) -> float | None:
    return None if spec.gpus.price_per_hour is None else spec.gpus.price_per_hour * spec.gpus.count
