"""A vLLM that we launch: flags checked first, its start timed by its own log, its end awaited.

`vllm serve` where that command works; where the package lacks its metadata (the CPU builds), the server module.
"""

import asyncio
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tailgate.harness.targets import vllm_flags
from tailgate.harness.targets.inspect.probe import OPEN, Access
from tailgate.harness.targets.launch.launched import LaunchedTarget
from tailgate.harness.targets.launch.process import free_port, require_free
from tailgate.harness.targets.launch.ready import Detail, Milestone, Readiness
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
    Detail(re.compile(pattern))
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


class VllmTarget(LaunchedTarget):
    """`kind: vllm`.

    Args:
        model: a name or a folder; `--model`.
        args: vLLM's flags.
        env: added to its environment.
        python: vLLM's interpreter; None: found (see `vllm_flags.find_python`).
        ready_timeout_s: from the spawn.
        access: how it is asked whether it is ready.
        gpus: see `LaunchedTarget`.
    """

    def __init__(
        self,
        model: str,
        args: Mapping[str, Any],
        env: Mapping[str, str],
        python: str | None,
        ready_timeout_s: float,
        access: Access = OPEN,
        gpus: str | None = None,
    ) -> None:
        super().__init__(gpus)
        self._model = model
        self._args = {key.replace("_", "-"): value for key, value in args.items()}
        self._env = env
        self._python = python
        self._ready_timeout_s = ready_timeout_s
        self._access = access
        self.installed: vllm_flags.Installed | None = None

    @property
    def served_model(self) -> str:
        name = self._args.get("served-model-name", self._model)
        return str(name[0] if isinstance(name, list) else name)

    async def launch(self) -> tuple[str, ...]:
        """Check the flags, launch, wait for `/health` and for a first token.

        Raises:
            UserError: no vLLM, an unknown flag, no such model folder, the port is taken, or it doesn't come up.
        """
        if self._model.startswith(("/", ".", "~")) and not Path(self._model).expanduser().is_dir():
            raise UserError(f"there is no folder {self._model}", where="target.model")
        self.installed = await vllm_flags.inspect(vllm_flags.find_python(self._python))
        vllm_flags.check(self.installed, self._args)
        if self.installed.flags is None:
            self.life.notices.append(
                f"the flags were not checked: vLLM {self.installed.version} didn't tell its parser's"
            )
        port = int(self._args.get("port") or free_port())
        await asyncio.to_thread(require_free, port, "target.args.port")
        host = str(self._args.get("host", "127.0.0.1"))
        command = self._command(self.installed, host, port)
        url = _url(self._args, host, port)
        readiness = Readiness(f"{url}/health", self._ready_timeout_s, "target", MILESTONES, DETAILS, PROBLEMS)
        env = self._environment(host)
        await self.serve(command, env, port, self._access, readiness, url, self.served_model, "completions")
        return (url,)

    def _environment(self, host: str) -> dict[str, str]:
        """The server's environment: an API key is passed here, where no list of processes shows it."""
        found = dict(self._env)
        if _is_here(host):  # nobody else reaches what this adds: resolved settings, resetting the cache
            found = {"VLLM_SERVER_DEV_MODE": os.environ.get("VLLM_SERVER_DEV_MODE", "1"), **found}
        key = self._args.get(_KEY)
        if isinstance(key, list | tuple) and len(key) == 1:
            key = key[0]
        if isinstance(key, list | tuple):
            raise UserError("several keys can't be kept out of the list of processes", where=f"target.args.{_KEY}",
                            remedy="Give one.")  # fmt: skip
        if key is not None:
            found["VLLM_API_KEY"] = str(key)
        return found

    def _command(self, installed: vllm_flags.Installed, host: str, port: int) -> list[str]:
        model = os.path.expanduser(self._model)
        settings = {**self._args, "host": host, "port": port}
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
