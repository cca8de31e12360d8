"""Any server started by a command line (docker run, an SGLang launch, a script), known by its readiness URL."""

import shlex
import time
from collections.abc import Mapping

from yarl import URL

from harness.targets.launched import LaunchedTarget
from harness.targets.probe import OPEN, Access
from harness.targets.process import OwnProcess, require_free
from harness.targets.ready import wait_until_ready
from workloads.errors import UserError


class CommandTarget(LaunchedTarget):
    """`kind: command`.

    The command must stay in the foreground and pass SIGTERM on (`docker run --rm` without `-d`, `exec` in a
    script): stopping the deployment is stopping it.

    Args:
        command: split as a shell would; no shell runs it.
        urls: base URLs that it answers at.
        ready: URL that answers 200 once it can serve; default: `/health` of the first.
        env: added to its environment.
        ready_timeout_s: from the spawn.
        access: how it is asked whether it is ready.
        gpus: see `LaunchedTarget`.
    """

    def __init__(
        self,
        command: str,
        urls: tuple[str, ...],
        ready: str | None,
        env: Mapping[str, str],
        ready_timeout_s: float,
        access: Access = OPEN,
        gpus: str | None = None,
    ) -> None:
        super().__init__(gpus)
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise UserError(f"can't be split into words: {error}", where="target.command") from error
        self._urls = urls
        self._ready = ready or f"{urls[0]}/health"
        self._env = env
        self._ready_timeout_s = ready_timeout_s
        self._access = access

    async def launch(self) -> tuple[str, ...]:
        """Run the command and wait for the readiness URL.

        Raises:
            UserError: it can't be run, its port is taken, it ends, or it isn't ready in time.
        """
        url = URL(self._urls[0])
        local = url.host in ("127.0.0.1", "localhost", "::1")
        if local and url.port:
            require_free(url.port, "target.url")
        self.life.command = self._command
        async with await self._access.session() as http:
            began = time.monotonic()
            self.process = await OwnProcess.spawn(self._command, env=self._env, port=url.port if local else None)
            await wait_until_ready(
                self.process,
                self.life,
                http,
                began_s=began,
                health_url=self._ready,
                timeout_s=self._ready_timeout_s,
                where="target.command",
            )
        return self._urls
