"""A gateway that speaks only HTTP/2 is named as such before any load; one that speaks both is none."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiohttp
import pytest
import trustme

from tailgate.harness.targets.inspect.probe import identify, session, speaks_http2
from tailgate.loadgen.injector.http.endpoint import Trust
from tailgate.workloads.common.errors import UserError

# SETTINGS (empty), then GOAWAY with PROTOCOL_ERROR: what an HTTP/2 server has for a client of HTTP/1.1.
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
GOAWAY = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + bytes(4) + b"\x00\x00\x00\x01"
MODELS = b'{"data":[{"id":"m","owned_by":"vllm"}]}'

T = TypeVar("T")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def only_http2(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(SETTINGS + GOAWAY)
    writer.close()


async def http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        writer.close()
        return
    known = head.startswith(b"GET /v1/models ")
    body, status = (MODELS, b"200 OK") if known else (b"", b"404 Not Found")
    writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(body), body))
    writer.close()


def with_server(serve: Serve, alpn: list[str] | None, ask: Callable[[str], Awaitable[T]]) -> T:
    """Serve on loopback, with TLS if ALPN names are given; what the question says."""
    context = None
    if alpn is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        context.set_alpn_protocols(alpn)

    async def run() -> T:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await ask(f"{'https' if context else 'http'}://127.0.0.1:{port}")

    return asyncio.run(run())


async def probe(url: str) -> str:
    async with session({}, Trust(insecure=True)) as http:
        return (await identify(http, (url,), None, simulated=False)).model


@pytest.mark.parametrize("alpn", [["h2"], None])
def test_a_gateway_of_http_2_alone_is_named(alpn: list[str] | None) -> None:
    with pytest.raises(UserError, match="speaks only HTTP/2") as caught:
        with_server(only_http2, alpn, probe)
    assert "HTTP/1.1" in caught.value.remedy
    assert caught.value.where.startswith("http")


@pytest.mark.parametrize("alpn", [["h2", "http/1.1"], ["http/1.1"], None])
def test_a_server_that_speaks_http_1_1_is_measured_whatever_else_it_speaks(alpn: list[str] | None) -> None:
    assert with_server(http1, alpn, probe) == "m"


def test_a_server_that_dies_on_us_is_not_taken_for_http_2() -> None:
    async def rude(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    with pytest.raises(UserError, match="can't be reached"):
        with_server(rude, None, probe)


@pytest.mark.parametrize("alpn", [["http/1.1"], None])
def test_http_1_1_is_not_http_2(alpn: list[str] | None) -> None:
    assert with_server(http1, alpn, speaks_http2) is False


def test_what_is_no_url_is_said_to_be_none() -> None:
    async def ask() -> None:
        async with aiohttp.ClientSession() as http:
            await identify(http, ("localhost:8000",), None, simulated=False)

    with pytest.raises(UserError, match="not an http:// or https:// URL"):
        asyncio.run(ask())
