"""Requests of our own before the load: in the form that will be measured, with a text that won't be.

Their seeds are not the plan's, and where requests have a cache salt theirs is another: nothing that they leave in a
prefix cache is found by the load.
"""

import asyncio
import functools
import re
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import aiohttp
import numpy as np
import orjson

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.run.prompt_content import Prompts
from tailgate.harness.run.request_form import RequestForm
from tailgate.harness.targets.base import Identity
from tailgate.loadgen.injector.api.openai_request import MadeBodies, ReplayedBodies, prompt_maker
from tailgate.loadgen.injector.api.openai_response import BadPayload, Reading, error_text, read_events, read_whole
from tailgate.loadgen.injector.api.request_builder import Row
from tailgate.loadgen.job import LIMITS, PATHS, Job
from tailgate.workloads.plan.plan import Plan
from tailgate.workloads.prompts.content_table import table_default
from tailgate.workloads.prompts.prompts import Mode, PromptMaker
from tailgate.workloads.traces.logged_bodies import Bodies

_JSON: Final = {"Content-Type": "application/json"}
_USUAL: Final = (32, 16)  # tokens of prompt and answer; some servers take no less
# In a string of JSON the quotes would be escaped: this is no generated text.
_FULL: Final = 503
_FINGERPRINT: Final = re.compile(rb'"system_fingerprint"\s*:\s*"([^"\\]*)"')


def with_form(job: Job, spec: RunSpec, identity: Identity, form: RequestForm, prompts: Prompts) -> Job:
    """The job with all that decides what a request's body holds."""
    return replace(
        job,
        content=prompts.table,
        content_options=prompts.options,
        bodies=prompts.bodies,
        served=identity.models,
        extra=spec.extra,
        streamed=spec.streamed,
        forced_output=spec.output == "forced",
        limit=form.limit,
        omitted=form.omitted,
    )


@functools.cache
def _filler(mode: Mode) -> PromptMaker:
    """What makes text to stand for that of a log."""
    return PromptMaker(table_default(), mode=mode)


class OwnRequests:
    """Makes the bodies of such requests, each with a text of its own."""

    def __init__(self, spec: RunSpec, identity: Identity, form: RequestForm, prompts: Prompts, plan: Plan) -> None:
        blank = Job("", "", 0, 1, plan.loop, identity.urls, spec.target.endpoint, identity.model, identity.dialect)
        self._job = with_form(blank, spec, identity, form, prompts)
        self.endpoint = self._job.api
        self._salted = form.salts and spec.cache in (None, "isolated")
        self._plan = plan.table
        self._maker = prompt_maker(self._job) if prompts.bodies is None else None
        if prompts.bodies is not None:
            self._logged = Bodies(Path(prompts.bodies))

    def typical(self) -> bytes:
        """A body with the lengths of the plan's middle request; of a log that request's own fields and limits."""
        rows = self._plan.num_rows
        if not rows:  # users' own code makes the requests
            return self._made(*_USUAL)
        tokens = [self._plan[name].to_numpy() for name in ("prompt_tokens", "output_tokens")]
        at = int(np.argsort(tokens[0].astype(np.int64) + tokens[1], kind="stable")[rows // 2])
        prompt_tokens, output_tokens = (int(column[at]) for column in tokens)
        return self._made(prompt_tokens, output_tokens) if self._maker else self._like(at, prompt_tokens, output_tokens)

    def body(self, prompt_tokens: int, output_tokens: int) -> bytes:
        """A body of about these lengths."""
        if self._maker is not None:
            return self._made(prompt_tokens, output_tokens)
        return self._like(secrets.randbelow(self._plan.num_rows), prompt_tokens, output_tokens, keep_limits=False)

    def _made(self, prompt_tokens: int, output_tokens: int) -> bytes:
        assert self._maker is not None
        return MadeBodies(self._with_salt(), self._maker).body(_row(prompt_tokens, output_tokens))

    def _like(self, at: int, prompt_tokens: int, output_tokens: int, *, keep_limits: bool = True) -> bytes:
        """The logged request of a row of the plan, with another text."""
        job, row = self._with_salt(), _row(prompt_tokens, output_tokens)
        seed = row.content_seed
        logged = dict(self._logged.body(self._plan["content_seed"][at].as_py()))
        if not keep_limits:
            for name in LIMITS:
                logged.pop(name, None)
            logged[job.limit] = output_tokens
        if job.api == "chat":
            logged["messages"] = _filler("chat").messages(seed, [], prompt_tokens)
        elif isinstance(logged.get("prompt"), list):
            logged["prompt"] = orjson.loads(_filler("ids").ids_json(seed, [], prompt_tokens))
        else:
            logged["prompt"] = _filler("text").text(seed, [], prompt_tokens)
        return ReplayedBodies(job, self._logged).around(logged, row)

    def _with_salt(self) -> Job:
        if not self._salted:
            return self._job
        return replace(self._job, extra={**self._job.extra, "cache_salt": secrets.token_hex(8)})


def _row(prompt_tokens: int, output_tokens: int) -> Row:
    return Row(0, None, 0, 0, 0, prompt_tokens, output_tokens, [], secrets.randbits(63), 0)


@dataclass(frozen=True)
class OwnAnswer:
    """What came back; an error that comes inside a 200 counts as a refusal."""

    status: int  # of HTTP; 503 as well where a 200 is followed by the word that there is no room (vLLM looks twice)
    error: str = ""  # the server's words; empty if it served the request
    location: str = ""  # where a redirect points
    fingerprint: str = ""  # `system_fingerprint`

    @property
    def served(self) -> bool:
        return self.status == 200 and not self.error


async def send(
    http: aiohttp.ClientSession, url: str, endpoint: str, body: bytes, timeout: aiohttp.ClientTimeout,
    hear_s: float | None = None,
) -> OwnAnswer:  # fmt: skip
    """Send one; redirects are not followed, since the load doesn't follow them either.

    A streamed answer that goes on for `hear_s` after its first token is hung up on: it is served.
    """
    address, chat = f"{url}{PATHS[endpoint]}", endpoint == "chat"
    async with http.post(address, data=body, headers=_JSON, timeout=timeout, allow_redirects=False) as response:
        raw = await (response.read() if hear_s is None else _heard(response, hear_s, chat=chat))
    found = _FINGERPRINT.search(raw)
    status, error = response.status, ""
    if status == 200:
        error, full = _error_inside(raw, chat=chat)
        status = _FULL if full else status
    else:
        error = error_text(raw)
    return OwnAnswer(
        status,
        " ".join(error.split())[:300],
        response.headers.get("Location", ""),
        found[1].decode(errors="replace") if found else "",
    )


async def _heard(response: aiohttp.ClientResponse, hear_s: float, *, chat: bool) -> bytes:
    """What comes until the answer ends, or has gone on for so long; a TimeoutError where none has begun in time."""
    raw, began = bytearray(), False
    try:
        async with asyncio.timeout(None) as patience:
            async for data in response.content.iter_any():
                raw += data
                if not began and response.status == 200 and raw.lstrip()[:1] != b"{":
                    reading = Reading(chat=chat, vllm=False)
                    read_events(reading, bytes(raw))
                    if began := reading.contents > 0:
                        patience.reschedule(asyncio.get_running_loop().time() + hear_s)
    except TimeoutError:
        if not began:
            raise
    return bytes(raw)


def _error_inside(raw: bytes, *, chat: bool) -> tuple[str, bool]:
    """(The error that a 200 reports instead of an answer, whether it says that there is no room).

    What can't be read is none: the load will show it.
    """
    reading = Reading(chat=chat, vllm=False)
    try:
        if raw.lstrip()[:1] == b"{":
            read_whole(reading, raw)
        else:
            read_events(reading, raw, whole=True)
    except BadPayload:
        return "", False
    instead = reading.error is not None and not reading.contents
    return str(reading.error) if instead else "", instead and reading.turned_away
