"""The host sampler where nobody wants its samples."""

import asyncio
import os
from pathlib import Path

import pyarrow.parquet as pq

from tailgate.harness.telemetry.host import HostSampler


def test_without_being_wanted_nothing_is_written(tmp_path: Path):
    async def scenario() -> None:
        sampler = HostSampler(0, wanted=False)
        sampler.watch("cli", os.getpid())
        await sampler.start()
        await sampler.stop()
        sampler.write(tmp_path / "host.parquet")

    asyncio.run(scenario())
    assert not (tmp_path / "host.parquet").exists() or not pq.read_table(tmp_path / "host.parquet").num_rows
