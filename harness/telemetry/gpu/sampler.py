"""The process that reads the GPUs, so that nothing else waits for NVML.

Says one line of JSON when it has looked: the GPUs, what can't be read of them, or why there are none. Then a
line for each fault, and one a second with the latest readings (`now`). Its samples go to an Arrow stream
(`--spool`). On stdin it is told the run's start in nanoseconds since the epoch, which begins the record; the end of
stdin ends it.
"""

import argparse
import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pynvml

from tailgate.harness.telemetry.gpu import nvml
from tailgate.harness.telemetry.gpu.sources import latest
from tailgate.harness.telemetry.sample_store import TidySamples
from tailgate.reports.rundir.telemetry import GPU_SCHEMA

_TICK_S = nvml.FAST_S
_FLUSH_TICKS = round(1.0 / _TICK_S)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.telemetry.gpu.sampler", description=__doc__)
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--gpus", default="", help="indices or UUIDs, comma-separated; empty: all")
    parser.add_argument("--pid", type=int, action="append", default=[], help="only GPUs that these processes use")
    given = parser.parse_args(argv)
    try:
        driver = nvml.open_nvml()
        gpus = nvml.find_gpus()
    except pynvml.NVMLError as error:
        _say({"problem": f"NVML: {error}"})
        return 0
    chosen, problem, notice = choose(gpus, [g for g in given.gpus.split(",") if g], given.pid)
    facts = [
        {"uuid": g.uuid, "name": g.name, "index": g.index, "parent": g.parent, **g.facts, "missing": g.missing}
        for g in chosen
    ]
    samples = TidySamples(GPU_SCHEMA, given.spool)
    samples.append([[], [], [], []])  # pyarrow imports half of itself at its first array: now, not in the run
    _say({"driver": driver, "gpus": facts, "problem": problem, "notice": notice, "topology": nvml.topology(chosen)})
    if chosen:
        _Sampler(chosen, samples).run()
    return 0


def choose(gpus: list[nvml.Gpu], wanted: list[str], pids: list[int]) -> tuple[list[nvml.Gpu], str | None, str | None]:
    """(the GPUs of the deployment, why there are none, what a reader should know)."""
    if wanted:
        chosen = [g for g in gpus if g.uuid in wanted or g.parent in wanted or str(g.index) in wanted]
        unknown = [w for w in wanted if not any(w in (g.uuid, str(g.index)) for g in gpus)]
        if unknown:
            there = ", ".join(f"{g.index} ({g.uuid})" for g in gpus)
            return [], f"no GPU {', '.join(unknown)}; there are {there}", None
        return chosen, None, None
    if not pids:
        return gpus, None if gpus else "no GPU", None
    family = set(pids)
    for pid in pids:
        try:
            family |= {child.pid for child in psutil.Process(pid).children(recursive=True)}
        except psutil.Error:
            continue
    using = {g.uuid for g in gpus if family & nvml.processes(g).keys()}
    parents = {g.parent for g in gpus if g.uuid in using and g.parent}
    chosen = [g for g in gpus if g.uuid in using | parents]
    if chosen or not gpus:
        return chosen, None if chosen else "no GPU", None
    return gpus, None, "no GPU shows the server's processes (a container hides them): all GPUs are sampled"


class _Sampler:
    def __init__(self, gpus: list[nvml.Gpu], samples: TidySamples) -> None:
        self._gpus = list(gpus)
        self._samples = samples
        self._counters = {g.uuid: nvml.EnergyCounter() for g in gpus}
        self._power = dict.fromkeys((g.uuid for g in gpus), 0.0)
        self._failing: set[tuple[str, str]] = set()
        self._rows: list[tuple[int, str, str, float]] = []
        self._lock = threading.Lock()
        self._t0: int | None = None
        self._ended = threading.Event()
        self._full = False  # the disk has no room: samples wait for some

    def run(self) -> None:
        """Tick by absolute deadlines until stdin has ended."""
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._watch_pcie, daemon=True).start()
        begun = time.monotonic()
        tick, counted = 0, False
        while not self._ended.wait(max(0.0, begun + tick * _TICK_S - time.monotonic())):
            for number, gpu in enumerate(list(self._gpus)):
                self._read(gpu, tick, number)
            if self._t0 is not None and not counted:
                self._count()
                counted = True
            if tick % _FLUSH_TICKS == _FLUSH_TICKS - 1:
                self._flush()
            tick = max(tick + 1, int((time.monotonic() - begun) / _TICK_S))
        self._count()
        self._flush()
        with contextlib.suppress(OSError):  # said already
            self._samples.close()

    def _read(self, gpu: nvml.Gpu, tick: int, number: int) -> None:
        """What is due of one GPU at this tick; the slow readings of different GPUs fall on different ticks."""
        for name, (period_s, _) in gpu.readers.items():
            every = round(period_s / _TICK_S)
            if (tick + number) % every == 0 and gpu in self._gpus:
                self._keep(gpu, name, lambda n=name: nvml.read(gpu, n))  # type: ignore[misc]

    def _count(self) -> None:
        """The energy counters now: a run's window begins and ends between their regular readings."""
        for gpu in list(self._gpus):
            if "energy counter" in gpu.readers:
                self._keep(gpu, "energy counter", lambda g=gpu: nvml.read(g, "energy counter"))  # type: ignore[misc]

    def _keep(self, gpu: nvml.Gpu, name: str, ask: Callable[[], nvml.Readings]) -> None:
        try:
            readings = ask()
        except nvml.GpuGone:
            with self._lock:  # both threads may find out, at the same time
                first = gpu in self._gpus
                self._gpus = [g for g in self._gpus if gpu.uuid not in (g.uuid, g.parent)]
            if first:
                self._fault(gpu, "fell off the bus (NVML: GPU is lost); no samples of it from here on")
            return
        except pynvml.NVMLError as error:
            if (gpu.uuid, name) not in self._failing:
                self._failing.add((gpu.uuid, name))
                self._fault(gpu, f"{name} can't be read any more: {error}")
            return
        if (gpu.uuid, name) in self._failing:
            self._failing.discard((gpu.uuid, name))
            self._fault(gpu, f"{name} can be read again")
        now = time.time_ns()
        with self._lock:
            for key, value in readings:
                self._rows.append((now, gpu.uuid, *self._converted(gpu, key, value, now)))

    def _converted(self, gpu: nvml.Gpu, key: str, value: float, now: int) -> tuple[str, float]:
        if key == "power_w":
            self._power[gpu.uuid] = value
        if key != "energy_mj":
            return key, value
        counter = self._counters[gpu.uuid]
        before = counter.restarts
        joules = counter.joules(int(value), now / 1e9, self._power[gpu.uuid])
        if counter.restarts > before:
            self._fault(gpu, "the energy counter began anew (driver reloaded?); the gap is filled from power")
        return "energy_j", joules

    def _flush(self) -> None:
        with self._lock:
            rows, self._rows = self._rows, []
        if self._t0 is None or not rows:
            return
        times, uuids, names, values = zip(*rows, strict=True)
        self._samples.append([[t - self._t0 for t in times], uuids, names, values])
        try:
            self._samples.flush()
        except OSError as error:
            if not self._full:
                self._full = True
                _say({"unix_ns": time.time_ns(), "gpu": "", "text": f"samples can't be written: {error.strerror}"})
        _say({"now": latest(zip(uuids, names, values, strict=True))})

    def _watch_pcie(self) -> None:
        able = [g for g in self._gpus if g.parent is None and "PCIe throughput" not in g.missing]
        while able and not self._ended.wait(1.0):
            for gpu in able:
                if gpu in self._gpus:
                    self._keep(gpu, "PCIe throughput", lambda g=gpu: nvml.pcie(g))  # type: ignore[misc]

    def _listen(self) -> None:
        for line in sys.stdin:
            self._t0 = int(line)
        self._ended.set()

    def _fault(self, gpu: nvml.Gpu, text: str) -> None:
        _say({"unix_ns": time.time_ns(), "gpu": gpu.uuid, "text": text})


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    sys.exit(main())
