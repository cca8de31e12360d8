"""What answers at a URL: is it an OpenAI API, which models does it serve, is it vLLM? Asked before any load."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from tailgate.harness.engine import SIMULATED_OWNER
from tailgate.harness.targets.base import Identity, TargetGone
from tailgate.loadgen.injector.http.endpoint import Trust, public_name, tls_context
from tailgate.workloads.common.errors import UserError

_TIMEOUT = aiohttp.ClientTimeout(total=20, connect=5)
_OPTIONAL = aiohttp.ClientTimeout(total=5)  # of what a run can do without
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
    """An HTTP client that trusts whom the injector will trust; `anew`: each request has a connection of its own."""
    connector = aiohttp.TCPConnector(ssl=tls_context(trust), limit=0, force_close=anew)
    return aiohttp.ClientSession(headers=headers, timeout=_TIMEOUT, connector=connector, trust_env=True)


async def identify(
    http: aiohttp.ClientSession, urls: tuple[str, ...], model: str | None, *, simulated: bool
) -> Identity:
    """Ask each URL for its models, and the first for what else it tells."""
    listed = await asyncio.gather(*(_models(http, url) for url in urls))
    names = tuple(str(entry["id"]) for entry in listed[0])
    chosen = model or names[0]
    for url, entries in zip(urls, listed, strict=True):
        served = [str(entry["id"]) for entry in entries]
        if chosen not in served:
            raise UserError(
                f"{public_name(url)} does not serve the model {chosen!r}",
                where="target.model",
                remedy=f"It serves: {', '.join(served)}.",
            )
    entry = next(entry for entry in listed[0] if entry["id"] == chosen)
    version = await get_json(http, f"{urls[0]}/version")
    is_vllm = entry.get("owned_by") == "vllm" or (isinstance(version, dict) and "version" in version)
    limit = entry.get("max_model_len")
    return Identity(
        urls=urls,
        model=chosen,
        models=names,
        dialect="vllm" if is_vllm else "openai",
        version=str(version.get("version", "")) if isinstance(version, dict) else "",
        max_model_len=limit if isinstance(limit, int) else None,
        simulated=simulated or any(_is_simulated(entries) for entries in listed),
    )


def _is_simulated(entries: list[dict[str, Any]]) -> bool:
    """Whether an embedded engine answers, whoever started it: whatever is measured on it is marked."""
    return any(entry.get("owned_by") == SIMULATED_OWNER for entry in entries)


async def _models(http: aiohttp.ClientSession, url: str) -> list[dict[str, Any]]:
    where = public_name(url)
    try:
        async with http.get(f"{url}/v1/models") as response:
            body = await response.read()
            status = response.status
            listing = await response.json(content_type=None) if status == 200 and body else None
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
        raise UserError(
            f"{where!r} is not an http:// or https:// URL", where="target", remedy="Write it like http://host:8000."
        ) from error
    except aiohttp.ClientSSLError as error:
        await _refuse_http2_only(url)
        raise UserError(
            f"TLS failed: {error}", where=where, remedy="Give the authority's certificate with --ca."
        ) from error
    except (aiohttp.ClientConnectionError, TimeoutError) as error:
        await _refuse_http2_only(url)
        reason = "no answer in time" if isinstance(error, TimeoutError) else _root_cause(error)
        raise TargetGone(f"can't be reached: {reason}", where=where, remedy="Is the server up?") from error
    except (aiohttp.ClientError, ValueError) as error:
        await _refuse_http2_only(url)
        raise UserError(f"is not an OpenAI API: {error}", where=where) from error
    if status in (426, 505):  # Upgrade Required, HTTP Version Not Supported
        await _refuse_http2_only(url)
    if status in (401, 403):
        raise UserError(
            f"refuses access (HTTP {status})", where=where, remedy="Name the API key's variable with --api-key-env."
        )
    if status >= 500:
        raise TargetGone(f"answers /v1/models with HTTP {status}", where=where, remedy="Is the server up?")
    data = listing.get("data") if isinstance(listing, dict) else None
    if not isinstance(data, list) or not data or not all(isinstance(e, dict) and "id" in e for e in data):
        raise UserError(
            f"is not an OpenAI API: /v1/models answered HTTP {status} without a list of models",
            where=where,
            remedy="Give the base URL, in front of /v1.",
        )
    return data


async def _refuse_http2_only(url: str) -> None:
    """Called when HTTP/1.1 got no answer: say so where the server speaks HTTP/2 and nothing else."""
    if await speaks_http2(url):
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
        async with http.get(url, timeout=_OPTIONAL) as response:
            return await response.json(content_type=None) if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None


def _root_cause(error: BaseException) -> str:
    system = getattr(error, "os_error", None)
    if system is None:
        return str(error)
    # asyncio replaces the system's words by "Connect call failed"; the number is still there.
    return os.strerror(system.errno) if system.errno and system.errno > 0 else str(system.strerror or system)
