"""Cold start, GPU memory and settings of a deployment in summary, report and Markdown."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.kit.fabricate import Row, S, fabricate

from tailgate.reports.documents.run.write import export, write_report
from tailgate.reports.rundir.collect import collect
from tailgate.reports.rundir.manifest import TargetRecord
from tailgate.reports.rundir.telemetry import GPU_SCHEMA
from tailgate.reports.summary.summary import summarize

GIB = 2.0**30
LIFE = {
    "command": ["vllm", "serve"], "phases": {"process start": 4.0, "model load": 20.5, "first token": 0.5},
    "ready_s": 25.0, "details": {"model_load_s": 20.1}, "stop_s": 2.5, "killed": False, "exit_code": 0,
    "port_free": True, "memory_back_s": 0.7,
    "vram": {
        "GPU-a": {"total": 80 * GIB, "before_start": 1 * GIB, "loaded": 71 * GIB, "after_stop": 1.1 * GIB},
        "GPU-others": {"total": 80 * GIB, "before_start": 9 * GIB, "loaded": 9 * GIB, "after_stop": 9 * GIB},
    },
}  # fmt: skip
SAMPLES = {"mem_used_bytes": (71, 75, 72), "mem_free_bytes": (8, 4, 7), "mem_reserved_bytes": (1, 1, 1),
           "process_mem_bytes:7": (60, 64, 60), "process_mem_bytes:8": (2, 2, 2)}  # fmt: skip


def launched(run_dir: Path, **target: Any) -> Path:
    fingerprint = {"config": {"scheduler_config": {"max_num_seqs": 256, "policy": "fcfs"}}}
    memory = {"model_gib": 15.0, "kv_cache_gib": 50.0, "kv_blocks": 1000.0}
    whole = TargetRecord(kind="vllm", urls=["http://h"], life=LIFE, memory=memory, fingerprint=fingerprint, **target)  # type: ignore[call-arg]
    spec = {"target": {"args": {"max-num-seqs": 300, "kv-cache-dtype": "fp8"}}}
    collect(fabricate(run_dir, [Row(at=100.0 * i, gaps=[10.0]) for i in range(40)], target=whole, spec=spec))
    rows = [
        {"t_ns": round(t * S), "gpu": "GPU-a", "name": name, "value": value * GIB}
        for name, values in SAMPLES.items()
        for t, value in enumerate(values, 1)
    ]
    pq.write_table(pa.Table.from_pylist(rows, GPU_SCHEMA), run_dir / "gpu.parquet")
    return run_dir


def test_the_summary_has_the_cold_start_and_the_end(tmp_path: Path):
    life = summarize(launched(tmp_path / "run")).to_json()["life"]
    assert life["ready_s"] == pytest.approx(sum(life["phases"].values())) == 25.0
    assert (life["stop_s"], life["port_free"], life["memory_back_s"]) == (2.5, True, 0.7)


def test_the_summary_has_what_each_gpu_of_the_deployment_holds(tmp_path: Path):
    vram = summarize(launched(tmp_path / "run")).to_json()["vram"]
    (gpu,) = vram["gpus"]  # the other one was seen before the start and isn't the deployment's
    assert {key: value if key == "gpu" else value / GIB for key, value in gpu.items()} == {
        "gpu": "GPU-a", "total": 80, "before_start": 1, "loaded": 71, "taken": 70, "peak": 75, "headroom": 4,
        "reserved": 1, "processes": 66, "after_stop": pytest.approx(1.1),
    }  # fmt: skip
    assert vram["server"]["model_gib"] == 15.0


def test_report_and_markdown_show_them(tmp_path: Path):
    run_dir = launched(tmp_path / "run")
    summary = summarize(run_dir)
    page = write_report(run_dir, summary).read_text()
    assert "Cold start, seconds" in page and "20.50" in page and "its GPU memory was back 0.7 s later" in page
    assert "least free" in page and "75.0" in page
    row = page.split("max-num-seqs</td>")[1].split("</tr>")[0]
    assert "300" in row and "256" in row  # as given, as resolved
    assert "not told" in page.split("kv-cache-dtype</td>")[1].split("</tr>")[0]
    said = export(run_dir, summary, "md")
    assert "cold start 25.0 s (process start 4.0, model load 20.5, first token 0.5)" in said
    assert "GPU memory: peak 75.0 GiB, least free 4.0 GiB" in said


def test_of_somebody_elses_deployment_there_is_none(tmp_path: Path):
    collect(fabricate(tmp_path / "run", [Row(at=0.0, gaps=[10.0])]))
    summary = summarize(tmp_path / "run")
    assert summary.life is None and summary.vram is None
    assert "The deployment" not in write_report(tmp_path / "run", summary).read_text()
