"""vLLM launched by a spec: from nothing to a report, and every effect of a setting where it must show."""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import yaml
from tests.vllm.server import CONTEXT, MODEL, environment, python

from tailgate.harness.targets.base import Life
from tailgate.harness.targets.inspect.fingerprint import fingerprint
from tailgate.harness.targets.inspect.probe import identify, session
from tailgate.harness.targets.launch.process import OwnProcess, port_is_free
from tailgate.harness.targets.vllm import VllmTarget
from tailgate.loadgen.injector.http.endpoint import Trust
from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.rundir.telemetry import Telemetry, read_server

pytestmark = pytest.mark.vllm

TAILGATE = Path(__file__).parents[2] / ".venv/bin/tailgate"
ENVIRONMENT = ("HF_HUB_OFFLINE", "VLLM_CPU_KVCACHE_SPACE", "VLLM_SERVER_DEV_MODE", "VLLM_NO_USAGE_STATS", "PYTHONPATH")
LOAD = {"prompt_tokens": 128, "output_tokens": 64, "arrivals": {"process": "poisson", "rate": "10/s"}, "duration": "8s"}


def spec(model: Path, workload: dict[str, Any] | None = None, **args: Any) -> dict[str, Any]:
    """A spec that launches the tiny model with `args` over our usual ones."""
    usual = {
        "served-model-name": MODEL, "load-format": "dummy", "enforce-eager": True, "max-model-len": CONTEXT,
        "enable-per-request-metrics": True,
    }  # fmt: skip
    surroundings = environment()
    return {
        "target": {
            "kind": "vllm",
            "model": str(model),
            "python": str(python()),
            "env": {name: surroundings[name] for name in ENVIRONMENT},
            "args": {**usual, **args},
        },
        "workload": {**LOAD, **(workload or {})},
    }


def command(folder: Path, what: dict[str, Any]) -> list[str | Path]:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(what))
    return [TAILGATE, "run", path, "--out", folder / "run", "--settle", "--json"]


def run(folder: Path, what: dict[str, Any]) -> tuple[dict[str, Any], Manifest, Telemetry]:
    """Summary, manifest and server telemetry of a run from launch to stop."""
    folder.mkdir(parents=True, exist_ok=True)
    ran = subprocess.run(command(folder, what), capture_output=True, text=True, timeout=600, check=False)
    assert (folder / "run" / "report.html").exists(), ran.stderr
    server = read_server(folder / "run")
    assert server is not None
    return json.loads(ran.stdout), Manifest.load(folder / "run"), server


async def launched(target: dict[str, Any], meanwhile: Callable[[str], None]) -> tuple[Life, float, dict[str, Any]]:
    """The life of a launch of ours, the seconds from its spawn until it was up by our own clock, its fingerprint.

    ``meanwhile`` is called with its URL while it serves.
    """
    began: list[float] = []
    spawn = OwnProcess.spawn

    async def timed(*arguments: Any, **more: Any) -> OwnProcess:
        began.append(time.monotonic())
        return await spawn(*arguments, **more)

    vllm = VllmTarget(target["model"], target["args"], target["env"], target["python"], 300)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(OwnProcess, "spawn", timed)
            urls = await vllm.launch()
        wall_s = time.monotonic() - began[0]
        async with session({}, Trust()) as http:
            identity = await identify(http, urls, MODEL, simulated=False)
            facts = (await fingerprint(http, identity, vllm.life)).facts
        await asyncio.to_thread(meanwhile, urls[0])
        return vllm.life, wall_s, facts
    finally:
        await vllm.stop()


def most(server: Telemetry, name: str) -> float:
    return max(float(one.values.max()) for one in server.series(f"vllm:{name}"))


@pytest.mark.alone
def test_cold_start_fingerprint_and_the_batch_limit_show_in_two_launches(model: Path, tmp_path: Path):
    began = time.monotonic()
    summary, sixteen, wide = run(tmp_path / "sixteen", spec(model, **{"max-num-seqs": 16}))
    whole = time.monotonic() - began
    life = sixteen.target.life  # type: ignore[attr-defined]
    assert list(life["phases"]) == [
        "process start", "engine process", "worker start", "model load", "engine init", "server start", "first token",
    ]  # fmt: skip
    assert 3 < life["ready_s"] < whole - 8 and life["details"]["engine_init_s"] > 0
    assert life["exit_code"] is not None and not life["killed"]
    assert "init engine" in (tmp_path / "sixteen/run/server.log").read_text()
    assert summary["load"]["requests"].keys() == {"planned", "ok"}

    narrow: list[Telemetry] = []

    def loaded(url: str) -> None:
        narrow.append(run(tmp_path / "one", {"target": {"url": url, "model": MODEL}, "workload": LOAD})[2])

    again, wall_s, facts = asyncio.run(launched(spec(model, **{"max-num-seqs": 1})["target"], loaded))
    assert sum(again.phases.values()) == pytest.approx(wall_s, abs=0.1)
    was = sixteen.target.fingerprint["config"]["scheduler_config"].pop("max_num_seqs")
    now = facts["config"]["scheduler_config"].pop("max_num_seqs")
    assert (was, now) == (16, 1)  # the one difference
    assert facts == sixteen.target.fingerprint

    assert most(narrow[0], "num_requests_running") == 1 < most(wide, "num_requests_running")
    assert most(narrow[0], "num_requests_waiting") > 5 > most(wide, "num_requests_waiting")
    print(
        f"\ncold start {life['ready_s']:.1f} s: "
        + ", ".join(f"{name} {seconds:.1f}" for name, seconds in life["phases"].items())
    )


def test_a_tiny_kv_cache_shows_preemptions(model: Path, tmp_path: Path):
    settings = {"num-gpu-blocks-override": 16, "max-model-len": 1024}
    summary, _, server = run(tmp_path, spec(model, {"output_tokens": 300, "duration": "4s"}, **settings))
    assert summary["load"]["requests"].keys() == {"planned", "ok"}
    assert (server.delta("vllm:num_preemptions_total") or 0) > 0


def test_a_queue_cap_shows_as_rejections_equal_on_both_sides(model: Path, tmp_path: Path):
    summary, _, server = run(tmp_path, spec(model, {"output_tokens": 400}, **{"max-num-queued-reqs": 2}))
    records = pq.read_table(tmp_path / "run/requests.parquet", columns=["status", "http_status"]).to_pylist()
    # Nearly all are HTTP 503s; vLLM says it in the stream where the queue filled up after it had answered 200.
    refused = [r for r in records if r["status"] == "rejected"]
    assert {r["status"] for r in records if r["http_status"] == 503} == {"rejected"}
    assert len(refused) == server.delta("vllm:admission_rejections_total")
    assert summary["load"]["requests"] == {
        "planned": len(records),
        "ok": len(records) - len(refused),
        "rejected": len(refused),
    }


def test_a_vllm_that_is_killed_mid_run_is_noticed_kept_and_reported(model: Path, tmp_path: Path):
    first, second = (killed(model, tmp_path / victim, victim) for victim in ("openai.api_server", "EngineCore"))
    assert first["config"] and first == second  # two launches of one spec have equal fingerprints


def killed(model: Path, folder: Path, victim: str) -> dict[str, Any]:
    """A run whose server dies by the death of one of its processes; the server's fingerprint."""
    folder.mkdir()
    what = spec(model, {"duration": "120s"})
    process = subprocess.Popen(
        command(folder, what), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    family: list[psutil.Process] = []
    try:
        _wait_for_load(process, folder / "run")
        family = psutil.Process(process.pid).children(recursive=True)
        (prey,) = [p for p in family if victim in " ".join(p.cmdline())]
        (server,) = [p for p in family if "openai.api_server" in " ".join(p.cmdline())]
        prey.send_signal(signal.SIGKILL)
        struck = time.monotonic()
        # Without its engine the server takes its own time to end; what is ours is to notice that it has.
        assert not psutil.wait_procs([server], timeout=60)[1]
        gone_ns = time.time_ns()
        out, err = process.communicate(timeout=60)
        took = time.monotonic() - struck
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)
    manifest = Manifest.load(folder / "run")
    assert (manifest.state, manifest.failed_side) == ("failed", "target"), err
    assert took < 40 and process.returncode == 4 and not json.loads(out)["valid"]
    events = [json.loads(line) for line in (folder / "run/events.jsonl").read_text().splitlines()]
    (event,) = [e for e in events if e["kind"] == "server"]
    assert manifest.t0_unix_ns + event["t_ns"] - gone_ns < 2e9
    assert event["log"] and (folder / "run/report.html").exists()
    statuses = pq.read_table(folder / "run/requests.parquet", columns=["status"])["status"].to_pylist()
    assert statuses.count("ok") > 5
    assert not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert port_is_free(int(manifest.target.urls[0].rpartition(":")[2]))
    return dict(manifest.target.fingerprint)


def _wait_for_load(process: "subprocess.Popen[str]", run_dir: Path) -> None:
    """Until some requests have been answered (launch and warm-up come first): the injector's spool has rows."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        spooled = sum(path.stat().st_size for path in run_dir.glob("spool/injector-*.arrows"))
        if spooled > 40_000:
            return
        time.sleep(0.1)  # between two looks, not instead of one
    raise AssertionError("no load within five minutes")


def test_an_unknown_flag_is_refused_by_the_installed_vllms_own_parser(model: Path, tmp_path: Path):
    wrong = spec(model, **{"max-num-sequences": 4})
    ran = subprocess.run(command(tmp_path, wrong), capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 2 and not (tmp_path / "run").exists()
    assert "target.args.max-num-sequences" in ran.stderr and "max-num-seqs" in ran.stderr


def test_vllms_own_word_is_shown_when_it_does_not_come_up(model: Path, tmp_path: Path):
    wrong = spec(model, **{"max-model-len": 1024, "num-gpu-blocks-override": 2})
    ran = subprocess.run(command(tmp_path, wrong), capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 2 and "larger than the available KV cache" in ran.stderr
    assert "max-model-len" in ran.stderr
