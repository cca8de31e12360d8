"""Before any load: does one URL lead to several servers? A few scrapes of `/metrics`, each on a connection of its own.

A balancer in front of replicas may choose for each request or for each connection. What the samples of the run itself
tell is `reports.rundir.replicas`, which also judges these.
"""

import asyncio
from typing import Final

import aiohttp
import pyarrow as pa

from tailgate.harness.telemetry.metrics_page import read_page
from tailgate.harness.telemetry.prometheus_text import PageReader
from tailgate.reports.rundir.replicas import several_behind
from tailgate.reports.rundir.telemetry import SERVER_SCHEMA, Telemetry

# Chosen at random, two replicas look like one with a chance of 1 in 128.
_SCRAPES: Final = 8


async def balanced(http: aiohttp.ClientSession, urls: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the URLs behind which several servers answer; a server without metrics can't be told.

    `http` makes a new connection for each request.
    """
    pages = await asyncio.gather(*(_scraped(http, url) for url in urls))
    several = several_behind(Telemetry(pa.concat_tables(pages), ("endpoint", "labels")))
    return tuple(url for url in urls if url in several)


async def _scraped(http: aiohttp.ClientSession, url: str) -> pa.Table:
    reader, rows = PageReader(), []
    for at in range(_SCRAPES):
        try:
            keys, values = reader.read(await read_page(http, f"{url}/metrics"))
        except (aiohttp.ClientError, TimeoutError, ValueError):
            break
        rows += [(at, url, key.name, key.labels, value) for key, value in zip(keys, values, strict=True)]
    names = SERVER_SCHEMA.names
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], SERVER_SCHEMA)
