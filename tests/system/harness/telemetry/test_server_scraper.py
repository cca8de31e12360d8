"""Scraping real HTTP servers: what is kept, what is found, what is said when nothing comes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pyarrow.parquet as pq
from aiohttp import web
from tests.kit.scripted import Peer, Request, ScriptedServer, head

from tailgate.harness.telemetry.server import ServerScraper
from tailgate.reports.rundir.telemetry import SERVER_SCHEMA


class Scripted:
    """A /metrics that counts how often it was asked, and can be told to fail."""

    def __init__(self) -> None:
        self.asked = 0
        self.status = 200
        self.authorization: str | None = None
        self.text = '# TYPE vllm:n_total counter\nvllm:n_total{{engine="0"}} {asked}\npython_info 1\n'
        self.asked_three_times = asyncio.Event()

    async def page(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.authorization = request.headers.get("Authorization")
        if self.asked >= 3:
            self.asked_three_times.set()
        return web.Response(text=self.text.format(asked=self.asked), status=self.status)


@asynccontextmanager
async def serving(script: Scripted) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/metrics", script.page)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def test_every_scrape_is_kept_in_the_reports_schema_on_the_run_clock(tmp_path: Path):
    async def scenario() -> str:
        script = Scripted()
        async with serving(script) as url:
            scraper = ServerScraper([url + "/v1"], 0, 0.02, {"Authorization": "Bearer x"}, tmp_path / "s.arrows")
            found = await scraper.start()
            assert (found[0].server, found[0].series, found[0].problem) == ("vllm", 1, None)
            await asyncio.wait_for(script.asked_three_times.wait(), 10)
            await scraper.stop()
            assert script.authorization == "Bearer x"
            scraper.write(tmp_path / "server.parquet")
            return url

    url = asyncio.run(scenario())
    table = pq.read_table(tmp_path / "server.parquet")
    assert table.schema.equals(SERVER_SCHEMA)
    rows = [r for r in table.to_pylist() if r["name"] == "vllm:n_total"]
    assert [r["value"] for r in rows] == list(range(1, len(rows) + 1)) and len(rows) >= 4
    assert {(r["endpoint"], r["labels"]) for r in rows} == {(url, '{"engine":"0"}')}
    times = [r["t_ns"] for r in rows]
    assert times == sorted(times) and times[0] > 1.7e18
    assert set(table["name"].to_pylist()) == {"vllm:n_total", "up", "scrape_duration_seconds"}


def test_a_server_without_metrics_is_found_out_at_the_start():
    async def scenario() -> None:
        script = Scripted()
        script.status = 404
        async with serving(script) as url:
            scraper = ServerScraper([url], 0)
            (found,) = await scraper.start()
            await scraper.stop()
            assert (found.server, found.problem) == (None, "HTTP 404 for /metrics")

    asyncio.run(scenario())


def test_a_page_of_another_kind_is_said_to_be_one():
    async def scenario() -> None:
        script = Scripted()
        script.text = "<html>sign in</html>"
        async with serving(script) as url:
            scraper = ServerScraper([url], 0)
            (found,) = await scraper.start()
            await scraper.stop()
            assert found.problem is not None and "isn't Prometheus text" in found.problem

    asyncio.run(scenario())


def test_a_refused_connection_is_a_problem_once_per_streak_and_up_is_0(tmp_path: Path):
    async def scenario() -> None:
        script = Scripted()
        async with serving(script) as url:
            scraper = ServerScraper([url], 0, 3600)
            await scraper.start()
        for _ in range(3):
            await scraper.scrape()
        await scraper.stop()
        assert len(scraper.problems) == 1 and "Connect" in scraper.problems[0].text
        scraper.write(tmp_path / "server.parquet")

    asyncio.run(scenario())
    rows = pq.read_table(tmp_path / "server.parquet").to_pylist()
    assert [r["value"] for r in rows if r["name"] == "up"] == [1, 0, 0, 0, 0]


def test_an_endpoint_that_hangs_holds_up_no_other(tmp_path: Path):
    async def scenario() -> None:
        script, hanging = Scripted(), asyncio.Event()

        async def hang(_request: web.Request) -> web.Response:
            if hanging.is_set():
                await asyncio.sleep(3600)
            return web.Response(text="vllm:x 1\n")

        app = web.Application()
        app.router.add_get("/metrics", hang)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with serving(script) as url:
            scraper = ServerScraper([url, f"http://127.0.0.1:{runner.addresses[0][1]}"], 0, 0.02)
            await scraper.start()
            hanging.set()
            before = script.asked
            script.asked_three_times.clear()
            while script.asked < before + 10:  # far sooner than the other's time-out
                await asyncio.wait_for(script.asked_three_times.wait(), 3)
                script.asked_three_times.clear()
            await runner.cleanup()
            await scraper.stop()

    asyncio.run(scenario())


def test_a_redirect_is_not_followed_since_a_key_would_go_along():
    seen = list[str]()

    def answer(peer: Peer, request: Request) -> None:
        seen.append(request.target)
        peer.send(head(302, "Location: /elsewhere", "Content-Length: 0"))

    async def scenario(url: str) -> str | None:
        scraper = ServerScraper([url], 0, 60.0, {"X-Api-Key": "k"})
        (found,) = await scraper.start()
        await scraper.stop(last=False)
        return found.problem

    with ScriptedServer(answer) as server:
        assert asyncio.run(scenario(server.url)) == "HTTP 302 for /metrics"
    assert set(seen) == {"/metrics"}
