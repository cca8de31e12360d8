"""Waiting for a server of ours: its log's milestones, `/health`, the first token; each stamped by our clock.

The phases are contiguous: where one ends the next begins, so they add up to the time from spawn to ready.
"""

import asyncio
import re
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tailgate.harness.targets.base import LAST_WORD_S, Life, TargetGone, end_of_log
from tailgate.harness.targets.inspect.probe import get_json
from tailgate.harness.targets.launch.process import OwnProcess
from tailgate.loadgen.injector.http.endpoint import public_name
from tailgate.loadgen.job import PATHS
from tailgate.workloads.common.errors import UserError

_LOOK_S = 0.05
# Of ordinary length: a first prompt of four tokens or fewer kills the worker of vLLM 0.32's CPU build.
_FIRST_PROMPT = "A server that has just been started is asked for its first token before anything is measured."
_PATIENCE_S = 5.0  # for one answer of the readiness URL
_FIRST_TOKEN = aiohttp.ClientTimeout(total=600)


@dataclass(frozen=True)
class Milestone:
    """A line of the log that ends one phase; `phase` names what has been going on until then."""

    phase: str
    pattern: re.Pattern[str]


@dataclass(frozen=True)
class Readiness:
    """How a server's start is followed."""

    health_url: str  # answers 200 once the server can serve; a redirect is no such answer
    timeout_s: float  # from the spawn
    where: str  # the part of the spec that errors name
    milestones: Sequence[Milestone] = ()  # in order
    details: Sequence[re.Pattern[str]] = ()  # figures in its log: the patterns' groups, by name
    problems: Mapping[str, str] = field(default_factory=dict)  # pattern of a log line -> what to do about it
    detaches: bool = False  # the process may end with 0, and what it started goes on: `Life.detached`


async def wait_until_ready(
    process: OwnProcess, life: Life, http: aiohttp.ClientSession, began_s: float, readiness: Readiness
) -> float:
    """When the health URL answered 200 (time.monotonic, as `began_s` of the spawn); `life` has the phases then.

    Raises:
        TargetGone: it ended, or isn't ready in time; with the lines of its log that say why.
    """
    where, problems, health_url = readiness.where, readiness.problems, readiness.health_url
    marks = _Marks(process, life, began_s, readiness.milestones, readiness.details)
    ending = asyncio.create_task(process.ended())
    deadline = began_s + readiness.timeout_s
    try:
        while True:
            marks.look()
            if ending.done() and not life.detached:
                code = ending.result().code
                assert code is not None
                life.detached = readiness.detaches and code == 0
                if not life.detached:
                    how = f"signal {-code}" if code < 0 else f"exit code {code}"
                    hint = "; if it goes on in the background, `stop` must say how it is ended" if code == 0 else ""
                    raise failure(process, f"the server ended before it was ready ({how}){hint}", where, problems)
            status = await _status(http, health_url, min(_PATIENCE_S, deadline - time.monotonic()))
            if status == 200:
                marks.look()
                return marks.reached("server start")
            if time.monotonic() > deadline:
                last = f" answers HTTP {status}" if status else ""
                what = f"the server was not ready within {readiness.timeout_s:g} s ({public_name(health_url)}{last})"
                raise failure(process, what, where, problems)
            await (asyncio.sleep(_LOOK_S) if ending.done() else asyncio.wait([ending], timeout=_LOOK_S))
    finally:
        ending.cancel()


async def first_token(
    process: OwnProcess, life: Life, http: aiohttp.ClientSession, since_s: float, url: str, model: str | None,
    endpoint: str,
) -> None:  # fmt: skip
    """Ask for one token; the time since ``since_s`` is a phase: late compilation belongs to the start.

    Without a model the first that the server lists is asked; where it lists none, nothing is.
    """
    model = model or _first_model(await get_json(http, f"{url}/v1/models"))
    if model is None:  # `probe.identify` will complain of it
        return
    body: dict[str, Any] = {"model": model, "max_tokens": 1}
    if endpoint == "chat":
        body["messages"] = [{"role": "user", "content": _FIRST_PROMPT}]
    else:
        body["prompt"] = _FIRST_PROMPT
    try:
        status, text = await _post(http, f"{url}{PATHS[endpoint]}", body)
        if status != 200 and "max_completion_tokens" in text:
            del body["max_tokens"]
            status, text = await _post(http, f"{url}{PATHS[endpoint]}", {**body, "max_completion_tokens": 1})
    except (aiohttp.ClientError, TimeoutError) as error:
        ended = None if life.detached else await process.ended_within(LAST_WORD_S)
        if ended is not None:
            raise failure(process, f"{ended.text} when it was asked for its first token", "target") from error
        raise failure(process, f"the server gave no first token: {error!r}", "target") from error
    if status in (401, 403):
        raise UserError(
            f"the server refuses access (HTTP {status})",
            where="target.auth",
            remedy="Say where its API key is: auth: {env: NAME} (--api-key-env).",
        )
    if status != 200:
        raise failure(process, f"the server is up but answers HTTP {status}: {text[:300]}", "target")
    life.phases["first token"] = time.monotonic() - since_s


async def _post(http: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> tuple[int, str]:
    async with http.post(url, json=body, timeout=_FIRST_TOKEN, allow_redirects=False) as response:
        return response.status, await response.text()


def _first_model(listing: Any) -> str | None:
    try:
        return str(listing["data"][0]["id"])
    except (LookupError, TypeError):
        return None


class _Marks:
    """Reads the log as it grows; the first line that matches a milestone ends its phase, in order."""

    def __init__(
        self,
        process: OwnProcess,
        life: Life,
        began_s: float,
        milestones: Sequence[Milestone],
        details: Sequence[re.Pattern[str]],
    ) -> None:
        self._process = process
        self._life = life
        self._last = began_s
        self._milestones = list(milestones)
        self._details = details
        self._at = 0
        self._rest = ""

    def look(self) -> None:
        with self._process.log.open("rb") as file:
            file.seek(self._at)
            new = file.read()
        self._at += len(new)
        *lines, self._rest = (self._rest + new.decode(errors="replace")).split("\n")
        for line in lines:
            for detail in self._details:
                if match := detail.search(line):
                    self._life.details |= {k: float(v.replace(",", "")) for k, v in match.groupdict().items() if v}
            for number, milestone in enumerate(self._milestones):
                if milestone.pattern.search(line):
                    self.reached(milestone.phase)
                    del self._milestones[: number + 1]
                    break

    def reached(self, phase: str) -> float:
        now = time.monotonic()
        self._life.phases[phase] = now - self._last
        self._last = now
        return now


async def _status(http: aiohttp.ClientSession, url: str, within_s: float) -> int | None:
    """The status of a URL's answer; None without one."""
    timeout = aiohttp.ClientTimeout(total=max(within_s, _LOOK_S), connect=2)
    try:
        async with http.get(url, timeout=timeout, allow_redirects=False) as response:
            return response.status
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None


def failure(process: OwnProcess, what: str, where: str, problems: Mapping[str, str] | None = None) -> TargetGone:
    """The error, with the line of the log that one of `problems` matches, else with its last lines."""
    lines = process.tail(400)
    for pattern, remedy in (problems or {}).items():
        matching = [line for line in lines if re.search(pattern, line)]
        if matching:
            what = f"{what}: {matching[-1].strip()[-400:]}"
            return TargetGone(what, where=where, remedy=f"{remedy} Its whole log: {process.log}")
    if process.exit_code == -signal.SIGKILL:
        what += "; if nobody killed it by hand, the machine ran out of memory (dmesg says so)"
    return TargetGone(what, where=where, remedy=end_of_log(lines, process.log))
