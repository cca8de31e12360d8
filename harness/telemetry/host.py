"""This machine beside the traffic: CPU and memory of our processes and of a local server, network, load.

Once a second, by psutil. A process stands under its role (server, engine, locust, cli); its children count under the
same role with their own pid (vLLM's engine and workers are children, and so are Locust's injectors). Who is the child
of two, as all are of the command line, has the role of the one that is watched first.
"""

import asyncio
import contextlib
import time
from pathlib import Path

import psutil

from tailgate.harness.telemetry.periodic import ended, every
from tailgate.harness.telemetry.sample_store import TidySamples
from tailgate.reports.rundir.telemetry import HOST_SCHEMA

_LOOK_FOR_CHILDREN_S = 5.0


class HostSampler:
    """Samples from `start` to `stop`, times counted from `t0_unix_ns`; `write` leaves `host.parquet`.

    Where it isn't `wanted` nothing is sampled.
    """

    def __init__(
        self, t0_unix_ns: int, interval_s: float = 1.0, spool: Path | None = None, *, wanted: bool = True
    ) -> None:
        self._wanted = wanted
        self._t0 = t0_unix_ns
        self._interval = interval_s
        self._samples = TidySamples(HOST_SCHEMA, spool)
        self._roots: list[tuple[str, psutil.Process]] = []
        self._watched: dict[int, tuple[str, psutil.Process]] = {}
        self._looked = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def watch(self, role: str, pid: int) -> bool:
        """Watch a process and its children from now on; False if it is gone already."""
        try:
            process = psutil.Process(pid)
        except psutil.NoSuchProcess:
            return False
        self._roots.append((role, process))
        self._add(role, process)
        return True

    async def start(self) -> None:
        """Begin; the first sample comes after one interval, since CPU shares need one."""
        if not self._wanted:
            return
        psutil.cpu_percent()
        self._task = asyncio.create_task(every(self._interval, self.sample))

    async def stop(self) -> None:
        if self._task is None:
            return
        await ended(self._task)
        self._task = None
        self.sample()

    def write(self, path: Path) -> None:
        self._samples.write(path)

    def sample(self) -> None:
        t_ns = time.time_ns() - self._t0
        network = psutil.net_io_counters()
        rows: list[tuple[str, int | None, str, float]] = [
            ("machine", None, "cpu_fraction", psutil.cpu_percent() / 100 * (psutil.cpu_count() or 1)),
            ("machine", None, "rss_bytes", float(psutil.virtual_memory().used)),
            ("machine", None, "load1", psutil.getloadavg()[0]),
        ]
        if network is not None:
            rows.append(("machine", None, "net_sent_bytes", float(network.bytes_sent)))
            rows.append(("machine", None, "net_received_bytes", float(network.bytes_recv)))
        if time.monotonic() - self._looked >= _LOOK_FOR_CHILDREN_S:
            self._look_for_children()
        for pid, (role, process) in list(self._watched.items()):
            try:
                with process.oneshot():
                    rows.append((role, pid, "cpu_fraction", process.cpu_percent() / 100))
                    rows.append((role, pid, "rss_bytes", float(process.memory_info().rss)))
            except psutil.Error:
                del self._watched[pid]
        roles, pids, names, values = zip(*rows, strict=True)
        self._samples.append([[t_ns] * len(rows), roles, pids, names, values])

    def _look_for_children(self) -> None:
        self._looked = time.monotonic()
        for role, root in self._roots:
            with contextlib.suppress(psutil.Error):
                for child in root.children(recursive=True):
                    if child.pid not in self._watched:
                        self._add(role, child)

    def _add(self, role: str, process: psutil.Process) -> None:
        with contextlib.suppress(psutil.Error):
            process.cpu_percent()  # the first call only sets the mark that the next one counts from
            self._watched[process.pid] = (role, process)
