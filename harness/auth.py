"""API keys: read from the environment or from a command, renewed when they expire, shown to nobody."""

import asyncio
import os

from harness.control import Control
from harness.spec import AuthSpec, TargetSpec
from workloads.errors import UserError

_COMMAND_S = 30.0


class Credentials:
    """The header that proves who we are, if one is needed."""

    def __init__(self, spec: AuthSpec | None) -> None:
        self._spec = spec
        self._key: str | None = None

    async def headers(self) -> dict[str, str]:
        """The header with the key; empty without `auth`.

        Raises:
            UserError: the variable isn't set, or the command failed.
        """
        spec = self._spec
        if spec is None:
            return {}
        if self._key is None:
            self._key = await self._fetch(spec)
        return {spec.header: f"{spec.scheme} {self._key}".strip()}

    async def keep_fresh(self, control: Control, others: dict[str, str]) -> None:
        """Renew the key every `refresh` and tell the injectors, until cancelled."""
        spec = self._spec
        if spec is None or spec.refresh is None:
            return
        while True:
            await asyncio.sleep(spec.refresh)
            self._key = await self._fetch(spec)
            control.send({"op": "headers", "headers": {**others, **await self.headers()}})

    async def _fetch(self, spec: AuthSpec) -> str:
        if spec.env is not None:
            key = os.environ.get(spec.env, "")
            if not key:
                raise UserError(f"the environment variable {spec.env} is not set", where="target.auth.env")
            return key
        assert spec.command is not None
        process = await asyncio.create_subprocess_shell(
            spec.command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            said, complaint = await asyncio.wait_for(process.communicate(), _COMMAND_S)
        except TimeoutError:
            process.kill()
            raise UserError(f"no key within {_COMMAND_S:.0f} s", where="target.auth.command") from None
        key = said.decode().strip()
        if process.returncode or not key:
            why = complaint.decode(errors="replace").strip()[-300:]
            raise UserError(f"exit code {process.returncode}, no key: {why}", where="target.auth.command")
        return key


def credentials(target: TargetSpec) -> Credentials:
    """Of a target."""
    return Credentials(target.auth)
