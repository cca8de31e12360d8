"""The prefix cache before a measurement: as the spec declares it, and shown to be so.

| policy | how |
|---|---|
| `isolated` | a `cache_salt` of this run: what others left in the cache can't be found. Needs no development endpoint |
| `cold` | `POST /reset_prefix_cache` to every server, whose answer must say that it succeeded |
| `warm` | primed by the run's own warm-up |
| `as-is` | whatever is there; only ever reported |
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tailgate.harness.host.http_client import json_body
from tailgate.harness.targets.base import Identity
from tailgate.loadgen.injector.http.endpoint import public_name
from tailgate.workloads.common.errors import UserError


@dataclass(frozen=True)
class CacheState:
    """The policy in force, and the fields that it adds to every request."""

    policy: str
    extra: dict[str, Any] = field(default_factory=dict)


async def prepare_caches(
    http: aiohttp.ClientSession,
    identity: Identity,
    declared: str | None,
    warmup_s: float = 0.0,
    several: Sequence[str] = (),
    *,
    can_salt: bool,
) -> CacheState:
    """Bring the caches into the declared state, or refuse; undeclared: isolated where requests ``can_salt``.

    `several` are the URLs behind which more than one server answers: a reset would reach one of them.
    """
    policy = declared or ("isolated" if can_salt else "as-is")
    if policy == "isolated":
        if not can_salt:
            raise UserError(
                f"requests to {public_name(identity.urls[0])} have no cache_salt, since the server doesn't say that it "
                "is vLLM, or refuses the field; so its cache can't be isolated",
                where="cache",
                remedy="Declare cache: as-is, or, if the server knows the field, target.fields: vllm (--fields vllm).",
            )
        return CacheState(policy, {"cache_salt": secrets.token_hex(8)})
    if policy == "warm" and not warmup_s:
        raise UserError(
            "nothing would warm it: the run has no warm-up",
            where="cache",
            remedy="Give workload.warmup (--warmup), or declare cache: as-is.",
        )
    if policy == "cold":
        if several:
            raise UserError(
                "several servers answer behind this URL, and a reset would reach only one of them",
                where=f"cache: {public_name(several[0])}",
                remedy="Name each server under target.urls (repeat --target), or declare cache: isolated.",
            )
        for url in identity.urls:
            await _reset(http, url)
    return CacheState(policy)


async def _reset(http: aiohttp.ClientSession, url: str) -> None:
    where = f"cache: {public_name(url)}"
    try:
        async with http.post(f"{url}/reset_prefix_cache", allow_redirects=False) as response:
            status = response.status
            body = await json_body(response)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise UserError(f"the prefix cache can't be reset: {error}", where=where) from error
    if status != 200:
        raise UserError(
            f"the prefix cache can't be reset: HTTP {status} for /reset_prefix_cache",
            where=where,
            remedy="Start vLLM with VLLM_SERVER_DEV_MODE=1, or declare cache: isolated, which needs nothing.",
        )
    if not (isinstance(body, dict) and body.get("success") is True):
        raise UserError(
            f"the server refused to reset its prefix cache ({body})",
            where=where,
            remedy="It does so while requests are running: keep other traffic away, or declare cache: isolated.",
        )
