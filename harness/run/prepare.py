"""What is done between a target that answers and a load that can begin: asked, planned, warmed up, written down.

identified -> plan, content -> pace steady -> caches as declared -> manifest
"""

import asyncio
import os
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp

from tailgate.harness.config.run_spec import RunSpec, trust_of
from tailgate.harness.host.facts import host_facts, versions
from tailgate.harness.host.load_probe import LoadProbe
from tailgate.harness.load.listener import Watcher
from tailgate.harness.run import prompt_content
from tailgate.harness.run.expectation import expectation
from tailgate.harness.run.own_requests import OwnRequests
from tailgate.harness.run.preflight import admit, beyond_calibration, check_resources, needs_context, with_context
from tailgate.harness.run.request_form import RequestForm, choose_form, what_it_means
from tailgate.harness.run.trial import Trial, TrialPatience, try_form
from tailgate.harness.run.warmup import BUDGET_S, PATIENCE, WarmupRefused, WarmupResult, warm_up
from tailgate.harness.targets import credentials as auth
from tailgate.harness.targets.base import Identity, Target
from tailgate.harness.targets.inspect.caches import prepare_caches
from tailgate.harness.targets.inspect.fingerprint import fingerprint, memory
from tailgate.harness.targets.inspect.probe import identify, session
from tailgate.harness.targets.inspect.replicas import balanced
from tailgate.harness.targets.make import served_model
from tailgate.loadgen.injector.http.endpoint import checked_route, public_name, told
from tailgate.reports.rundir.manifest import Manifest, TargetRecord
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.plan.plan import Plan, make_plan, write_plan

T = TypeVar("T")

# Without a warm-up a slow server is not waited for: the load will show how slow it is.
_TRIAL_S: Final = 10.0
_TRIAL_WHOLE_S: Final = 60.0  # for an answer that isn't streamed, all of whose tokens have to be waited for
# Targets that we start and that compile, tune or capture with their first requests.
COLD_KINDS: Final = ("vllm", "command")


def warms_up(spec: RunSpec) -> bool:
    """Whether the target is warmed up by requests of our own.

    By default what we start is, but for the embedded engine, which has nothing to compile. A stranger's server gets
    no requests that nobody asked for: only with a declared warm-up.
    """
    if spec.settle != "auto":
        return spec.settle == "always"
    return spec.target.kind in COLD_KINDS or (spec.target.kind == "url" and spec.workload.warmup > 0)


@dataclass(frozen=True)
class Prepared:
    """All that the load needs; `spec` is resolved against the target."""

    spec: RunSpec
    plan: Plan
    identity: Identity
    form: RequestForm
    prompts: prompt_content.Prompts
    manifest: Manifest


class Planning:
    """The plan, in the making while the target starts, where it doesn't depend on what the target tells.

    Meanwhile `probe` sees what else this machine does.
    """

    def __init__(self, spec: RunSpec) -> None:
        self.probe = LoadProbe()
        # Lengths that are to be fitted to the target's context wait for it to be told.
        self._early = None if needs_context(spec) else self._begin(spec)

    async def beside(self, starting: Coroutine[Any, Any, T]) -> T:
        """What ``starting`` gives; a plan that fails meanwhile ends it: a slip in the spec costs no server's start."""
        start = asyncio.ensure_future(starting)
        try:
            if self._early is not None:
                await asyncio.wait({start, self._early}, return_when=asyncio.FIRST_COMPLETED)
                if self._early.done():
                    self._early.result()
            return await start
        finally:
            if not start.done():
                start.cancel()
            await asyncio.gather(start, return_exceptions=True)

    async def plan(self, spec: RunSpec) -> Plan:
        """The plan."""
        return await (self._early or self._begin(spec))

    def _begin(self, spec: RunSpec) -> "asyncio.Task[Plan]":
        making = asyncio.create_task(asyncio.to_thread(make_plan, spec.workload, spec.seed))
        # Where the target fails first, that is what is said; nobody asks for the plan any more.
        making.add_done_callback(lambda made: None if made.cancelled() else made.exception())
        return making


async def prepare(
    spec: RunSpec, target: Target, urls: tuple[str, ...], planning: Planning, credentials: auth.Credentials,
    run_dir: Path, command_line: list[str], watcher: Watcher,
) -> Prepared:  # fmt: skip
    """Everything before the injectors get their jobs; the manifest is in ``run_dir`` then."""
    proxies = _proxies(urls)
    ways = [f"{url} is reached {way}" for url, way in proxies.items()]
    for notice in ways:
        watcher.note(f"note: {notice}")
    headers = {**spec.target.headers, **await credentials.headers()}
    looking = asyncio.create_task(planning.probe.state())
    async with session(headers, trust_of(spec)) as http:
        identity = await identify(http, urls, served_model(spec), simulated=spec.target.kind == "sim")
        spec = with_context(spec, identity)
        identified, several = await asyncio.gather(
            fingerprint(http, identity, target.life), _several_behind(spec, identity, headers, watcher)
        )
        identity.fingerprint.update(identified.facts)
        plan = await planning.plan(spec)
        injectors, expected = expectation(spec, plan, await looking)
        if spec.injectors == "auto" and spec.workers is None:  # workers say their own
            spec = spec.model_copy(update={"injectors": injectors})
        if expected is not None:
            watcher.note(expected.text)
        notices = check_resources(spec, plan)
        for notice in notices:
            watcher.note(f"warning: {notice}")
        notices += await asyncio.to_thread(admit, spec, plan, identity)
        write_plan(plan, run_dir / "plan.parquet")
        form = choose_form(spec, identity)
        prompts = await prompt_content.prepare(http, identity, spec, form.prompt, plan, run_dir)
        identity, trial = await _tried(http, spec, identity, form, prompts, plan)
        if trial.form.prompt != form.prompt:
            prompts = await prompt_content.otherwise(http, identity, prompts, trial.form.prompt)
        form = trial.form
        shown = [*identity.notices, *trial.notices, *what_it_means(form, spec, public_name(urls[0]))]
        for notice in shown:
            watcher.note(f"note: {notice}")
        if spec.workload.locustfile is None:
            watcher.note(f"requests: {form.text}")
        notices += shown
        settled = None
        if warms_up(spec) and plan.table.num_rows:
            own = OwnRequests(spec, identity, form, prompts, plan)
            settled = await _settled(http, spec, identity, own, plan, watcher, notices)
        caches = await prepare_caches(http, identity, spec.cache, spec.workload.warmup, several, can_salt=form.salts)
        vram = {} if several else await memory(http, identity, target.life)  # one replica's is not the deployment's
    manifest = first_manifest(spec, plan, identity, run_dir, command_line)
    manifest.expected_error = {} if expected is None else expected.as_dict()
    manifest.cache = caches.policy
    manifest.target.memory = vram
    manifest.target.instance = identified.instance
    manifest.content = prompts.facts
    manifest.target.proxy = proxies
    if spec.workload.locustfile is None:
        manifest.target.requests = form.facts
    manifest.notices += [*ways, *identified.notices, *notices, *prompts.notices]
    if (warning := beyond_calibration(spec, plan)) is not None:
        watcher.note(f"warning: {warning}")
        manifest.notices.append(warning)
    if several:
        manifest.telemetry["several_behind"] = [public_name(url) for url in several]
    if settled is not None:
        manifest.telemetry["settle"] = settled.as_dict()
    if target.life is not None:
        manifest.target.life = target.life.as_dict()
    manifest.save(run_dir)
    spec = spec.model_copy(update={"extra": {**caches.extra, **spec.extra}})
    return Prepared(spec, plan, identity, form, prompts, manifest)


def _proxies(urls: tuple[str, ...]) -> dict[str, str]:
    """How each URL is reached, where the environment names a proxy; a UserError for a proxy that we can't speak to."""
    ways = {public_name(url): told(checked_route(url)) for url in urls}
    return {url: way for url, way in ways.items() if way}


async def _tried(
    http: aiohttp.ClientSession, spec: RunSpec, identity: Identity, form: RequestForm,
    prompts: prompt_content.Prompts, plan: Plan,
) -> tuple[Identity, Trial]:  # fmt: skip
    """What a trial request at each server shows. An engine of ours needs none."""
    own_code = spec.workload.locustfile is not None
    if spec.target.kind == "sim" or (own_code and identity.dialect == "vllm"):
        return identity, Trial(form)
    patience = TrialPatience(_TRIAL_S if spec.streamed else _TRIAL_WHOLE_S)
    if warms_up(spec) and not own_code:
        assert PATIENCE.total is not None
        patience = TrialPatience(PATIENCE.total, final=True)
    try:
        trial = await try_form(http, spec, identity, form, prompts, plan, patience)
    except UserError:
        if not own_code:  # else the trial only shows who answers
            raise
        trial = Trial(form)
    if own_code:  # its requests have a form of their own
        trial.form, trial.notices = form, []
    return replace(identity, simulated=identity.simulated or trial.simulated), trial


async def _settled(
    http: aiohttp.ClientSession, spec: RunSpec, identity: Identity, own: OwnRequests, plan: Plan, watcher: Watcher,
    notices: list[str],
) -> WarmupResult | None:  # fmt: skip
    """How the warm-up went; None and a notice where somebody else's server refuses it: the load shows the rest."""
    watcher.note(
        f"warming up until the server's pace is steady, for {2 * BUDGET_S:.0f} s at most "
        "(settle: none, --no-settle, leaves it out)"
    )
    try:
        result = await warm_up(http, identity, own, plan, spec.workload.most_users)
    except WarmupRefused as error:
        if spec.target.kind in COLD_KINDS:
            raise
        notices.append(f"not warmed up: {error.where} {error.what}")
        watcher.note(f"note: {notices[-1]}")
        return None
    watcher.note(result.text)
    return result


async def _several_behind(
    spec: RunSpec, identity: Identity, headers: Mapping[str, str], watcher: Watcher
) -> tuple[str, ...]:
    """The URLs behind which several servers answer, where anything rests on their being one; said at once."""
    alone = spec.target.kind in ("sim", "vllm")  # we started the one server behind the URL
    if alone or (spec.telemetry.server == "none" and spec.cache != "cold"):
        return ()
    async with session(headers, trust_of(spec), anew=True) as http:
        several = await balanced(http, identity.urls)
    for url in several:
        where = public_name(url)
        watcher.note(f"warning: several servers answer behind {where}: name them under target.urls (repeat --target)")
    return several


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
        target=TargetRecord(
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
