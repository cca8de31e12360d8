"""The GPUs of a deployment, seen from the harness: a sampler process beside us, or an exporter elsewhere.

`telemetry.gpu` of a spec says which: `none`, `auto`, `nvml`, `nvml:0,1`, `nvml:GPU-UUID`, `dcgm:URL`.
"""

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tailgate.harness.host.child_process import LineProcess
from tailgate.harness.telemetry.sample_store import write_spool
from tailgate.reports.rundir.telemetry import GPU_SCHEMA
from tailgate.workloads.common.errors import UserError

_LOOK_S = 20.0
_END_S = 5.0
_LIBRARY = "libnvidia-ml.so.1"
# What a person is shown while a run goes on.
_SHOWN = ("utilization", "power_w", "mem_used_bytes")

# GPU -> name -> latest value
Latest = dict[str, dict[str, float]]


@dataclass
class GpusFound:
    """What there is to sample; `problem` says why nothing, `notices` what a reader should know."""

    driver: str = ""
    gpus: list[dict[str, Any]] = field(default_factory=list)
    problem: str | None = None
    notices: list[str] = field(default_factory=list)
    topology: dict[str, str] = field(default_factory=dict)


class GpuSource(Protocol):
    """Something that samples GPUs into `gpu.parquet`."""

    faults: list[dict[str, Any]]  # {"unix_ns", "gpu", "text"}
    now: Latest

    async def start(self) -> GpusFound:
        """Find out which GPUs there are."""
        ...

    async def go(self, t0_unix_ns: int) -> None:
        """Begin the run's clock: samples are kept from now on."""
        ...

    async def stop(self) -> None:
        """Take no more samples."""
        ...

    def write(self, path: Path) -> None:
        """Write `gpu.parquet`; nothing if there were no samples."""
        ...


def latest(readings: Iterable[tuple[str, str, float]]) -> Latest:
    """The last value of each figure that is shown, from (GPU, name, value) in order of time."""
    readings_by_gpu: Latest = {}
    for gpu, name, value in readings:
        if name in _SHOWN:
            readings_by_gpu.setdefault(gpu, {})[name] = value
    return readings_by_gpu


def gpu_source(
    wanted: str, *, spool: Path, pids: Sequence[int], local: bool, headers: Mapping[str, str] | None = None
) -> GpuSource | None:
    """The source that `telemetry.gpu` names; None: nothing is to be sampled.

    Args:
        pids: processes of the deployment, if they are ours: only their GPUs count.
        local: whether the deployment is on this machine; `auto` looks only here.
    """
    kind, _, detail = wanted.partition(":")
    match kind, detail:
        case "none", "":
            return None
        case "auto", "":
            return NvmlProcess(spool, "", pids) if local else None
        case "nvml", _:
            return NvmlProcess(spool, detail, () if detail else pids)
        case "dcgm", url if url.startswith("http"):
            from tailgate.harness.telemetry.gpu.dcgm import DcgmScraper

            return DcgmScraper(url, spool, headers)
    raise UserError(
        f"{wanted!r} is not a source of GPU metrics",
        where="telemetry.gpu",
        remedy="Write none, auto, nvml, nvml:0,1, nvml:GPU-UUID or dcgm:http://HOST:9400/metrics.",
    )


def nvml_is_installed() -> bool:
    """Whether the sampler will find the library that comes with the driver; nothing is initialised."""
    # The loader reads the variable when a process starts: the sampler's folders may be others than ours.
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    if any(folder and (Path(folder) / _LIBRARY).exists() for folder in folders):
        return True
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        return False
    return True


class NvmlProcess:
    """The sampler process; see `telemetry.gpu.sampler`."""

    def __init__(self, spool: Path, gpus: str, pids: Sequence[int]) -> None:
        self._spool = spool
        self._arguments = ["--spool", str(spool), "--gpus", gpus, *(t for p in pids for t in ("--pid", str(p)))]
        self._process: LineProcess | None = None
        self._listening: asyncio.Task[None] | None = None
        self._stopping = False
        self.faults: list[dict[str, Any]] = []
        self.now: Latest = {}

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> GpusFound:
        """Start it and read what it found. Where there is no NVML at all, no process is started."""
        if sys.platform == "linux" and not nvml_is_installed():
            return GpusFound(problem="NVML: NVML Shared Library Not Found")
        self._process = await LineProcess.spawn("tailgate.harness.telemetry.gpu.sampler", *self._arguments)
        try:
            answer = await asyncio.wait_for(self._process.receive(), _LOOK_S)
        except TimeoutError:
            await self.stop()
            return GpusFound(problem=f"the GPU sampler did not answer within {_LOOK_S:g} s: NVML hangs")
        if answer is None:
            return GpusFound(problem="the GPU sampler ended without a message")
        gpus = answer.get("gpus", [])
        notices = [answer["notice"]] if answer.get("notice") else []
        for gpu in gpus:
            if gpu["missing"]:
                lacks = "; ".join(f"{name}: {why}" for name, why in gpu["missing"].items())
                notices.append(f"GPU {gpu['index']} ({gpu['uuid']}) doesn't report everything: {lacks}")
        self._listening = asyncio.create_task(self._listen(self._process))
        return GpusFound(answer.get("driver", ""), gpus, answer["problem"], notices, answer.get("topology", {}))

    async def go(self, t0_unix_ns: int) -> None:
        if self._process is not None:
            await self._process.send(b"%d" % t0_unix_ns)

    async def stop(self) -> None:
        if self._process is None:
            return
        self._stopping = True
        await self._process.close(_END_S)
        if self._listening is not None:
            await self._listening
        self._process = None

    def write(self, path: Path) -> None:
        write_spool(self._spool, GPU_SCHEMA, path)

    async def _listen(self, process: LineProcess) -> None:
        while (message := await process.receive()) is not None:
            if "now" in message:
                self.now = message["now"]
            else:
                self.faults.append(message)
        if not self._stopping:
            code = await process.wait()
            text = f"the GPU sampler ended in the middle of the run (exit code {code}); no samples from here on"
            self.faults.append({"unix_ns": time.time_ns(), "gpu": "", "text": text})
