"""The public API as a notebook uses it: runs, gates, and what importing it costs."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.kit.paths import ROOT

import tailgate
from tailgate.reports.rundir.spool import whole_batches

SPEC: dict[str, Any] = {
    "target": {"sim": "h100-sxm/llama-3.1-8b"},
    "workload": {"prompt_tokens": 32, "output_tokens": 4, "arrivals": {"rate": "20/s"}, "duration": "1s"},
}


def test_importing_it_is_quick_and_imports_neither_locust_nor_plotly_nor_pandas() -> None:
    code = (
        "import sys, time; began = time.process_time(); import tailgate; tailgate.load_run, tailgate.run;"
        "print(time.process_time() - began, *{name.partition('.')[0] for name in sys.modules})"
    )
    seconds, *modules = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert float(seconds) < 0.3
    assert not {"locust", "gevent", "plotly", "pandas", "numpy"} & set(modules)


def test_all_names_are_there() -> None:
    code = "import tailgate; print(*[getattr(tailgate, name).__name__ for name in tailgate.__all__])"
    names = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert {"Answer", "LLMUser", "RunSpec", "load_run", "run", "compare", "gate", "tag", "task"} <= set(names)


def test_a_run_from_a_dict_where_an_event_loop_is_running(tmp_path: Path) -> None:
    async def notebook() -> "tailgate.LoadedRun":
        return tailgate.run(SPEC, out=tmp_path / "run")

    run = asyncio.run(notebook())
    assert run.path == tmp_path / "run"
    assert len(run.requests) == len(run.requests.query("status == 'ok'"))


def test_a_file_and_a_spec_give_the_plan_that_the_dict_gives(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("{target: {sim: h100-sxm/llama-3.1-8b}, workload: {prompt_tokens: 'lognormal(3, 0.4)', "
                    "output_tokens: 4, arrivals: {rate: 20/s}, duration: 1s}}")  # fmt: skip
    spec = tailgate.Spec.model_validate(
        {**SPEC, "workload": {**SPEC["workload"], "prompt_tokens": "lognormal(3, 0.4)"}}
    )
    hashes = set()
    for name, source in (("file", file), ("spec", spec)):
        run = tailgate.run(source, out=tmp_path / name)
        hashes.add(re.search(r'"plan_hash": *"(\w+)"', (run.path / "manifest.json").read_text())[1])  # type: ignore[index]
    assert len(hashes) == 1


def test_wrong_input_is_a_users_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(tailgate.UserError, match=r"^spec: workload.*rates"):
        tailgate.run({**SPEC, "workload": {**SPEC["workload"], "rates": 1}}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(tailgate.UserError, match="no YAML has"):
        tailgate.run({**SPEC, "seed": object()}, out=tmp_path / "run")
    with pytest.raises(tailgate.UserError, match=r"absent\.yaml"):
        tailgate.gate(tmp_path / "absent.yaml")


def test_an_interrupt_ends_the_run_and_keeps_what_was_measured(tmp_path: Path) -> None:
    long = {**SPEC, "workload": {**SPEC["workload"], "duration": "60s"}}

    spool = tmp_path / "run" / "spool"

    def stop() -> None:
        while not any(batch.num_rows for path in spool.glob("injector-*") for batch in whole_batches(path)):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop).start()
    with pytest.raises(KeyboardInterrupt):
        tailgate.run(long, out=tmp_path / "run")
    run = tailgate.load_run(tmp_path / "run")
    assert 0 < (run.requests["status"] == "ok").sum() < 1200


def test_a_gate_holds_a_run_against_thresholds(tmp_path: Path) -> None:
    run = tailgate.run(SPEC, out=tmp_path / "run")
    policy = tmp_path / "gate.yaml"
    policy.write_text("{metrics: {}, thresholds: {ttft: p50 < 10s}}")
    result = tailgate.gate(policy, run.path, out=tmp_path / "gate")
    assert result.verdict in ("PASS", "INVALID")
    assert result.exit_code == {"PASS": 0, "INVALID": 4}[result.verdict]
    assert result.details["schema"] == "tailgate.verdict/1"
    assert (tmp_path / "gate" / "gate.html").exists()


def test_the_notebook_of_the_docs_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.S)
    assert len(blocks) >= 5
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/api.md", "exec"), names)
