"""What NVML tells of each GPU: asked once what it can, then read at three rates.

| rate | figures |
|---|---|
| 10 Hz | instant power, SM and memory clock, clock event ("throttle") reasons |
| 5 Hz | utilization ("some kernel ran", not "how full") |
| 1 Hz | energy counter, memory used, free and reserved, memory per process, temperature, ECC errors |
| 1 Hz, apart | PCIe throughput: each call measures for 20 ms, so it has a thread of its own |

A MIG instance stands beside its parent under its own UUID and has what NVML tells of instances (memory);
power, clocks and energy are the whole GPU's and stand under the parent's UUID only.
NVML API reference: https://docs.nvidia.com/deploy/nvml-api/.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pynvml

Readings = list[tuple[str, float]]
FAST_S, MIDDLE_S, SLOW_S = 0.1, 0.2, 1.0
_WRAP_MJ: Final = 2**32
# nvmlGpuTopologyLevel_t, in the words of `nvidia-smi topo`.
_LEVELS: Final = {0: "same board", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}


class GpuGone(Exception):
    """The GPU no longer answers: it fell off the bus."""


@dataclass
class Gpu:
    """A GPU or MIG instance, what can be read of it, and why the rest can't."""

    uuid: str
    name: str
    index: int
    handle: Any
    parent: str | None = None  # UUID, of a MIG instance
    facts: dict[str, float] = field(default_factory=dict)
    readers: dict[str, tuple[float, Callable[[], Readings]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


class EnergyCounter:
    """NVML's millijoules since the driver was loaded, as joules that only grow.

    A fall from just below 2**32 is a 32-bit counter that wrapped; any other is a restart, whose unseen part is
    filled in with the last power reading.
    """

    def __init__(self) -> None:
        self._last_mj: int | None = None
        self._last_s = 0.0
        self._joules = 0.0
        self.restarts = 0

    def joules(self, millijoules: int, now_s: float, power_w: float) -> float:
        if self._last_mj is not None:
            grown = millijoules - self._last_mj
            if grown < 0 and self._last_mj < _WRAP_MJ and grown + _WRAP_MJ < 10_000_000:
                grown += _WRAP_MJ
            elif grown < 0:
                self.restarts += 1
                grown = int(power_w * (now_s - self._last_s) * 1000)
            self._joules += grown / 1000
        self._last_mj, self._last_s = millijoules, now_s
        return self._joules


def open_nvml() -> str:
    """Load the library; the driver's version."""
    pynvml.nvmlInit()
    return str(pynvml.nvmlSystemGetDriverVersion())


def find_gpus() -> list[Gpu]:
    """All GPUs, each followed by its MIG instances, with their readers probed."""
    gpus = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        gpu = _gpu(handle, index, None)
        gpus.append(gpu)
        for instance in _mig_instances(handle):
            gpus.append(_gpu(instance, index, gpu.uuid))
    return gpus


def memory_of_all() -> dict[str, dict[str, float | str]]:
    """Memory of every GPU and MIG instance that tells, by UUID; nothing else is asked of them.

    `index` and, of an instance, `parent` stand beside `total_bytes` and `used_bytes`.
    """
    memory: dict[str, dict[str, float | str]] = {}
    for index in range(pynvml.nvmlDeviceGetCount()):
        whole = pynvml.nvmlDeviceGetHandleByIndex(index)
        for handle in (whole, *_mig_instances(whole)):
            try:
                uuid, used = pynvml.nvmlDeviceGetUUID(handle), dict(_memory(handle))
                total = float(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
            except pynvml.NVMLError:
                continue
            memory[uuid] = {"index": index, "total_bytes": total, "used_bytes": used["mem_used_bytes"]}
            if handle is not whole:
                memory[uuid]["parent"] = pynvml.nvmlDeviceGetUUID(whole)
    return memory


def topology(gpus: Sequence[Gpu]) -> dict[str, str]:
    """How the GPUs of a deployment are joined, by their places in it (`0-1`): NVLink, or what of PCIe lies between.

    The words are those of `nvidia-smi topo`: PIX, PXB, PHB, NODE, SYS. Pairs that NVML can't tell of are left out.
    """
    whole = [gpu for gpu in gpus if gpu.parent is None]
    links = {}
    for one, other in itertools.combinations(range(len(whole)), 2):
        with contextlib.suppress(pynvml.NVMLError):
            links[f"{one}-{other}"] = _between(whole[one].handle, whole[other].handle)
    return links


def _between(one: Any, other: Any) -> str:
    with contextlib.suppress(pynvml.NVMLError):
        if pynvml.nvmlDeviceGetP2PStatus(one, other, pynvml.NVML_P2P_CAPS_INDEX_NVLINK) == pynvml.NVML_P2P_STATUS_OK:
            return "NVLink"
    level = int(pynvml.nvmlDeviceGetTopologyCommonAncestor(one, other))
    return _LEVELS.get(level, f"level {level}")


def processes(gpu: Gpu) -> dict[int, int]:
    try:
        listed = pynvml.nvmlDeviceGetComputeRunningProcesses(gpu.handle)
    except pynvml.NVMLError:
        return {}
    return {p.pid: p.usedGpuMemory or 0 for p in listed}


def read(gpu: Gpu, name: str) -> Readings:
    """One reader's figures.

    Raises:
        GpuGone: the GPU is lost.
        pynvml.NVMLError: this reading failed.
    """
    with _or_gone(gpu):
        return gpu.readers[name][1]()


def pcie(gpu: Gpu) -> Readings:
    """PCIe traffic over the last 20 ms; takes 40 ms. Raises as `read`."""
    with _or_gone(gpu):
        return [
            ("pcie_rx_bytes_per_s", _pcie(gpu, pynvml.NVML_PCIE_UTIL_RX_BYTES)),
            ("pcie_tx_bytes_per_s", _pcie(gpu, pynvml.NVML_PCIE_UTIL_TX_BYTES)),
        ]


@contextlib.contextmanager
def _or_gone(gpu: Gpu) -> Iterator[None]:
    try:
        yield
    except pynvml.NVMLError_GpuIsLost as error:
        raise GpuGone(gpu.uuid) from error


def _pcie(gpu: Gpu, counter: int) -> float:
    return float(pynvml.nvmlDeviceGetPcieThroughput(gpu.handle, counter) * 1024)  # NVML counts in KiB/s


def _gpu(handle: Any, index: int, parent: str | None) -> Gpu:
    gpu = Gpu(pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle), index, handle, parent)
    if parent is None:
        candidates = {
            "power": (FAST_S, lambda: [("power_w", _instant_power(handle))]),
            "clocks": (FAST_S, lambda: _clocks(handle)),
            "throttle reasons": (FAST_S, lambda: [("throttle_reasons", float(_reasons(handle)))]),
            "utilization": (MIDDLE_S, lambda: _utilization(handle)),
            "energy counter": (SLOW_S, lambda: [("energy_mj", float(_energy(handle)))]),
            "temperature": (SLOW_S, lambda: [("temperature_c", float(_temperature(handle)))]),
            "ECC errors": (SLOW_S, lambda: [("ecc_errors", float(_ecc(handle)))]),
        }
    else:
        candidates = {}
    candidates["memory"] = (SLOW_S, lambda: _memory(handle))
    candidates["memory by process"] = (SLOW_S, lambda: _by_process(handle))
    for name, (period, reader) in candidates.items():
        _probe(gpu, name, period, reader)
    if "power" not in gpu.readers and parent is None:
        # Ampere and later average this one over a second; better than nothing, and said.
        _probe(gpu, "power", FAST_S, lambda: [("power_w", pynvml.nvmlDeviceGetPowerUsage(handle) / 1000.0)])
        if "power" in gpu.readers:
            gpu.missing["instant power"] = "not supported: power is NVML's average over about a second"
            del gpu.missing["power"]
    if parent is None:
        _probe_pcie(gpu)
        _learn_facts(gpu)
    return gpu


def _probe(gpu: Gpu, name: str, period_s: float, reader: Callable[[], Readings]) -> None:
    try:
        reader()
    except pynvml.NVMLError as error:
        gpu.missing[name] = str(error)
    else:
        gpu.readers[name] = (period_s, reader)


def _probe_pcie(gpu: Gpu) -> None:
    try:
        _pcie(gpu, pynvml.NVML_PCIE_UTIL_RX_BYTES)
    except pynvml.NVMLError as error:
        gpu.missing["PCIe throughput"] = str(error)


def _learn_facts(gpu: Gpu) -> None:
    """Read what doesn't change, for the fingerprint."""
    facts: dict[str, Callable[[], float]] = {
        "memory_bytes": lambda: float(pynvml.nvmlDeviceGetMemoryInfo(gpu.handle).total),
        "power_limit_w": lambda: pynvml.nvmlDeviceGetPowerManagementLimit(gpu.handle) / 1000.0,
        "max_sm_clock_mhz": lambda: float(pynvml.nvmlDeviceGetMaxClockInfo(gpu.handle, pynvml.NVML_CLOCK_SM)),
        "max_mem_clock_mhz": lambda: float(pynvml.nvmlDeviceGetMaxClockInfo(gpu.handle, pynvml.NVML_CLOCK_MEM)),
        # What an administrator has set; NVML has no question for locked clocks.
        "app_sm_clock_mhz": lambda: float(pynvml.nvmlDeviceGetApplicationsClock(gpu.handle, pynvml.NVML_CLOCK_SM)),
        "app_mem_clock_mhz": lambda: float(pynvml.nvmlDeviceGetApplicationsClock(gpu.handle, pynvml.NVML_CLOCK_MEM)),
    }
    for name, ask in facts.items():
        try:
            gpu.facts[name] = ask()
        except pynvml.NVMLError:
            continue


def _mig_instances(handle: Any) -> list[Any]:
    try:
        current, _ = pynvml.nvmlDeviceGetMigMode(handle)
        if current != pynvml.NVML_DEVICE_MIG_ENABLE:
            return []
        most = pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except pynvml.NVMLError:
        return []
    instances = []
    for index in range(most):
        try:
            instances.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))
        except pynvml.NVMLError_NotFound:
            continue
    return instances


def _instant_power(handle: Any) -> float:
    value = pynvml.nvmlDeviceGetFieldValues(handle, [(pynvml.NVML_FI_DEV_POWER_INSTANT, 0)])[0]
    if value.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(value.nvmlReturn)
    return float(value.value.uiVal / 1000.0)


def _clocks(handle: Any) -> Readings:
    return [
        ("sm_clock_mhz", float(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM))),
        ("mem_clock_mhz", float(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM))),
    ]


def _reasons(handle: Any) -> int:
    try:
        return int(pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
    except pynvml.NVMLError_FunctionNotFound:  # drivers before 535 have it under its old name
        return int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))


def _utilization(handle: Any) -> Readings:
    rates = pynvml.nvmlDeviceGetUtilizationRates(handle)
    return [("utilization", rates.gpu / 100.0), ("mem_utilization", rates.memory / 100.0)]


def _energy(handle: Any) -> int:
    return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))


def _temperature(handle: Any) -> int:
    return int(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))


def _ecc(handle: Any) -> int:
    kind, since = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
    return int(pynvml.nvmlDeviceGetTotalEccErrors(handle, kind, since))


def _memory(handle: Any) -> Readings:
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
        reserved = [("mem_reserved_bytes", float(memory.reserved))]
    except pynvml.NVMLError_FunctionNotFound:
        memory, reserved = pynvml.nvmlDeviceGetMemoryInfo(handle), []
    return [("mem_used_bytes", float(memory.used)), ("mem_free_bytes", float(memory.free)), *reserved]


def _by_process(handle: Any) -> Readings:
    listed = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    return [(f"process_mem_bytes:{p.pid}", float(p.usedGpuMemory)) for p in listed if p.usedGpuMemory is not None]
