"""The host sampler against processes whose load is known."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from tailgate.harness.telemetry.host import HostSampler
from tailgate.reports.rundir.telemetry import HOST_SCHEMA

SPINNING = "import subprocess, sys\nprint('up', flush=True)\nwhile True: pass"
WITH_CHILD = (
    "import subprocess, sys\n"
    f"child = subprocess.Popen([sys.executable, '-c', {SPINNING!r}], stdout=subprocess.PIPE)\n"
    "child.stdout.readline(); print(child.pid, flush=True); sys.stdin.read(); child.kill()"
)


def test_a_busy_child_of_a_watched_process_stands_under_its_role(tmp_path: Path):
    parent = subprocess.Popen(
        [sys.executable, "-c", WITH_CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())

    async def scenario() -> None:
        sampler = HostSampler(0, 3600)
        # As a run watches: the server is a child of the command line, which comes last.
        assert sampler.watch("server", parent.pid) and sampler.watch("cli", os.getpid())
        await sampler.start()
        sampler.sample()  # finds the child
        busy = asyncio.get_running_loop().time() + 0.4
        while asyncio.get_running_loop().time() < busy:
            await asyncio.sleep(0.05)
        await sampler.stop()
        sampler.write(tmp_path / "host.parquet")

    asyncio.run(scenario())
    parent.communicate()
    table = pq.read_table(tmp_path / "host.parquet")
    assert table.schema.equals(HOST_SCHEMA)
    rows = table.to_pylist()
    cpu = {r["pid"]: r["value"] for r in rows if r["process"] == "server" and r["name"] == "cpu_fraction"}
    assert cpu[child] > 0.2 and cpu[parent.pid] < 0.2
    memory = [r["value"] for r in rows if r["process"] == "cli" and r["name"] == "rss_bytes"]
    assert memory and min(memory) > 10e6
    names = {r["name"] for r in rows if r["process"] == "machine"}
    assert {"cpu_fraction", "rss_bytes", "load1", "net_sent_bytes"} <= names


def test_a_process_that_is_gone_is_not_watched_and_one_that_goes_is_let_go():
    child = subprocess.Popen([sys.executable, "-c", "pass"], stdin=subprocess.PIPE)
    sampler = HostSampler(0)
    assert sampler.watch("server", child.pid)
    child.communicate()
    sampler.sample()
    assert not sampler.watch("server", child.pid)
