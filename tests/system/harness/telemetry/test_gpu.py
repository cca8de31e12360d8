"""GPU sampling through the real pynvml, against a library whose GPUs follow a script."""

import asyncio
import os
import shutil
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.kit.paths import FAKE_NVML

from tailgate.harness.telemetry.gpu.sources import GpusFound, NvmlProcess
from tailgate.reports.rundir.telemetry import GPU_SCHEMA

pytestmark = pytest.mark.alone

SOURCE = FAKE_NVML
WRAP_AT_S, LOST_AT_S, THROTTLED_FROM_S, LENGTH_S = 2.5, 3.0, 4.0, 6.5
BEFORE_WRAP = int(2**32 - (300 * WRAP_AT_S + 10 * WRAP_AT_S**2 / 2) * 1000)
SCRIPT = f"""\
uuid=GPU-wraps name=FakeH100 power=300 slope=10 energy0={BEFORE_WRAP} wrap=1
uuid=GPU-plain name=FakeL4 power=70 averaged=1 throttle={THROTTLED_FROM_S}
uuid=GPU-split name=FakeA100 power=200 energy0=5000 mig=2
uuid=GPU-lost name=FakeH100 power=100 energy0=0 lost={LOST_AT_S}
uuid=GPU-reset name=FakeH100 power=400 energy0=90000000 restart=2.2
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the fake library."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("nvml")
    target = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", target, SOURCE], check=True)
    return folder


@pytest.fixture
def fake(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put GPUs on this machine: `fake(script)`, which returns t=0 on the wall clock."""

    def install(script: str) -> float:
        began = time.time()
        (tmp_path / "script").write_text(script)
        monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
        monkeypatch.setenv("FAKE_NVML_SCRIPT", str(tmp_path / "script"))
        monkeypatch.setenv("FAKE_NVML_T0", str(began))
        return began

    return install


@dataclass
class Watched:
    """What a sampler saw."""

    found: GpusFound
    rows: list[dict[str, object]]
    faults: list[dict[str, object]]

    def of(self, gpu: str, name: str) -> list[tuple[float, float]]:
        """(seconds, value) of one series."""
        return [(r["t_ns"] / 1e9, r["value"]) for r in self.rows if (r["gpu"], r["name"]) == (gpu, name)]  # type: ignore[operator,misc]


def watch(folder: Path, began: float, length_s: float, gpus: str = "", pids: tuple[int, ...] = ()) -> Watched:
    """Sample for a while; the run's clock begins with the script's."""
    path = folder / "gpu.parquet"

    async def scenario() -> Watched:
        sampler = NvmlProcess(folder / "gpu.arrows", gpus, pids)
        found = await sampler.start()
        watched = Watched(found, [], sampler.faults)
        if found.gpus:
            await sampler.go(int(began * 1e9))
            assert sampler.pid is not None
            await asyncio.sleep(began + length_s - time.time())
        await sampler.stop()
        sampler.write(path)
        return watched

    watched = asyncio.run(scenario())
    if path.exists():
        table = pq.read_table(path)
        assert table.schema.equals(GPU_SCHEMA)
        watched.rows = table.to_pylist()
    return watched


@pytest.fixture(scope="module")
def scripted(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """The whole script, watched once."""
    folder = tmp_path_factory.mktemp("gpus")
    with pytest.MonkeyPatch.context() as patch:
        began = time.time()
        (folder / "script").write_text(SCRIPT)
        patch.setenv("LD_LIBRARY_PATH", str(library))
        patch.setenv("FAKE_NVML_SCRIPT", str(folder / "script"))
        patch.setenv("FAKE_NVML_T0", str(began))
        return watch(folder, began, LENGTH_S)


def joules(power: float, slope: float, t: float) -> float:
    return power * t + slope * t * t / 2


@pytest.mark.parametrize(
    ("gpu", "power", "slope"), [("GPU-wraps", 300, 10), ("GPU-split", 200, 0), ("GPU-reset", 400, 0)]
)
def test_energy_is_the_scripts_within_1_percent_also_over_a_wrap_and_a_restart(
    scripted: Watched, gpu: str, power: float, slope: float
):
    samples = scripted.of(gpu, "energy_j")
    (first, low), (last, high) = samples[0], samples[-1]
    assert len(samples) >= 5 and first < WRAP_AT_S < last - 2
    assert high - low == pytest.approx(joules(power, slope, last) - joules(power, slope, first), rel=0.01)


def test_power_follows_the_script_ten_times_a_second(scripted: Watched):
    samples = scripted.of("GPU-wraps", "power_w")
    assert all(value == pytest.approx(300 + 10 * t, abs=0.5) for t, value in samples)
    seconds = samples[-1][0] - samples[0][0]
    assert len(samples) / seconds == pytest.approx(10, rel=0.1)
    assert len(scripted.of("GPU-wraps", "utilization")) / seconds == pytest.approx(5, rel=0.15)


def test_throttling_is_seen_when_it_begins(scripted: Watched):
    samples = scripted.of("GPU-plain", "throttle_reasons")
    assert {v for t, v in samples if t < THROTTLED_FROM_S - 0.01} == {0}
    assert {v for t, v in samples if t > THROTTLED_FROM_S + 0.01} == {0x40}
    clocks = dict(scripted.of("GPU-plain", "sm_clock_mhz"))
    assert {v for t, v in clocks.items() if t > THROTTLED_FROM_S + 0.01} == {900}


def test_what_a_gpu_cannot_tell_is_said_once_at_the_start(scripted: Watched):
    (plain,) = [g for g in scripted.found.gpus if g["uuid"] == "GPU-plain"]
    assert set(plain["missing"]) == {"instant power", "energy counter"}
    notice = next(n for n in scripted.found.notices if "GPU-plain" in n)
    assert "average" in notice and "Not Supported" in notice
    assert scripted.of("GPU-plain", "power_w") and not scripted.of("GPU-plain", "energy_j")


def test_a_gpu_that_falls_off_the_bus_is_a_fault_and_ends_only_its_own_samples(scripted: Watched):
    (fault,) = [f for f in scripted.faults if f["gpu"] == "GPU-lost"]
    assert "fell off the bus" in str(fault["text"])
    assert scripted.of("GPU-lost", "power_w")[-1][0] == pytest.approx(LOST_AT_S, abs=0.25)
    assert scripted.of("GPU-wraps", "power_w")[-1][0] > LENGTH_S - 0.5


def test_a_restarted_energy_counter_is_a_fault(scripted: Watched):
    assert [f["gpu"] for f in scripted.faults if "began anew" in str(f["text"])] == ["GPU-reset"]


def test_mig_instances_stand_beside_their_parent_and_have_only_memory(scripted: Watched):
    named = {g["uuid"]: g["parent"] for g in scripted.found.gpus if g["parent"]}
    assert named == {"MIG-split-0": "GPU-split", "MIG-split-1": "GPU-split"}
    names = {r["name"] for r in scripted.rows if str(r["gpu"]).startswith("MIG-")}
    assert names == {"mem_used_bytes", "mem_free_bytes", "mem_reserved_bytes"}
    assert scripted.of("MIG-split-0", "mem_used_bytes")[0][1] * 8 == scripted.of("GPU-split", "mem_used_bytes")[0][1]


def test_the_slow_figures_are_there(scripted: Watched):
    for name, value in (
        ("temperature_c", 61), ("ecc_errors", 2), ("mem_reserved_bytes", 6e8), ("mem_clock_mhz", 2619),
        ("pcie_rx_bytes_per_s", 2000 * 1024), ("pcie_tx_bytes_per_s", 1000 * 1024), ("mem_utilization", 0.4),
    ):  # fmt: skip
        assert {v for _, v in scripted.of("GPU-split", name)} == {value}, name
    assert scripted.found.driver == "999.01"
    assert scripted.found.gpus[0]["power_limit_w"] == 700


def test_eight_gpus_are_each_asked_no_more_often_than_one(fake, tmp_path: Path):
    # What that costs: tests/bench/bench_gpu_sampler.py.
    began = fake("".join(f"uuid=GPU-{n} name=F power=300 energy0=0\n" for n in range(8)))
    watched = watch(tmp_path, began, 4.0)
    asked = Counter((row["gpu"], row["name"]) for row in watched.rows)
    assert len(watched.found.gpus) == 8 and {gpu for gpu, _ in asked} == {f"GPU-{n}" for n in range(8)}
    for (_, name), times in asked.items():
        assert times <= (45 if name in ("power_w", "sm_clock_mhz", "mem_clock_mhz", "throttle_reasons") else 25), name


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("0", {"GPU-a"}),
        ("GPU-b", {"GPU-b", "MIG-b-0", "MIG-b-1"}),
        ("MIG-b-1", {"MIG-b-1"}),
        ("0,2", {"GPU-a", "GPU-c"}),
    ],
)
def test_only_the_named_gpus_are_sampled(fake, tmp_path: Path, wanted: str, expected: set[str]):
    began = fake("uuid=GPU-a name=F\nuuid=GPU-b name=F mig=2\nuuid=GPU-c name=F\n")
    found = watch(tmp_path, began, 0, wanted).found
    assert {g["uuid"] for g in found.gpus} == expected


def test_gpus_are_found_by_the_process_that_uses_them(fake, tmp_path: Path):
    began = fake(f"uuid=GPU-a name=F\nuuid=GPU-b name=F pid={os.getpid()}\n")
    watched = watch(tmp_path, began, 2.5, pids=(os.getpid(),))
    assert [g["uuid"] for g in watched.found.gpus] == ["GPU-b"]
    assert watched.of("GPU-b", f"process_mem_bytes:{os.getpid()}")[0][1] == 5e9


def test_where_no_process_shows_all_gpus_are_sampled_and_that_is_said(fake, tmp_path: Path):
    began = fake("uuid=GPU-a name=F\nuuid=GPU-b name=F\n")
    found = watch(tmp_path, began, 0, pids=(os.getpid(),)).found
    assert len(found.gpus) == 2 and "container" in found.notices[0]


def test_a_gpu_that_is_not_there_is_named_with_those_that_are(fake, tmp_path: Path):
    began = fake("uuid=GPU-a name=F\n")
    found = watch(tmp_path, began, 0, "7").found
    assert found.problem == "no GPU 7; there are 0 (GPU-a)"


def test_a_machine_without_nvml_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    found = watch(tmp_path, time.time(), 0).found
    assert found.problem is not None and "NVML" in found.problem and not found.gpus


def test_how_gpus_are_joined_and_their_set_clocks_are_told(fake, tmp_path: Path):
    began = fake("\n".join(f"uuid=GPU-{n} name=F power=1 nvlink={int(n != 'c')}" for n in "abc") + "\n")
    found = watch(tmp_path, began, 0.1).found
    assert found.topology == {"0-1": "NVLink", "0-2": "NODE", "1-2": "NODE"}
    assert (found.gpus[0]["app_sm_clock_mhz"], found.gpus[0]["app_mem_clock_mhz"]) == (1410, 2619)
