"""What answers at a URL: is it an OpenAI API, which models does it serve, is it vLLM? Asked before any load."""

import asyncio
import contextlib
import os
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from tailgate.harness.engine import SIMULATED_MARK, SIMULATED_OWNER
from tailgate.harness.host.http_client import http_client, json_body
from tailgate.harness.targets.base import Identity, TargetGone, is_listed
from tailgate.harness.telemetry.metrics_page import read_page
from tailgate.loadgen.injector.http.endpoint import Trust, checked_route, public_name, redirect_target, told
from tailgate.loadgen.injector.http.proxies import route
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.json_text import json_of

_LIST: Final = "/v1/models"
_OPTIONAL: Final = aiohttp.ClientTimeout(total=5)  # of what a run can do without
_VLLM_OWNERS: Final = ("vllm", SIMULATED_OWNER)
_VLLM_METRIC: Final = re.compile(r"^(# (HELP|TYPE) )?vllm:", re.MULTILINE)
REDIRECTS: Final = (301, 302, 303, 307, 308)
# RFC 9113, 3.4: the client's preface, then a SETTINGS frame (empty); the server's own begins with one as well.
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_HTTP2_SETTINGS: Final = 4
_FRAME_HEAD: Final = 9
_HTTP2_S: Final = 5.0


@dataclass(frozen=True)
class Access:
    """How a server is talked to: with which headers (the API key among them), and whom we trust."""

    headers: Callable[[], Awaitable[Mapping[str, str]]]
    trust: Trust = field(default_factory=Trust)


async def _no_headers() -> Mapping[str, str]:
    return {}


OPEN: Final = Access(_no_headers)


def session(headers: Mapping[str, str], trust: Trust, *, anew: bool = False) -> aiohttp.ClientSession:
    """An HTTP client that trusts whom the injector will trust, and goes its way.

    `anew`: each request has a connection of its own.
    """
    return http_client(headers, trust, anew=anew)


async def identify(
    http: aiohttp.ClientSession, urls: tuple[str, ...], model: str | None, *, simulated: bool
) -> Identity:
    """Ask each URL for its models, and the first for what else it tells.

    A server is vLLM by its own word only: the owner of its models, or the names of its metrics. With a ``model`` a
    list of models that is missing or doesn't name it is a notice, unless vLLM itself made the list.
    """
    lists = await asyncio.gather(*(_models(http, url, given=model is not None) for url in urls))
    names = tuple(str(entry["id"]) for entry in lists[0].entries)
    chosen = model or next(name for name in names if "*" not in name)
    version, has_metrics = await asyncio.gather(get_json(http, f"{urls[0]}/version"), _has_metrics(http, urls[0]))
    is_vllm = has_metrics or any(entry.get("owned_by") in _VLLM_OWNERS for entry in lists[0].entries)
    notices = []
    for url, models in zip(urls, lists, strict=True):
        served = [str(entry["id"]) for entry in models.entries]
        if models.problem:
            notices.append(f"{public_name(url)}{models.problem}; {chosen!r} is asked for as it was given")
        elif not is_listed(chosen, served):
            if model is None or any(entry.get("owned_by") in _VLLM_OWNERS for entry in models.entries):
                raise UserError(
                    f"{public_name(url)} does not serve the model {chosen!r}",
                    where="target.model",
                    remedy=f"It serves: {', '.join(served)}.",
                )
            notices.append(f"{public_name(url)} does not list the model {chosen!r}, which is asked for all the same")
    entry = next((entry for entry in lists[0].entries if entry["id"] == chosen), {})
    release = str(version.get("version", "")) if isinstance(version, dict) else ""
    limit = entry.get("max_model_len")
    return Identity(
        urls=urls,
        model=chosen,
        models=names or (chosen,),
        dialect="vllm" if is_vllm else "openai",
        version=release,
        max_model_len=limit if isinstance(limit, int) else None,
        simulated=simulated or SIMULATED_MARK in release or any(_is_simulated(models.entries) for models in lists),
        listed=not notices,
        notices=tuple(notices),
        silent=tuple(url for url, models in zip(urls, lists, strict=True) if models.silent),
    )


def _is_simulated(entries: list[dict[str, Any]]) -> bool:
    """Whether an embedded engine answers, whoever started it: whatever is measured on it is marked."""
    return any(entry.get("owned_by") == SIMULATED_OWNER for entry in entries)


async def _has_metrics(http: aiohttp.ClientSession, url: str) -> bool:
    """Whether `/metrics` has vLLM's own."""
    try:
        return _VLLM_METRIC.search(await read_page(http, f"{url}/metrics")) is not None
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return False


@dataclass(frozen=True)
class _ModelList:
    entries: list[dict[str, Any]]
    problem: str = ""  # why there are none, as words behind a URL
    silent: bool = False  # the server may be down


async def _models(http: aiohttp.ClientSession, url: str, *, given: bool) -> _ModelList:
    """The list of models; one that can't be had or read is a UserError unless the model's name was ``given``."""
    where = public_name(url)
    way = told(checked_route(url))
    try:
        async with http.get(f"{url}{_LIST}", allow_redirects=False) as response:
            body = await response.read()
            status, location = response.status, response.headers.get("Location", "")
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
        raise UserError(
            f"{where!r} is not an http:// or https:// URL", where="target", remedy="Write it like http://host:8000."
        ) from error
    except aiohttp.ClientSSLError as error:
        await _refuse_http2_only(url)
        raise UserError(
            f"TLS failed: {error}", where=where, remedy="Give the authority's certificate with --ca."
        ) from error
    except aiohttp.ClientHttpProxyError as error:
        raise UserError(
            f"can't be reached {way}: HTTP {error.status} {error.message}",
            where=where,
            remedy="Does the proxy allow it, and does it want a password? NO_PROXY exempts the target from it.",
        ) from error
    except (aiohttp.ClientConnectionError, TimeoutError) as error:
        await _refuse_http2_only(url)
        reason = "no answer in time" if isinstance(error, TimeoutError) else _root_cause(error)
        reached = not isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
        if given and reached:
            return _ModelList([], f"{_LIST} gave no answer ({reason})", silent=True)
        raise TargetGone(
            f"can't be reached{way and ' ' + way}: {reason}", where=where, remedy="Is the server up?"
        ) from error
    except aiohttp.ClientError as error:
        await _refuse_http2_only(url)
        raise UserError(f"is not an OpenAI API: {error}", where=where) from error
    if status in (426, 505):  # Upgrade Required, HTTP Version Not Supported
        await _refuse_http2_only(url)
    if status in REDIRECTS:
        refusal = moved(url, _LIST, location, status)
        if not refusal.stays:
            raise refusal
    if status == 407:
        raise UserError(f"can't be reached {way}: HTTP 407, the proxy wants a password", where=where)
    if status in (401, 403) and not given:  # a key may be good for requests and not for the list: the trial tells
        raise access_refused(where, status)
    if status >= 500 and status != 501 and given:
        return _ModelList([], f"{_LIST} answered HTTP {status}", silent=True)
    if status >= 500 and status != 501:
        raise TargetGone(
            f"answers {_LIST} with HTTP {status}{way and ', asked ' + way}", where=where, remedy="Is the server up?"
        )
    try:
        listing = json_of(body) if status == 200 else None
    except ValueError:
        listing = None
    data = listing.get("data") if isinstance(listing, dict) else None
    entries = [entry for entry in data if isinstance(entry, dict) and "id" in entry] if isinstance(data, list) else []
    if given:
        answered = "lists no models" if status == 200 else f"answered HTTP {status}"
        return _ModelList(entries, "" if entries else f"{_LIST} {answered}")
    if isinstance(data, list) and not any("*" not in str(entry["id"]) for entry in entries):
        what = f"{_LIST} lists only patterns ({entries[0]['id']})" if entries else f"{_LIST} lists no models"
        raise UserError(what, where=where, remedy="Name the model: --model NAME (target.model).")
    if not entries:
        raise UserError(
            f"is not an OpenAI API: {_LIST} answered HTTP {status} without a list of models",
            where=where,
            remedy="Give the base URL, in front of /v1. If the server has no list, name the model: --model NAME.",
        )
    return _ModelList(entries)


class Moved(UserError):
    """A redirect, which the load would not follow; `stays` if it leads to the same base URL (a slash at the end)."""

    stays = False


def moved(url: str, path: str, location: str, status: int) -> Moved:
    """The refusal of a base ``url`` whose ``path`` answers with a redirect; it names the new base URL if it can."""
    target = redirect_target(f"{url}{path}", location)
    base = target.removesuffix(path)
    error = Moved(
        f"redirects {path} to {target or 'nowhere'} (HTTP {status}), and the load doesn't follow redirects",
        where=public_name(url),
        remedy=f"Name the new address: --target {base}" if base != target else "Name the address of the API itself.",
    )
    error.stays = base == public_name(url)
    return error


def access_refused(where: str, status: int) -> UserError:
    return UserError(
        f"refuses access (HTTP {status})", where=where, remedy="Name the API key's variable with --api-key-env."
    )


async def _refuse_http2_only(url: str) -> None:
    """Called when HTTP/1.1 got no answer: say so where the server speaks HTTP/2 and nothing else."""
    if not route(url).proxy and await speaks_http2(url):
        raise UserError(
            "speaks only HTTP/2, and the load generator speaks HTTP/1.1",
            where=public_name(url),
            remedy="Enable HTTP/1.1 on the gateway, or name the server behind it.",
        )


async def speaks_http2(url: str) -> bool:
    """Whether the server behind a base URL chooses HTTP/2 when it may, or understands it without TLS.

    The injector speaks HTTP/1.1: one stream a connection, so that no stream waits for another's bytes and each read's
    kernel stamp is one stream's. Nothing secret is sent, so nobody's certificate matters here.
    """
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    try:
        async with asyncio.timeout(_HTTP2_S):
            reader, writer = await asyncio.open_connection(
                parts.hostname, parts.port or (443 if secure else 80), ssl=_any_context() if secure else None
            )
            with contextlib.closing(writer):
                if secure:
                    chosen: str | None = writer.get_extra_info("ssl_object").selected_alpn_protocol()
                    return chosen == "h2"
                writer.write(_PREFACE)
                head = await reader.readexactly(_FRAME_HEAD)
                return head[3] == _HTTP2_SETTINGS and head[5:] == bytes(4)  # of stream 0
    except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError):
        return False


def _any_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


async def get_json(http: aiohttp.ClientSession, url: str) -> Any:
    """The JSON at a URL; None where there is none, whatever the reason."""
    try:
        async with http.get(url, allow_redirects=False, timeout=_OPTIONAL) as response:
            return await json_body(response)
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None


def _root_cause(error: BaseException) -> str:
    system = getattr(error, "os_error", None)
    if system is None:
        return str(error)
    # asyncio replaces the system's words by "Connect call failed"; the number is still there.
    return os.strerror(system.errno) if system.errno and system.errno > 0 else str(system.strerror or system)
