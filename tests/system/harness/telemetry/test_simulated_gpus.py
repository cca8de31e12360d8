"""The embedded engine's GPUs are sampled and accounted for like real ones, and are called simulated."""

from pathlib import Path

import pytest
from tests.kit.command import Tailgate
from tests.kit.engine import engine_process

from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.rundir.telemetry import read_gpu
from tailgate.reports.summary.summary import read_summary

LOAD = ("--rate", "8/s", "--duration", "5s", "--prompt-tokens", "64", "--output-tokens", "16", "--no-settle")


@pytest.mark.parametrize("by_url", [False, True])
def test_a_run_accounts_for_the_energy_of_simulated_gpus(tmp_path: Path, tailgate: Tailgate, by_url: bool) -> None:
    run = tmp_path / "run"
    if by_url:
        with engine_process() as (url, _process):
            tailgate("run", "--target", url, *LOAD, "--out", run)
    else:
        tailgate("run", "sim:h100-sxm/llama-3.1-8b", *LOAD, "--out", run)
    found = Manifest.load(run).telemetry["gpu"]
    assert found["source"] == "simulated" and "simulated" in found["gpus"][0]["name"]
    sampled = read_gpu(run)
    assert sampled is not None
    (counter,) = sampled.series("energy_j")
    power = counter.delta() / ((counter.t_ns[-1] - counter.t_ns[0]) / 1e9)
    assert 70.0 <= power <= 700.0
    energy = read_summary(run / "summary.json").energy
    assert energy is not None and energy.mean_power_w == pytest.approx(power, rel=0.3)


def test_none_is_none(tmp_path: Path, tailgate: Tailgate) -> None:
    (tmp_path / "spec.yaml").write_text("telemetry: {gpu: none}\n")
    tailgate("run", "spec.yaml", "--target", "sim:h100-sxm/llama-3.1-8b", *LOAD, "--out", tmp_path / "run")
    assert not (tmp_path / "run" / "gpu.parquet").exists()
