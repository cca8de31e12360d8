"""GPU sources that can't be read, and counters that wrap."""

from pathlib import Path

import pynvml
import pytest

from tailgate.harness.telemetry.gpu import nvml
from tailgate.harness.telemetry.gpu.nvml import EnergyCounter
from tailgate.harness.telemetry.gpu.sources import NvmlProcess, gpu_source
from tailgate.workloads.common.errors import UserError

pytestmark = pytest.mark.alone


@pytest.mark.parametrize("ask", [nvml.pcie, lambda gpu: nvml.read(gpu, "power")])
def test_whoever_finds_out_first_says_that_it_is_gone(monkeypatch: pytest.MonkeyPatch, ask):
    def lost(*_):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetPcieThroughput", lost)
    with pytest.raises(nvml.GpuGone):
        ask(nvml.Gpu("GPU-lost", "Fake", 0, None, readers={"power": (0.1, lost)}))


def test_a_wrap_and_a_restart_are_told_apart():
    counter = EnergyCounter()
    assert counter.joules(2**32 - 1000, 0, 100) == 0
    assert counter.joules(500, 1, 100) == 1.5 and counter.restarts == 0
    assert counter.joules(100, 2, 100) == 101.5 and counter.restarts == 1


@pytest.mark.parametrize("text", ["cuda", "dcgm:", "none:1", "dcgm:host:9400"])
def test_a_source_that_does_not_exist_is_refused(text: str, tmp_path: Path):
    with pytest.raises(UserError, match="is not a source of GPU metrics"):
        gpu_source(text, spool=tmp_path / "x", pids=(), local=True)


def test_auto_looks_only_on_this_machine(tmp_path: Path):
    assert gpu_source("auto", spool=tmp_path / "x", pids=(), local=False) is None
    assert isinstance(gpu_source("auto", spool=tmp_path / "x", pids=(), local=True), NvmlProcess)
