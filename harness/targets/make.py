"""From a spec's `target:` to the class that lives it."""

from pathlib import Path

from tailgate.harness.config.run_spec import RunSpec, trust_of
from tailgate.harness.targets.base import Ended, Life, Target, never
from tailgate.harness.targets.command import CommandTarget
from tailgate.harness.targets.credentials import credentials
from tailgate.harness.targets.inspect.probe import Access
from tailgate.harness.targets.sim import SimTarget, sim_deployment
from tailgate.harness.targets.vllm import VllmTarget
from tailgate.workloads.common.errors import UserError


def make_target(spec: RunSpec) -> Target:
    """The target of a spec."""
    target = spec.target
    key = credentials(target)

    async def headers() -> dict[str, str]:
        return {**target.headers, **await key.headers()}

    access = Access(headers, trust_of(spec))
    gpus = _gpus(spec)
    match target.kind:
        case "url":
            return UrlTarget(target.all_urls)
        case "sim":
            assert target.sim is not None
            if target.clock == "virtual":  # nothing is started
                return UrlTarget(sim_deployment(target.sim, target.args, spec.seed).names)
            return SimTarget(target.sim, target.args, spec.seed, gpus)
        case "vllm":
            assert target.model is not None
            return VllmTarget(target.model, target.args, target.env, target.python, target.ready_timeout, access, gpus)
        case "command":
            assert target.command is not None
            if not target.all_urls:
                raise UserError("`url` is missing: where will it listen?", where="target.url")
            return CommandTarget(
                target.command, target.all_urls, target.ready, target.env, target.ready_timeout, access, gpus,
                target.stop, target.model, target.endpoint,
            )  # fmt: skip


class UrlTarget:
    """A deployment that someone else runs, known by its base URLs."""

    life: Life | None = None

    def __init__(self, urls: tuple[str, ...]) -> None:
        self._urls = urls

    async def start(self) -> tuple[str, ...]:
        return self._urls

    def processes(self) -> dict[str, int]:
        return {}

    async def ended(self) -> Ended:
        """Never returns: the injector and `/metrics` see it go."""
        return await never()

    def keep_log(self, run_dir: Path) -> None:
        """Does nothing: its log is elsewhere."""

    async def stop(self) -> None:
        """Does nothing: it isn't ours."""


def _gpus(spec: RunSpec) -> str | None:
    """Whose memory is watched while it starts and stops; None: no GPU's, or they are on another machine."""
    source, _, which = spec.telemetry.gpu.partition(":")
    if source == "nvml":
        return which
    return "" if source == "auto" and spec.target.kind != "sim" else None


def served_model(spec: RunSpec) -> str | None:
    """The name that the deployment answers to, as far as the spec says; None: the first one that it lists."""
    target = spec.target
    if target.kind != "vllm":
        return target.model
    name = target.args.get("served-model-name", target.args.get("served_model_name", target.model))
    return str(name[0] if isinstance(name, list) else name)
