"""What every kind of deployment can do. A run starts it, asks what it is, measures it, and stops it."""

import asyncio
import re
from collections.abc import Coroutine, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import aiohttp

from tailgate.harness.config.masking import masked_words
from tailgate.workloads.common.errors import UserError

# A broken connection is heard before the end of the process that broke it.
LAST_WORD_S: Final = 1.0
_QUOTED_LINES: Final = 15

T = TypeVar("T")


class TargetGone(UserError):
    """The deployment itself failed: it ended, or doesn't answer. Neither the input nor this machine is to blame."""


@dataclass(frozen=True)
class Identity:
    """What a deployment says it is, once it answers."""

    urls: tuple[str, ...]
    model: str
    models: tuple[str, ...]
    dialect: str  # vllm | openai
    version: str
    max_model_len: int | None
    simulated: bool = False
    fingerprint: dict[str, Any] = field(default_factory=dict)
    listed: bool = True  # the list of models names what is asked for; False: missing, empty or rewritten
    notices: tuple[str, ...] = ()  # what a reader should know about how it was found
    silent: tuple[str, ...] = ()  # URLs whose list of models failed as if they were down: only an answer shows

    def serves(self, name: str) -> bool:
        """Whether the list of models has a name, or a pattern that fits (`openai/*`)."""
        return is_listed(name, self.models)


def is_listed(name: str, models: Sequence[str]) -> bool:
    """Whether a model is in a list, whose entries may have `*` for any letters."""
    return any(
        name == entry or ("*" in entry and re.fullmatch(re.escape(entry).replace(r"\*", ".*"), name))
        for entry in models
    )


@dataclass(frozen=True)
class Ended:
    """A server of ours that is gone although nobody told it to go."""

    code: int | None  # exit code; negative: the signal that killed it; None: not a process of ours, its URL is dead
    log: tuple[str, ...]  # its last lines
    path: str = ""  # the log itself

    @property
    def text(self) -> str:
        if self.code is None:
            return "the server can't be reached any more"
        how = f"was killed by signal {-self.code}" if self.code < 0 else f"ended with exit code {self.code}"
        return f"the server {how}"

    def error(self, while_: str) -> TargetGone:
        return TargetGone(f"{self.text} {while_}", where="target", remedy=end_of_log(self.log, self.path))


@dataclass
class Life:
    """A deployment's start and end, in seconds. `phases` are contiguous and add up to `ready_s`."""

    command: list[str] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    details: dict[str, float] = field(default_factory=dict)  # what its log says: model_load_s, model_gib, ...
    detached: bool = False  # the command has ended well and what it started goes on
    stop_s: float | None = None
    killed: bool = False  # SIGTERM was not enough
    exit_code: int | None = None
    stop_exit_code: int | None = None  # of the spec's `stop` command
    port_free: bool | None = None  # its port could be listened at again after its end; None: not known
    vram: dict[str, dict[str, float]] = field(default_factory=dict)  # see `launch.gpu_memory`; empty without NVML
    memory_back_s: float | None = None  # after its end, until its GPUs had their memory again; None: not, or not seen
    container: dict[str, str] = field(default_factory=dict)  # of a `docker run`: kind, image, image_digest
    instance: dict[str, str] = field(default_factory=dict)  # which container it was
    notices: list[str] = field(default_factory=list)  # what a reader should know

    @property
    def ready_s(self) -> float:
        return sum(self.phases.values())

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "command": masked_words(self.command), "ready_s": self.ready_s}


class Target(Protocol):
    """A deployment's life: `start` until it answers, `stop` when nothing of it is left."""

    @property
    def life(self) -> Life | None:
        """None: somebody else started it."""
        ...

    async def start(self) -> tuple[str, ...]:
        """Bring it up; the base URLs it answers at.

        Raises:
            UserError: it can't be started, or never answers.
        """
        ...

    def processes(self) -> dict[str, int]:
        """Role to process id of what we started."""
        ...

    async def ended(self) -> Ended:
        """Return when what we started is gone by itself; never, for what isn't ours."""
        ...

    def keep_log(self, run_dir: Path) -> None:
        """Move the server's log into the run directory."""
        ...

    async def stop(self) -> None:
        """Take down what `start` brought up."""
        ...


def end_of_log(lines: Sequence[str], path: object) -> str:
    """The last lines of a server's log, as part of an error message."""
    quoted = "\n    ".join(line[-300:] for line in lines[-_QUOTED_LINES:])
    return f"Its log ({path}) ends with\n    {quoted}" if quoted else "It wrote no log."


async def never() -> Ended:
    """`Target.ended` of a deployment that isn't ours."""
    return await asyncio.Future()


async def unless_gone(target: Target, work: Coroutine[Any, Any, T]) -> T:
    """The result of what is done before the load, unless the deployment ends by itself meanwhile.

    Raises:
        TargetGone: it has ended, or breaks connections off.
    """
    doing, ending = asyncio.create_task(work), asyncio.create_task(target.ended())
    try:
        await asyncio.wait({doing, ending}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done() and _lost_connection(doing.exception()) and target.life is not None:
            await asyncio.wait({ending}, timeout=LAST_WORD_S)
        if ending.done():
            raise ending.result().error("before the load began")
        return doing.result()
    except aiohttp.ClientError as error:
        raise TargetGone(f"closes connections before the load began: {error}", where="target") from error
    finally:
        doing.cancel()
        ending.cancel()
        await asyncio.gather(doing, ending, return_exceptions=True)


def _lost_connection(error: BaseException | None) -> bool:
    return isinstance((error and error.__cause__) or error, aiohttp.ClientError | OSError)
