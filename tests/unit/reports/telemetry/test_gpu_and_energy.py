"""GPU figures and energy against scripted samples."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.kit.fabricate import Row, S, fabricate

from tailgate.reports.cost.energy import energy
from tailgate.reports.metrics.analysis import analyse
from tailgate.reports.rundir.collect import collect
from tailgate.reports.rundir.telemetry import GPU_SCHEMA
from tailgate.reports.summary import parts
from tailgate.reports.summary.summary import summarize
from tailgate.reports.telemetry.gpu import gpu_views

ROWS = [Row(at=100.0 * i, gaps=[10.0] * 9) for i in range(400)]


def run_with(run_dir, samples, seconds=40.0):
    collect(fabricate(run_dir, ROWS, seconds=seconds))
    rows = [{"t_ns": round(t * S), "gpu": gpu, "name": name, "value": value} for t, gpu, name, value in samples]
    pq.write_table(pa.Table.from_pylist(rows, GPU_SCHEMA), run_dir / "gpu.parquet")
    return analyse(run_dir)


def steady(gpu="GPU-a", power=300.0, counter=True, until=45):
    """300 W from 2 s before the start, ten samples a second."""
    found = []
    for tick in range(-20, 10 * until):
        t = tick / 10
        found.append((t, gpu, "power_w", power))
        if counter:
            found.append((t, gpu, "energy_j", 1000.0 + power * (t + 2)))
        found.append((t, gpu, "utilization", 0.75))
        found.append((t, gpu, "throttle_reasons", 0.0))
    return found


def test_energy_is_the_counters_difference_over_the_window(tmp_path):
    (view,) = gpu_views(run_with(tmp_path / "run", steady()))
    assert view.energy_j == pytest.approx(40 * 300.0)
    assert view.energy_source == "counter"
    assert view.energy_disagreement == pytest.approx(0.0, abs=1e-6)
    assert view.power_w == pytest.approx(300.0)


def test_per_token_and_per_request(tmp_path):
    analysis = run_with(tmp_path / "run", steady())
    found = energy(analysis, gpu_views(analysis), usd_per_kwh=0.30, gco2_per_kwh=400.0)
    assert found.j_per_output_token == pytest.approx(12_000 / 4000, rel=0.01)
    assert found.j_per_request == pytest.approx(12_000 / 400, rel=0.01)
    assert found.usd == pytest.approx(12_000 / 3.6e6 * 0.30)
    assert found.gco2 == pytest.approx(12_000 / 3.6e6 * 400)
    assert found.warnings == ()


def test_several_gpus_add_up(tmp_path):
    analysis = run_with(tmp_path / "run", steady("GPU-a") + steady("GPU-b", 100.0))
    assert energy(analysis, gpu_views(analysis)).joules == pytest.approx(40 * 400.0)


def test_without_a_counter_power_is_integrated_and_it_says_so(tmp_path):
    analysis = run_with(tmp_path / "run", steady(counter=False))
    found = energy(analysis, gpu_views(analysis))
    assert found.joules == pytest.approx(12_000)
    assert "no energy counter" in found.warnings[0]


def test_a_counter_that_disagrees_with_power_is_a_warning(tmp_path):
    samples = [(t, g, n, 0.8 * v if n == "power_w" else v) for t, g, n, v in steady()]
    analysis = run_with(tmp_path / "run", samples)
    assert "disagree by 20 %" in energy(analysis, gpu_views(analysis)).warnings[0]


def test_a_counter_that_wraps_counts_on(tmp_path):
    samples = [(t, g, n, (v - 8000 if v >= 8000 else v) if n == "energy_j" else v) for t, g, n, v in steady()]
    (view,) = gpu_views(run_with(tmp_path / "run", samples))
    assert view.energy_j == pytest.approx(12_000, rel=0.01)


def test_a_short_window_warns(tmp_path):
    analysis = run_with(tmp_path / "run", steady(), seconds=20.0)
    assert "too short" in energy(analysis, gpu_views(analysis)).warnings[0]


def test_throttling_is_a_share_of_the_window_with_its_reasons(tmp_path):
    hot = [(t, g, n, 64.0 if n == "throttle_reasons" and 10 <= t < 14 else v) for t, g, n, v in steady()]
    (view,) = gpu_views(run_with(tmp_path / "run", hot))
    assert view.slowdown_share == pytest.approx(0.1)
    assert view.slowdown_reasons == ("hardware thermal slowdown",)


def test_the_power_cap_is_told_apart_from_slowdown(tmp_path):
    capped = [(t, g, n, 4.0 if n == "throttle_reasons" else v) for t, g, n, v in steady()]
    (view,) = gpu_views(run_with(tmp_path / "run", capped))
    assert (view.slowdown_share, view.power_cap_share) == (0.0, pytest.approx(1.0))


def test_a_pause_of_the_sampling_fails_the_run(tmp_path):
    samples = [sample for sample in steady() if not 10 < sample[0] < 15]
    run_with(tmp_path / "run", samples)
    summary = summarize(tmp_path / "run").to_json()
    check = next(check for check in summary["checks"] if check["name"] == "telemetry")
    assert (check["status"], check["value"]) == ("fail", pytest.approx(5.0))
    assert summary["gpu"]["slowdown_share_max"] == 0.0


def test_what_the_driver_does_against_heat_is_told_apart_from_the_hardwares_own_slowdown(tmp_path):
    bits = {10: 0x20, 11: 0x08, 12: 0x60, 13: 0x80}
    mixed = [(t, g, n, float(bits.get(int(t), 0)) if n == "throttle_reasons" else v) for t, g, n, v in steady()]
    (view,) = gpu_views(run_with(tmp_path / "run", mixed))
    assert (view.slowdown_share, view.mild_slowdown_share) == (pytest.approx(2 / 40), pytest.approx(2 / 40))
    assert len(view.slowdown_reasons) == 4
    found = summarize(tmp_path / "run").to_json()
    assert found["gpu"]["slowdown_share_max"] == pytest.approx(2 / 40)
    (finding,) = [one for one in found["findings"] if one["kind"] == "throttled_gpu"]
    assert finding["figures"]["mild_slowdown_share"] == pytest.approx(2 / 40)


def every_second(samples):
    """The counter as the sampler reads it: once a second, and between the seconds."""
    return [one for one in samples if one[1:3] != ("GPU-a", "energy_j") or round(one[0] * 10) % 10 == 5]


def test_what_the_counter_leaves_open_at_the_edges_is_filled_in_from_power(tmp_path):
    samples = [one for one in every_second(steady()) if one[2] != "energy_j" or 0 <= one[0] <= 40]
    (view,) = gpu_views(run_with(tmp_path / "run", samples))
    assert view.energy_source == "counter"
    assert view.energy_j == pytest.approx(40 * 300.0, rel=1e-3)


def test_a_counter_that_covers_half_the_window_is_left_out(tmp_path):
    samples = [one for one in steady() if one[2] != "energy_j" or one[0] < 20]
    (view,) = gpu_views(run_with(tmp_path / "run", samples))
    assert (view.energy_source, view.energy_j) == ("power", pytest.approx(40 * 300.0))


def test_an_instance_is_a_part_of_a_gpu_and_not_another_one(tmp_path):
    samples = steady() + [(t, "MIG-1", "mem_used_bytes", 2.0**30) for t in range(45)]
    analysis = run_with(tmp_path / "run", samples)
    told = [{"uuid": "GPU-a"}, {"uuid": "MIG-1", "parent": "GPU-a"}]
    analysis.run.manifest.telemetry["gpu"] = {"gpus": told}
    views = gpu_views(analysis)
    assert [view.parent for view in views] == [None, "GPU-a"]
    assert parts.gpus(views).count == 1
    assert not energy(analysis, views).warnings


def test_a_gpu_that_is_gone_draws_no_power_from_then_on(tmp_path):
    samples = [one for one in steady(counter=False) if one[0] < 10]
    (view,) = gpu_views(run_with(tmp_path / "run", samples))
    assert view.power_w == pytest.approx(300.0)
    series = next(iter(run_with(tmp_path / "other", samples).gpu.series("power_w")))
    assert series.mean(20 * S, 40 * S) is None
