"""The servers' own figures: `/metrics` of every endpoint, once a second, as a tidy time series.

A scrape that fails is a sample too: `up` is 0 then, as Prometheus has it, and the first reason of a streak is
kept in `problems`. Nothing here stops a run: what is missing is said, and the reports say what they lack.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp
import pyarrow as pa

from tailgate.harness.config.masking import without_credentials
from tailgate.harness.host.http_client import http_client
from tailgate.harness.telemetry.metrics_page import read_page
from tailgate.harness.telemetry.periodic import ended, every
from tailgate.harness.telemetry.prometheus_text import PageReader, SeriesKey
from tailgate.harness.telemetry.sample_store import TidySamples
from tailgate.loadgen.injector.http.endpoint import Trust, public_name
from tailgate.reports.rundir.telemetry import SERVER_SCHEMA

_UP = SeriesKey("up", "{}")
_DURATION = SeriesKey("scrape_duration_seconds", "{}")
_MAX_PROBLEMS = 100


@dataclass(frozen=True, slots=True)
class FirstScrape:
    """What the first scrape of an endpoint brought: which server, how many series; or why nothing."""

    endpoint: str
    server: str | None  # vllm | other | None
    series: int
    problem: str | None


@dataclass(frozen=True, slots=True)
class Problem:
    """A scrape that failed after one that had not (or as the first)."""

    t_ns: int
    endpoint: str
    text: str


class ServerScraper:
    """Scrapes from `start` to `stop`, once more at each of them; `write` leaves `server.parquet`.

    `/metrics` is asked of each base URL; times count from `t0_unix_ns`.
    """

    def __init__(
        self,
        urls: Sequence[str],
        t0_unix_ns: int,
        interval_s: float = 1.0,
        headers: Mapping[str, str] | None = None,
        spool: Path | None = None,
        trust: Trust = Trust(),  # noqa: B008 - frozen
    ) -> None:
        self._trust = trust
        self._t0 = t0_unix_ns
        self._interval = interval_s
        self._headers = dict(headers or {})
        self._readers = {url.rstrip("/").removesuffix("/v1"): PageReader() for url in urls}
        self._samples = TidySamples(SERVER_SCHEMA, spool)
        self._series: dict[str, int] = {}  # of the latest page
        self._up: dict[str, bool] = {}
        self._session: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.problems: list[Problem] = []

    async def start(self) -> list[FirstScrape]:
        """Scrape once and return what came; then go on in the background."""
        # A balancer that chooses for each connection would show one of its replicas, and hide that there are more.
        self._session = http_client(trust=self._trust, anew=True)
        await self._round()
        # Each endpoint has rounds of its own: one that hangs holds up no other.
        self._tasks = [
            asyncio.create_task(every(self._interval, partial(self._scrape, endpoint))) for endpoint in self._readers
        ]
        return [self._found(endpoint) for endpoint in self._readers]

    def renew(self, headers: Mapping[str, str]) -> None:
        self._headers = dict(headers)

    async def stop(self, *, last: bool = True) -> None:
        """End the scraping, after one `last` time."""
        if self._session is None:
            return
        for task in self._tasks:
            await ended(task)
        if last:
            await self._round()
        await self._session.close()
        self._session, self._tasks = None, []

    async def scrape(self) -> None:
        await self._round()

    def write(self, path: Path) -> None:
        self._samples.write(path)

    async def _round(self) -> None:
        await asyncio.gather(*(self._scrape(endpoint) for endpoint in self._readers))

    async def _scrape(self, endpoint: str) -> None:
        assert self._session is not None
        began = time.time_ns()
        keys: list[SeriesKey] = []
        values: list[float] = []
        problem = None
        try:
            page = await read_page(self._session, f"{endpoint}/metrics", self._headers)
        except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
            problem = without_credentials(f"{type(error).__name__}: {error}".rstrip(": "))
        except ValueError as error:
            problem = str(error)
        answered = time.time_ns()
        if problem is None:
            try:
                keys, values = self._readers[endpoint].read(page)
            except ValueError as error:
                problem = f"/metrics isn't Prometheus text: {error}"
        t_ns = (began + answered) // 2 - self._t0
        keys += [_UP, _DURATION]
        values += [float(problem is None), (answered - began) / 1e9]
        columns = [[key.name for key in keys], [key.labels for key in keys], values]
        self._samples.append([pa.repeat(t_ns, len(keys)), pa.repeat(public_name(endpoint), len(keys)), *columns])
        if problem is None:
            self._series[endpoint] = len(keys) - 2
        elif self._up.get(endpoint, True) and len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(Problem(t_ns, public_name(endpoint), problem))
        self._up[endpoint] = problem is None

    def _found(self, endpoint: str) -> FirstScrape:
        series = self._series.get(endpoint, 0)
        if not self._up[endpoint]:
            problem = next(p.text for p in reversed(self.problems) if p.endpoint == public_name(endpoint))
            return FirstScrape(public_name(endpoint), None, 0, problem)
        if not series:
            return FirstScrape(public_name(endpoint), None, 0, "/metrics is empty")
        return FirstScrape(public_name(endpoint), "vllm" if self._readers[endpoint].is_vllm else "other", series, None)
