"""API keys: read from the environment or from a command, renewed when they expire, shown to nobody."""

import asyncio
import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from tailgate.harness.config.run_spec import AuthSpec, TargetSpec
from tailgate.harness.host.child_process import started
from tailgate.loadgen.redact import SECRETS
from tailgate.workloads.common.errors import UserError

_COMMAND_S: Final = 30.0
# A renewal that failed is tried again: the old key is likely to be good for a while yet.
_RETRY_S: Final = 1.0
_RETRY_MOST_S: Final = 30.0


class Credentials:
    """The header that proves who we are, if one is needed."""

    def __init__(self, spec: AuthSpec | None) -> None:
        self._spec = spec
        self._key: str | None = None
        self._fetched = 0.0  # on the monotonic clock
        self._refused = asyncio.Event()
        self.events: list[dict[str, Any]] = []  # what happened to renewals: {"t_unix_ns", "kind": "auth", "text"}
        self.on_event: Callable[[dict[str, Any]], None] = lambda _event: None

    async def headers(self) -> dict[str, str]:
        """The header with the key; empty without `auth`."""
        spec = self._spec
        if spec is None:
            return {}
        if self._key is None:
            await self._renew(spec)
        elif self._due_in_s() <= 0:  # the target took its time to start
            try:
                await self._renew(spec)
            except UserError as error:
                self._note(f"the key could not be renewed ({error.what}); the old one is used")
        return self._header(spec)

    def refused(self) -> None:
        """The target answered 401: renew the key now, whatever its age."""
        self._refused.set()

    async def keep_fresh(
        self, others: dict[str, str], tell: Sequence[Callable[[dict[str, str]], None]], retry_s: float = _RETRY_S
    ) -> None:
        """Renew a command's key when it is `refresh` old or the target refuses it, until cancelled.

        Whoever sends it is in ``tell``, called with the new headers. A renewal that fails is tried again after
        ``retry_s``, then after twice that, and so on; the old key serves meanwhile, and `events` says since when. So is
        one whose key the target refuses again: a key that is simply wrong doesn't have the command run all the time.
        """
        spec = self._spec
        if spec is None or spec.command is None:
            return
        pause, failures, refusals = self._due_in_s(), 0, 0
        while True:
            refusals = refusals + 1 if await self._is_refused_within(pause) else 0
            try:
                await self._renew(spec)
            except UserError as error:
                pause = min(retry_s * 2**failures, _RETRY_MOST_S)
                failures += 1
                self._note(f"the key could not be renewed ({error.what}); the old one is used, next try in {pause:g} s")
                await asyncio.sleep(pause)
                pause = 0.0
                continue
            if failures:
                self._note(f"the key was renewed after {failures} failed tries")
            elif refusals:
                self._note("the target refused the key (401): it was renewed")
            failures = 0
            headers = {**others, **self._header(spec)}
            for renew in tell:
                renew(headers)
            if refusals:  # the answers to what was sent with the old key are still to come
                await asyncio.sleep(min(retry_s * 2 ** (refusals - 1), _RETRY_MOST_S))
                self._refused.clear()
            pause = self._due_in_s()

    def _header(self, spec: AuthSpec) -> dict[str, str]:
        return {spec.header: f"{spec.scheme} {self._key}".strip()}

    async def _renew(self, spec: AuthSpec) -> None:
        self._key = await _fetch(spec)
        SECRETS.learn(self._header(spec))
        self._fetched = time.monotonic()

    def _due_in_s(self) -> float:
        """How long the key is still good, counted from when it was fetched; without `refresh` for ever."""
        if self._spec is None or self._spec.refresh is None:
            return math.inf
        return self._fetched + self._spec.refresh - time.monotonic()

    async def _is_refused_within(self, seconds: float) -> bool:
        if self._refused.is_set():
            return True
        try:
            await asyncio.wait_for(self._refused.wait(), None if math.isinf(seconds) else max(seconds, 0.0))
        except TimeoutError:
            return False
        return True

    def _note(self, text: str) -> None:
        self.events.append({"t_unix_ns": time.time_ns(), "kind": "auth", "text": text})
        self.on_event(self.events[-1])


async def _fetch(spec: AuthSpec) -> str:
    """The key as it is now; no error shows what was found instead."""
    if spec.env is not None:
        where, key = "target.auth.env", os.environ.get(spec.env, "").strip()
        if not key:
            raise UserError(f"the environment variable {spec.env} is not set", where=where)
    else:
        assert spec.command is not None
        where, key = "target.auth.command", await _said(spec.command)
    if not (key.isascii() and key.isprintable()):
        raise UserError("the key has a line break or a character that can't be part of a header", where=where)
    return key


async def _said(command: str) -> str:
    where = "target.auth.command"
    try:
        process = await started(
            asyncio.create_subprocess_shell(
                command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        )
    except OSError as error:
        raise UserError(f"can't be started: {error.strerror}", where=where) from error
    try:
        output, complaint = await asyncio.wait_for(process.communicate(), _COMMAND_S)
    except TimeoutError:
        raise UserError(f"no key within {_COMMAND_S:.0f} s", where=where) from None
    finally:
        if process.returncode is None:  # too slow, or the run is over: its children go with it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    key = output.decode(errors="replace").strip()
    if process.returncode or not key:
        why = complaint.decode(errors="replace").strip()[-300:]
        printed = f"the command printed no key and ended with exit code {process.returncode}"
        raise UserError(f"{printed}: {why}" if why else printed, where=where)
    return key


def credentials(target: TargetSpec) -> Credentials:
    return Credentials(target.auth)
