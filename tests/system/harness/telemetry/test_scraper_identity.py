"""The scraper shows the same key as the injectors, also a renewed one, and trusts the same authority."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import trustme

from tailgate.harness.telemetry.server import ServerScraper
from tailgate.loadgen.injector.http.endpoint import Trust

PAGE = b"# TYPE x gauge\nx 1\n"


def serving(context: ssl.SSLContext | None, use: Callable[[str, list[str]], Awaitable[None]]) -> None:
    """Serve `/metrics` on loopback; ``use`` gets the base URL and the list of keys that were shown."""
    keys: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()
                return
            lines = dict(line.split(": ", 1) for line in head.strip().split("\r\n")[1:])
            keys.append(lines.get("Authorization", ""))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(PAGE), PAGE))

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        async with server:
            port = server.sockets[0].getsockname()[1]
            await use(f"{'https' if context else 'http'}://127.0.0.1:{port}", keys)

    asyncio.run(run())


def test_a_renewed_key_is_shown_from_the_next_scrape_on() -> None:
    async def use(url: str, keys: list[str]) -> None:
        scraper = ServerScraper([url], 0, 3600, {"Authorization": "Bearer one"})
        await scraper.start()
        scraper.renew({"Authorization": "Bearer two"})
        await scraper.scrape()
        await scraper.stop()
        assert keys == ["Bearer one", "Bearer two", "Bearer two"]

    serving(None, use)


def test_a_private_authority_is_trusted_when_it_is_named(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)

    async def use(url: str, _keys: list[str]) -> None:
        for trust, trusted in ((Trust(ca=str(tmp_path / "ca.pem")), True), (Trust(), False)):
            scraper = ServerScraper([url], 0, 3600, trust=trust)
            (found,) = await scraper.start()
            await scraper.stop()
            assert (found.problem is None) == trusted

    serving(context, use)
