"""The HTTP client of all that is asked beside the load, which goes the injector's way: same trust, same proxies."""

from collections.abc import Mapping
from typing import Any

import aiohttp
from yarl import URL

from tailgate.loadgen.injector.http.endpoint import Trust, tls_context
from tailgate.loadgen.injector.http.proxies import route
from tailgate.workloads.common.json_text import json_of


class _Request(aiohttp.ClientRequest):
    """A request whose proxy is the one that the injector would use."""

    def __init__(self, method: str, url: URL, **settings: Any) -> None:
        proxy = route(str(url)).proxy
        super().__init__(method, url, **{**settings, "proxy": URL(proxy) if proxy else None})


def http_client(
    headers: Mapping[str, str] | None = None,
    trust: Trust = Trust(),  # noqa: B008 - frozen
    timeout: aiohttp.ClientTimeout = aiohttp.ClientTimeout(total=20, connect=5),  # noqa: B008 - frozen
    *,
    anew: bool = False,
) -> aiohttp.ClientSession:
    """A session with as many connections as are asked for; `anew`: each request has one of its own."""
    # aiohttp's own context is equal to that of the usual trust, and there already.
    own = True if trust == Trust() else tls_context(trust)
    connector = aiohttp.TCPConnector(ssl=own, limit=0, force_close=anew)
    # aiohttp's own way with proxies is not the injector's, and it would take passwords from ~/.netrc.
    return aiohttp.ClientSession(
        headers=headers, timeout=timeout, connector=connector, request_class=_Request, trust_env=False
    )


async def json_body(response: aiohttp.ClientResponse) -> Any:
    """The JSON of a server's answer; None where its status is not 200.

    Raises:
        ValueError: it is none, or is nested too deeply to be read.
    """
    return json_of(await response.read()) if response.status == 200 else None
