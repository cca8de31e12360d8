"""One run, from spec to report: start the target, make the plan, let Locust and the injectors work, watch, report.

    target up, identified -> plan, content -> injectors ready -> first scrape -> go -> drained -> last scrape -> report

The order of things and the clock marks are here; what each step does is elsewhere.
"""

import asyncio
import datetime
import os
import secrets
import signal
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from harness import auth, content, rundir
from harness.control import Control, Message
from harness.spec import RunSpec
from harness.targets.base import Ended, Identity, Target
from harness.targets.make import make_target, served_model
from harness.targets.probe import identify, session
from harness.telemetry.host import HostSampler
from harness.telemetry.server import ServerScraper
from loadgen.injector.endpoint import Trust, public_name
from loadgen.job import Job
from reports.manifest import Manifest
from reports.manifest import Target as ManifestTarget
from workloads.errors import UserError
from workloads.hashing import plan_hash
from workloads.plan import Plan, make_plan, write_plan
from workloads.schema import PLAN_SCHEMA

# Between "all are ready" and the run's time zero: the first scrape, and the message's way to the injectors.
_LEAD_NS = 150_000_000
_READY_S = 60.0
# After the drain's end an injector has this long to write its last records before it counts as hung.
_GRACE_S = 15.0
# Kernel stamps count as such only when nearly every read had one.
_MOST_UNSTAMPED = 0.001


class Watcher:
    """What a person sees of a run while it goes on. This one sees nothing; `harness.progress` has the others."""

    def note(self, text: str) -> None:
        """One line about what happens now."""

    def began(self, plan_rows: int, seconds: float) -> None:
        """Load starts."""

    def tick(self, message: Message) -> None:
        """An injector's second."""

    def ended(self) -> None:
        """Load is over."""


@dataclass
class _Outcome:
    """How the load phase went."""

    state: str = "complete"
    reason: str = ""
    failed_side: str = ""
    ended_ns: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)


async def execute(spec: RunSpec, out: Path | None, command_line: list[str], watcher: Watcher) -> Path:
    """Do the run; its directory is returned, holding everything but the documents.

    Raises:
        UserError: something is wrong with spec, target or environment; no load was sent.
    """
    trust = _trust(spec)
    credentials = auth.credentials(spec.target)
    target = make_target(spec)
    control = await Control.spawn(_injector_count(spec))
    try:
        plan_making = asyncio.create_task(asyncio.to_thread(make_plan, spec.workload, spec.seed))
        urls = await target.start()
        async with session(await credentials.headers(), trust) as http:
            identity = await identify(http, urls, served_model(spec), simulated=spec.target.kind == "sim")
            plan = await plan_making
            _check_lengths(plan, identity)
            run_dir = rundir.make(out, spec.name)
            target.keep_log(run_dir)
            write_plan(plan, run_dir / "plan.parquet")
            prompts = await content.prepare(http, identity, spec, plan, run_dir)
        manifest = _manifest(spec, plan, identity, run_dir, command_line)
        manifest.notices += prompts.notices
        if target.life is not None:
            manifest.target.life = target.life.as_dict()  # type: ignore[attr-defined]
        manifest.save(run_dir)
        await _load(spec, plan, manifest, run_dir, control, credentials, identity, prompts, trust, target, watcher)
        await target.stop()
        if target.life is not None:
            manifest.target.life = target.life.as_dict()  # type: ignore[attr-defined]
            manifest.save(run_dir)
        return run_dir
    finally:
        await control.close()
        await target.stop()


async def _load(
    spec: RunSpec, plan: Plan, manifest: Manifest, run_dir: Path, control: Control, credentials: auth.Credentials,
    identity: Identity, prompts: content.Prompts, trust: Trust, target: Target, watcher: Watcher,
) -> None:  # fmt: skip
    """From the injectors' preparation to the last scrape; the manifest says how it ended."""
    nonce = secrets.token_hex(4)
    shared = Job(
        plan=str((run_dir / "plan.parquet").resolve()),
        spool=str((run_dir / "spool").resolve()),
        injector=0,
        injectors=_injector_count(spec),
        loop=plan.loop,
        urls=identity.urls,
        api=spec.target.endpoint,
        model=identity.model,
        dialect=identity.dialect,
        content=prompts.table,
        content_options=prompts.options,
        headers={**spec.target.headers, **await credentials.headers()},
        extra=spec.extra,
        streamed=spec.streamed,
        forced_output=spec.output == "forced",
        trust=trust,
        balance=spec.target.balance,
        timeout_ns=_ns(spec.timeout),
        measure_end_ns=manifest.measure_end_ns,
        drain_ns=int(spec.drain * 1e9),
        run_nonce=nonce,
        extend_plan=_extension(spec, plan),
    )
    jobs = [orjson.loads(shared.for_injector(k).to_json()) for k in range(shared.injectors)]
    control.send(
        {
            "op": "prepare",
            "loop": plan.loop,
            "users": spec.workload.users,
            "requests": spec.workload.requests,
            "jobs": jobs,
        }
    )
    manifest.stamp = "kernel" if await _until_ready(control) else "user"
    scraper, t0 = await _start_scraping(spec, identity, await credentials.headers(), run_dir, manifest)
    host = HostSampler(t0, spool=run_dir / "spool" / "host.arrows")
    for role, pid in {"cli": os.getpid(), "locust": control.pid, **target.processes()}.items():
        host.watch(role, pid)
    await host.start()
    control.send({"op": "go", "t0_unix_ns": t0, "measure_end_ns": manifest.measure_end_ns, "loop": plan.loop})
    manifest.t0_unix_ns = t0
    manifest.started_at = datetime.datetime.fromtimestamp(t0 / 1e9, datetime.UTC).isoformat(timespec="milliseconds")
    manifest.save(run_dir)
    watcher.began(plan.table.num_rows, manifest.measure_end_ns / 1e9)
    refreshing = asyncio.create_task(credentials.keep_fresh(control, spec.target.headers))
    outcome = await _until_over(control, manifest, watcher, target)
    refreshing.cancel()
    watcher.ended()
    await scraper.stop()
    await host.stop()
    scraper.write(run_dir / "server.parquet")
    host.write(run_dir / "host.parquet")
    _extend_plan(spec, plan, run_dir)
    with (run_dir / "events.jsonl").open("wb") as file:
        for event in sorted(outcome.events, key=lambda e: e["t_ns"]):
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
    lead = _LEAD_NS
    while True:
        t0 = time.time_ns() + lead
        scraper = ServerScraper(urls, t0, spec.telemetry.server_interval, headers, run_dir / "spool" / "server.arrows")
        found = await scraper.start()
        if time.time_ns() < t0 - _LEAD_NS // 3:
            manifest.notices += [f"{public_name(f.endpoint)}/metrics: {f.problem}" for f in found if f.problem]
            return scraper, t0
        await scraper.stop()  # a slow server: its first scrape took longer than the lead
        lead *= 4


async def _until_ready(control: Control) -> bool:
    """Wait for every injector to have its plan and its first requests; whether all have kernel stamps.

    Raises:
        UserError: one refused its job.
    """
    deadline = time.monotonic() + _READY_S
    while True:
        message = await asyncio.wait_for(control.receive(), max(deadline - time.monotonic(), 0.1))
        match message:
            case None:
                raise UserError("the load generator's process ended before the run began; its message stands above")
            case {"op": "ready"}:
                return bool(message["stamps"])
            case {"op": "refused"}:
                raise UserError(message["what"], where=message["where"], remedy=message["remedy"])
            case {"op": "crashed"}:
                raise RuntimeError(f"an injector failed while it prepared:\n{message['traceback']}")
            case {"op": "died"}:
                raise RuntimeError(f"an injector ended while it prepared, with exit code {message['code']}")


async def _until_over(control: Control, manifest: Manifest, watcher: Watcher, target: Target) -> _Outcome:
    """Pass on what the injectors say until all have ended, the person interrupts, or the run is overdue."""
    outcome = _Outcome()
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    interruption = asyncio.create_task(interrupted.wait())
    death = asyncio.create_task(target.ended())
    drain_end = manifest.drain_end_ns or 0
    overdue_at = (manifest.t0_unix_ns + drain_end - time.time_ns()) / 1e9 + _GRACE_S + time.monotonic()
    told = False
    receiving: asyncio.Task[Message | None] | None = None
    try:
        while True:
            receiving = receiving or asyncio.create_task(control.receive())
            waiting = {receiving, interruption, death} if not told else {receiving}
            done, _ = await asyncio.wait(
                waiting, timeout=max(overdue_at - time.monotonic(), 0), return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                outcome.state, outcome.reason = "failed", "the load generator did not end by its deadline"
                break
            if interruption in done and not told:
                told = True
                outcome.state, outcome.reason = "interrupted", "interrupted (Ctrl-C)"
                control.send({"op": "stop", "why": "the run was interrupted"})
                overdue_at = time.monotonic() + _GRACE_S
                watcher.note("interrupted: keeping what was measured")
            elif death in done and not told:
                told = True
                _mourn(death.result(), manifest, outcome, watcher)
                control.send({"op": "stop", "why": outcome.reason})
                overdue_at = time.monotonic() + _GRACE_S
            if receiving not in done:
                continue
            message = receiving.result()
            receiving = None
            if message is None or message["op"] == "all-ended":
                if message is None:
                    outcome.state, outcome.reason = "failed", "the Locust process ended unexpectedly"
                break
            _hear(message, manifest, outcome, watcher)
    finally:
        interruption.cancel()
        death.cancel()
        if receiving is not None:
            receiving.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    outcome.ended_ns = max(outcome.ended_ns, 0) or time.time_ns() - manifest.t0_unix_ns
    return outcome


def _mourn(ended: Ended, manifest: Manifest, outcome: _Outcome, watcher: Watcher) -> None:
    """The server is gone: the run is over, what was measured is kept, and so is the server's last word."""
    outcome.state, outcome.reason, outcome.failed_side = "failed", ended.text, "target"
    now = time.time_ns() - manifest.t0_unix_ns
    outcome.events.append({"t_ns": now, "kind": "server", "text": ended.text, "log": list(ended.log)})
    watcher.note("\n".join([ended.text, *ended.log[-10:]]))


def _hear(message: Message, manifest: Manifest, outcome: _Outcome, watcher: Watcher) -> None:
    now = time.time_ns() - manifest.t0_unix_ns
    match message["op"]:
        case "tick":
            watcher.tick(message)
        case "closing":  # the closed loop's last request was asked for
            manifest.measure_end_ns = min(manifest.measure_end_ns, message["at_unix_ns"] - manifest.t0_unix_ns)
        case "end":
            outcome.ended_ns = max(outcome.ended_ns, message["end_ns"])
            if message["unstamped"] > _MOST_UNSTAMPED * message["reads"]:
                manifest.stamp = "user"
            if message.get("failure"):
                outcome.state, outcome.reason = "failed", message["failure"]
                outcome.events.append({"t_ns": now, "kind": "injector", "text": message["failure"]})
        case "crashed" | "died":
            text = message.get("error") or f"ended with exit code {message.get('code')}"
            outcome.state, outcome.reason = "failed", f"injector {message['injector']}: {text}"
            outcome.events.append({"t_ns": now, "kind": "injector", "text": outcome.reason})
            watcher.note(outcome.reason)
        case _:
            outcome.events.append({"t_ns": now, "kind": str(message["op"]), "text": orjson.dumps(message).decode()})


def _manifest(spec: RunSpec, plan: Plan, identity: Identity, run_dir: Path, command_line: list[str]) -> Manifest:
    owned = spec.target.kind != "url"
    end_ns = measure_end_ns(spec, plan)
    return Manifest(
        run=run_dir.name,
        name=spec.name,
        state="running",
        tailgate_version=rundir.versions()["tailgate"],
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
        host=rundir.host_facts(),
        versions=rundir.versions(),
        injectors=_injector_count(spec),
        notices=list(plan.notices),
        insecure_tls=spec.target.tls.insecure,
        isolation=spec.isolation or ("exclusive" if owned else "shared"),
        cache=spec.cache or "as-is",
        pid=os.getpid(),
    )


def measure_end_ns(spec: RunSpec, plan: Plan) -> int:
    """The planned end of the measure phase: the duration's, or just after the last arrival.

    A closed loop that ends by a number of requests has none; an hour bounds it, and the manifest is set right
    when the last request has been asked for.
    """
    workload = spec.workload
    if workload.duration is not None:
        return int((workload.warmup + workload.duration) * 1e9)
    if plan.loop == "closed":
        return int(workload.warmup * 1e9) + 3_600_000_000_000
    import pyarrow.compute as pc

    return int(pc.max(plan.table["at_ns"]).as_py()) + 1


def _check_lengths(plan: Plan, identity: Identity) -> None:
    """Lengths beyond the model's context are an error before any load."""
    import pyarrow.compute as pc

    limit = identity.max_model_len
    if limit is None or plan.table.num_rows == 0:
        return
    total = pc.add(plan.table["prompt_tokens"], plan.table["output_tokens"])
    beyond = pc.sum(pc.greater(total, limit)).as_py()
    if beyond:
        raise UserError(
            f"{beyond} of {plan.table.num_rows} planned requests are longer than the model's context of {limit:,} tokens"
            f" (the longest: {pc.max(total).as_py():,})",
            where="workload",
            remedy=f"Set max_context: {limit} and over_context: clip, scale or drop (--max-context, --over-context).",
        )


def _extension(spec: RunSpec, plan: Plan) -> dict[str, Any] | None:
    """How an injector gets more rows of a closed loop's endless plan than the file holds."""
    if plan.loop == "open":
        return None
    return {"workload": spec.workload.model_dump(mode="json", exclude_none=True), "seed": spec.seed}


def _extend_plan(spec: RunSpec, plan: Plan, run_dir: Path) -> None:
    """A closed loop may have started rows beyond the plan's file: make it hold them all."""
    if plan.loop == "open":
        return
    import pyarrow as pa
    import pyarrow.compute as pc

    from reports.spool import spool_files, whole_batches
    from workloads.plan import closed_rows

    have = plan.table.num_rows
    batches = (batch for path in spool_files(run_dir, "injector").values() for batch in whole_batches(path))
    last = max((pc.max(batch["index"]).as_py() for batch in batches), default=-1)
    if last >= have:
        more = closed_rows(spec.workload, spec.seed, have, last + 1 - have)
        table = pa.concat_tables([plan.table, more]).cast(PLAN_SCHEMA)
        write_plan(replace(plan, table=table, plan_hash=plan_hash(table)), run_dir / "plan.parquet")


def _trust(spec: RunSpec) -> Trust:
    tls = spec.target.tls
    return Trust(
        ca=str(tls.ca) if tls.ca else None,
        insecure=tls.insecure,
        client_cert=str(tls.cert) if tls.cert else None,
        client_key=str(tls.key) if tls.key else None,
    )


def _injector_count(spec: RunSpec) -> int:
    if spec.injectors == "auto":
        return max(1, (os.cpu_count() or 2) // 2)
    return spec.injectors


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1e9)
