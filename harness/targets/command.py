"""Any server started by a command line (docker run, an SGLang launch, helm install), known by its readiness URL.

Two kinds, told by what the command does:

| | foreground | detached |
|---|---|---|
| the command | goes on as long as the server (`docker run --rm`) | ends with 0 (`docker run -d`, `helm install`) |
| the server's death | the command's end | its URL can't be connected to any more |
| its end | the spec's `stop`, if there is one; then SIGTERM to the command | the spec's `stop`, which it needs |
"""

import asyncio
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from tailgate.harness.targets.base import Ended, never
from tailgate.harness.targets.inspect.probe import OPEN, Access, session
from tailgate.harness.targets.launch.container import started_container
from tailgate.harness.targets.launch.launched import LaunchedTarget
from tailgate.harness.targets.launch.process import require_free
from tailgate.harness.targets.launch.ready import Readiness
from tailgate.loadgen.loopback import is_loopback
from tailgate.workloads.common.errors import UserError

_STOP_S: Final = 120.0
_WATCH_S: Final = 0.25
_REFUSED: Final = 3  # times in a row, so that it is gone and not only busy


@dataclass(eq=False)
class CommandTarget(LaunchedTarget):
    """`kind: command`."""

    command: str  # split as a shell would; no shell runs it
    urls: tuple[str, ...]  # base URLs that it answers at
    ready: str | None  # URL that answers 200 once it can serve; None: `/health` of the first
    env: Mapping[str, str]  # added to its environment
    ready_timeout_s: float  # from the spawn
    access: Access = OPEN  # how it is asked whether it is ready
    gpus: str | None = None  # see `LaunchedTarget`
    stop_command: str | None = None  # ends what `command` started
    model: str | None = None  # asked for a first token; None: the first that it lists
    endpoint: str = "completions"  # of the first token

    def __post_init__(self) -> None:
        super().__init__(self.gpus)
        self._command = _words(self.command, "target.command")
        self._stop = None if self.stop_command is None else _words(self.stop_command, "target.stop")
        self._ready = self.ready or f"{self.urls[0]}/health"

    async def launch(self) -> tuple[str, ...]:
        """Run the command, wait for the readiness URL and for a first token."""
        url = URL(self.urls[0])
        local = is_loopback(url.host or "")
        if local and url.port:
            require_free(url.port, "target.url")
        port = url.port if local else None
        detaches = self._stop is not None
        readiness = Readiness(self._ready, self.ready_timeout_s, "target.command", detaches=detaches)
        await self.serve(self._command, self.env, port, self.access, readiness, self.urls[0], self.model, self.endpoint)
        self.life.container, self.life.instance = await started_container(self._command, port)
        return self.urls

    async def ended(self) -> Ended:
        if self.process is None:
            return await super().ended()
        while not self.life.detached:
            ended = await super().ended()
            if ended.code or self._stop is None:
                return ended
            self.life.detached = True
        await self._unreachable()
        if self.process.stopping:
            return await never()
        return Ended(None, self.process.tail(), str(self.process.log))

    async def before_stop(self) -> None:
        """Run the spec's `stop`; its output goes to the server's log."""
        if self._stop is None or self.process is None:
            return
        self.process.stopping = True
        with self.process.log.open("ab") as log:
            try:
                ending = await asyncio.create_subprocess_exec(
                    *self._stop, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            except OSError as error:
                self.life.notices.append(f"the stop command can't be run: {error.strerror}")
                return
        try:
            self.life.stop_exit_code = await asyncio.wait_for(ending.wait(), _STOP_S)
        except TimeoutError:
            ending.kill()
            await ending.wait()
            self.life.notices.append(f"the stop command did not end within {_STOP_S:.0f} s and was killed")
            return
        if self.life.stop_exit_code:
            self.life.notices.append(
                f"the stop command ended with exit code {self.life.stop_exit_code}: is the server gone?"
            )

    async def _unreachable(self) -> None:
        """Return when the readiness URL can't be connected to."""
        refused = 0
        timeout = aiohttp.ClientTimeout(total=1.0)
        async with session(await self.access.headers(), self.access.trust) as http:
            while refused < _REFUSED:
                try:
                    async with http.get(self._ready, timeout=timeout, allow_redirects=False):
                        refused = 0
                except aiohttp.ClientConnectionError as error:
                    # A time-out of a busy server is one as well, and no sign of death.
                    refused = 0 if isinstance(error, TimeoutError) else refused + 1
                except (aiohttp.ClientError, TimeoutError):
                    refused = 0
                await asyncio.sleep(_WATCH_S)


def _words(command: str, where: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise UserError(f"can't be split into words: {error}", where=where) from error
