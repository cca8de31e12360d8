"""A vLLM that we launch: flags checked first, its start timed by its own log, its end awaited.

`vllm serve` where that command works; where the package lacks its metadata (the CPU builds), the server module.
"""

import asyncio
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tailgate.harness.targets import vllm_flags
from tailgate.harness.targets.inspect.probe import OPEN, Access
from tailgate.harness.targets.launch.launched import LaunchedTarget
from tailgate.harness.targets.launch.process import free_port, require_free
from tailgate.harness.targets.launch.ready import Milestone, Readiness
from tailgate.harness.targets.vllm_flags import flag
from tailgate.workloads.common.errors import UserError

MILESTONES: Final = (
    Milestone("process start", re.compile(r"non-default args|Resolved architecture")),
    Milestone("engine process", re.compile(r"Initializing a V\d LLM engine")),
    Milestone("worker start", re.compile(r"Starting to load model")),
    # The CPU worker doesn't announce the end of the loading; the size of the cache comes right after it.
    Milestone("model load", re.compile(r"Model loading took|KV cache size:")),
    Milestone("engine init", re.compile(r"init engine .* took")),
)
DETAILS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"Model loading took (?P<model_gib>[\d.]+) GiB(?: memory)? and (?P<model_load_s>[\d.]+) sec",
        r"Loading weights took (?P<weights_load_s>[\d.]+) sec",
        r"init engine .* took (?P<engine_init_s>[\d.]+) s",
        r"Available KV cache memory: (?P<kv_cache_gib>[\d.]+) GiB",
        r"KV cache size: (?P<kv_cache_tokens>[\d,]+) tokens",
        r"Graph capturing finished in (?P<graph_capture_s>[\d.]+) secs, took (?P<graph_gib>[\d.]+) GiB",
    )
)
PROBLEMS: Final = {
    r"OutOfMemoryError|out of memory|No available memory for the cache blocks|Free memory on device":
        "Lower max-model-len, max-num-seqs or the model's precision, or give more memory or GPUs.",
    r"larger than the available KV cache":
        "Lower max-model-len, or give the cache more room (gpu-memory-utilization, more GPUs).",
    r"(?i)address already in use": "Another server listens on that port.",
    r"(?i)(repository not found|is not a local folder and is not a valid model|gated repo|401 client error)":
        "Check target.model; a gated model needs a token in the environment.",
}  # fmt: skip

_KEY: Final = "api-key"
_DETAILS: Final = "--enable-prompt-tokens-details"


@dataclass(eq=False)
class VllmTarget(LaunchedTarget):
    """`kind: vllm`."""

    model: str  # a name or a folder
    args: Mapping[str, Any]  # vLLM's flags
    env: Mapping[str, str]  # added to its environment
    python: str | None  # vLLM's interpreter; None: found (see `vllm_flags.find_python`)
    ready_timeout_s: float  # from the spawn
    access: Access = OPEN  # how it is asked whether it is ready
    gpus: str | None = None  # see `LaunchedTarget`

    def __post_init__(self) -> None:
        super().__init__(self.gpus)
        self.args = {key.replace("_", "-"): value for key, value in self.args.items()}
        self.installed: vllm_flags.Installed | None = None

    @property
    def served_model(self) -> str:
        name = self.args.get("served-model-name", self.model)
        return str(name[0] if isinstance(name, list) else name)

    async def launch(self) -> tuple[str, ...]:
        """Check the flags, launch, wait for `/health` and for a first token."""
        if self.model.startswith(("/", ".", "~")) and not Path(self.model).expanduser().is_dir():
            raise UserError(f"there is no folder {self.model}", where="target.model")
        self.installed = await vllm_flags.inspect(vllm_flags.find_python(self.python))
        vllm_flags.check(self.installed, self.args)
        if self.installed.flags is None:
            self.life.notices.append(
                f"the flags were not checked: vLLM {self.installed.version} could not list its own"
            )
        port = int(self.args.get("port") or free_port())
        await asyncio.to_thread(require_free, port, "target.args.port")
        host = str(self.args.get("host", "127.0.0.1"))
        command = self._command(self.installed, host, port)
        url = _url(self.args, host, port)
        readiness = Readiness(f"{url}/health", self.ready_timeout_s, "target", MILESTONES, DETAILS, PROBLEMS)
        env = self._environment(host)
        await self.serve(command, env, port, self.access, readiness, url, self.served_model, "completions")
        return (url,)

    def _environment(self, host: str) -> dict[str, str]:
        """The server's environment: an API key is passed here, where no list of processes shows it."""
        environment = dict(self.env)
        if _is_here(host):  # nobody else reaches what this adds: resolved settings, resetting the cache
            environment = {"VLLM_SERVER_DEV_MODE": os.environ.get("VLLM_SERVER_DEV_MODE", "1"), **environment}
        key = self.args.get(_KEY)
        if isinstance(key, list | tuple) and len(key) == 1:
            key = key[0]
        if isinstance(key, list | tuple):
            raise UserError("several keys can't be kept out of the list of processes", where=f"target.args.{_KEY}",
                            remedy="Give one.")  # fmt: skip
        if key is not None:
            environment["VLLM_API_KEY"] = str(key)
        return environment

    def _command(self, installed: vllm_flags.Installed, host: str, port: int) -> list[str]:
        model = os.path.expanduser(self.model)
        settings = {**self.args, "host": host, "port": port}
        if _DETAILS in (
            installed.flags or {}
        ):  # usage tells cached tokens: what shows whether the cache was as declared
            settings.setdefault(_DETAILS[2:], True)
        flags = [text for key, value in settings.items() if key != _KEY for text in flag(key, value)]
        if installed.has_command:
            return [str(Path(installed.python).with_name("vllm")), "serve", model, *flags]
        return [installed.python, "-m", "vllm.entrypoints.openai.api_server", "--model", model, *flags]


def _is_here(host: str) -> bool:
    return host in ("127.0.0.1", "localhost", "::1")


def _url(args: Mapping[str, Any], host: str, port: int) -> str:
    """Where a server that listens at `host` is reached from here."""
    scheme = "https" if args.get("ssl-certfile") or args.get("ssl-keyfile") else "http"
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://{f'[{here}]' if ':' in here else here}:{port}"
