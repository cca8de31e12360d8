"""A run on several machines, the harness's side: what is refused beforehand, and what the workers are.

Keys don't travel: a worker reads the API key from its own environment, from the variable that its operator named.
Joining, shards and records are `loadgen.distributed`'s.
"""

import shlex
import socket
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tailgate.harness.config.masking import secret_in, without_credentials
from tailgate.harness.config.run_spec import RunSpec, WorkersSpec
from tailgate.harness.load import fallbacks
from tailgate.harness.load.locust_process import LocustProcess, Message
from tailgate.loadgen.control.address import is_private, refuse_a_port_in_use, split_address
from tailgate.loadgen.distributed.protocol import DEFAULT_PORT
from tailgate.loadgen.distributed.seal import read_token
from tailgate.loadgen.redact import SECRETIVE, SECRETS
from tailgate.workloads.common.errors import UserError

if TYPE_CHECKING:
    from tailgate.harness.load.listener import Watcher
    from tailgate.reports.rundir.manifest import Manifest

# Beyond the wait for the workers: plans are made, prompts prepared.
_PREPARE_S: Final = 180.0
# Between "all are ready" and the run's time zero: the start has to reach every worker before it.
LEAD_NS: Final = 1_000_000_000


def check(spec: RunSpec) -> None:
    """Refuse what can't be spread over machines, or would send a secret in clear."""
    if spec.workers is None:
        return
    _check_door(spec.workers)
    target = spec.target
    header = next(
        (name for name, value in target.headers.items() if SECRETIVE.search(name) or secret_in({name: value})), None
    )
    field = secret_in(spec.extra)
    url = next((url for url in target.all_urls if without_credentials(url) != url), None)
    for refused, what, where, remedy in (
        (
            "injectors" in spec.model_fields_set,
            "this machine only controls the run and sends nothing itself, so it has no injectors", "injectors",
            "Say on each worker how many it has: tailgate worker --injectors N.",
        ),
        (
            target.auth is not None and target.auth.command is not None,
            "a command isn't run on workers", "target.auth.command",
            "Name an environment variable (auth: {env: NAME}) and set it on every machine.",
        ),
        (
            header, f"the header {header} is a secret, which would go to the workers in clear", "target.headers",
            f"Use auth: {{env: NAME, header: {header}, scheme: ''}} and set NAME on every machine.",
        ),
        (
            field, f"{field} looks like a secret, which would go to the workers in clear", f"extra.{field}",
            "Use auth: {env: NAME} and set NAME on every machine.",
        ),
        (
            url,
            f"{'user and password' if '@' in urlsplit(url or '').netloc else 'the query'} in a URL would go to the "
            "workers in clear", "target.url",
            "Use auth: {env: NAME, scheme: Basic} and set NAME on every machine.",
        ),
    ):  # fmt: skip
        if refused:
            raise UserError(what, where=where, remedy=remedy)


def _check_door(workers: WorkersSpec) -> None:
    """Refuse a port that strangers could reach and join at."""
    host, port = split_address(workers.bind, DEFAULT_PORT, "--bind")
    refuse_a_port_in_use(host, port, "--bind")
    token = read_token(workers.token_env)
    if token is not None:
        SECRETS.learn({"token": token})
    elif not is_private(host):
        raise UserError(
            "whoever reaches this address could join the run and be sent its requests", where=f"--bind {workers.bind}",
            remedy="Set a variable to the same long random text on all machines (e.g. of `openssl rand -hex 32`), and "
            "name it here and for the workers: --token-env VARIABLE.",
        )  # fmt: skip


def worker_command(spec: RunSpec) -> str:
    """What to type on a machine that is to send."""
    assert spec.workers is not None
    host, port = split_address(spec.workers.bind, DEFAULT_PORT, "--bind")
    if host in ("0.0.0.0", "::"):  # all of this machine's addresses: its name will do
        host = socket.gethostname()
    words = ["tailgate", "worker", "--master", f"[{host}]:{port}" if ":" in host else f"{host}:{port}"]
    if spec.workers.token_env is not None:
        words += ["--token-env", spec.workers.token_env]
    if spec.target.auth is not None and spec.target.auth.env is not None:
        words += ["--api-key-env", spec.target.auth.env]
    if spec.workload.locustfile is not None:
        words += ["--locustfile", spec.workload.locustfile.name]
    return shlex.join(words)


def key_order(spec: RunSpec) -> dict[str, str] | None:
    """What a worker needs to find its key: the variable's name, never its value."""
    auth = spec.target.auth
    if auth is None or auth.env is None:
        return None
    return {"variable": auth.env, "header": auth.header, "scheme": auth.scheme}


async def spawn(spec: RunSpec) -> LocustProcess:
    """The Locust process: a master of workers, or with injectors of its own."""
    check(spec)
    ui = ["--ui", spec.ui] if spec.ui else []
    injectors, workers = spec.injector_count, list[str]()
    if (w := spec.workers) is not None:
        injectors, workers = 0, ["--bind", w.bind, "--expect", str(w.expect), "--wait", str(w.wait)]
        workers += ["--token-env", w.token_env] if w.token_env else []
    locust = await LocustProcess.spawn(injectors, [*workers, *ui])
    try:
        await locust.load_locustfile(spec)
    except BaseException:
        await locust.close()
        raise
    return locust


async def ready(locust: LocustProcess, spec: RunSpec, manifest: "Manifest", watcher: "Watcher") -> list[Message]:
    """Wait until all injectors are ready; the manifest learns of the workers. What happened meanwhile is returned."""
    events: list[Message] = []
    if spec.workers is None:
        message = await locust.until_ready()
    else:
        watcher.note(f"waiting for {spec.workers.expect} workers on {spec.workers.bind}: {worker_command(spec)}")

        def on_message(message: Message) -> None:
            if message["op"] == "event":
                events.append(message)
                watcher.note(message["text"])

        message = await locust.until_ready(spec.workers.wait + _PREPARE_S, on_message)
        manifest.injectors = message["injectors"]
        manifest.workers = message["workers"]
    for notice in fallbacks.when_ready(manifest, stamps=message["stamps"]):
        watcher.note(f"note: {notice}")
    return events


def on_run_clock(events: list[Message], t0_unix_ns: int) -> list[dict[str, Any]]:
    """Events from before the run's time zero, as `events.jsonl` has them."""
    return [{"t_ns": e["at_unix_ns"] - t0_unix_ns, "kind": e["kind"], "text": e["text"]} for e in events]
