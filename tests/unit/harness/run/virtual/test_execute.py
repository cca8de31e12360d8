"""Runs on a virtual clock: ordinary run directories, the same figures without files, and what is refused."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tailgate.harness.cli.run import run as run_command
from tailgate.harness.config.run_spec import RunSpec, build
from tailgate.harness.load.listener import Watcher
from tailgate.harness.run.execute import execute
from tailgate.harness.run.virtual.execute import figures, planned
from tailgate.harness.run.virtual.simulate import SimulatedRun, simulate
from tailgate.loadgen.records import ARRIVALS_SCHEMA, CLIENT_SCHEMA, REQUESTS_SCHEMA
from tailgate.reports.build import build as build_report
from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.rundir.telemetry import SERVER_SCHEMA
from tailgate.workloads.common.errors import UserError

OPEN = {"prompt_tokens": 300, "output_tokens": 60, "arrivals": {"process": "poisson", "rate": "20/s"}, "warmup": "2s"}
OPEN = {**OPEN, "duration": "20s"}


def spec(workload: dict[str, Any] | None = None, sim: str = "h100-sxm/llama-3.1-8b", **more: Any) -> RunSpec:
    target = {"sim": sim, "clock": "virtual", "args": more.pop("args", {})}
    return build({"target": target, "workload": workload or OPEN, **more}, "test", Path())


def simulated(given: RunSpec) -> SimulatedRun:
    resolved, deployment, plan, _ = planned(given)
    return simulate(plan, deployment, resolved)


def column(run: SimulatedRun, name: str) -> Any:
    return run.reported[name].to_numpy(zero_copy_only=False)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("virtual") / "run"
    return asyncio.run(execute(spec(slo={"ttft": "p99 < 1s"}), out, ["tailgate", "run"], Watcher()))


def test_the_run_directory_is_an_ordinary_one(run_dir: Path) -> None:
    summary = build_report(run_dir)
    manifest = Manifest.load(run_dir)
    assert (summary.verdict, summary.valid, summary.simulated) == ("PASS", True, True)
    assert all(check.status == "ok" for check in summary.checks), summary.checks
    assert (manifest.clock, manifest.stamp, manifest.state) == ("virtual", "virtual", "complete")
    schemas = {"requests": REQUESTS_SCHEMA, "arrivals": ARRIVALS_SCHEMA, "client": CLIENT_SCHEMA}
    for name, schema in {**schemas, "server": SERVER_SCHEMA}.items():
        assert pq.read_schema(run_dir / f"{name}.parquet").equals(schema), name
    report = (run_dir / "report.html").read_text()
    assert "SIMULATED" in report and "the clock is virtual" in report
    assert summary.server is not None and summary.server.preemptions == 0
    assert {"queue", "prefill", "decode"} <= summary.server.phases.keys()


def test_figures_without_files_are_those_of_the_directory(run_dir: Path) -> None:
    stored, made = build_report(run_dir), figures(spec(slo={"ttft": "p99 < 1s"}))
    for part in ("load", "latency_ms", "throughput", "slo", "server", "verdict", "errors", "workload", "client"):
        assert getattr(made, part) == getattr(stored, part), part
    assert not (Path.cwd() / "run").exists()


def test_the_same_seed_gives_the_same_bits(run_dir: Path, tmp_path: Path) -> None:
    again = asyncio.run(execute(spec(slo={"ttft": "p99 < 1s"}), tmp_path / "run", [], Watcher()))
    for name in ("plan", "requests", "arrivals", "client", "server"):
        assert pq.read_table(run_dir / f"{name}.parquet").equals(pq.read_table(again / f"{name}.parquet")), name


def test_the_command_line_simulates_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    flags = ["--rate", "5/s", "--duration", "10s", "--prompt-tokens", "100", "--output-tokens", "20", "--quiet"]
    target = "sim:h100-sxm/llama-3.1-8b?replicas=2&fault=stop 1 at 2s for 1s"
    assert run_command([target, "--virtual", *flags, "--out", str(out)]) == 0
    assert "PASS" in capsys.readouterr().out
    assert (out / "report.html").exists() and not (out / "spool").exists()
    events = [line for line in (out / "events.jsonl").read_text().splitlines() if '"fault"' in line]
    assert len(events) == 2 and "stop replica 1 for 1 s" in events[0]


def test_a_server_that_is_not_watched_leaves_no_samples() -> None:
    summary = figures(spec(telemetry={"server": "none"}))
    assert summary.server is None and summary.valid


def test_jitter_differs_by_seed_only() -> None:
    ends = [column(simulated(spec(args={"jitter": 0.1, "seed": seed})), "end_ns") for seed in (1, 1, 2)]
    assert np.array_equal(ends[0], ends[1]) and not np.array_equal(ends[0], ends[2])


def test_later_turns_come_when_the_answer_has_ended_and_the_user_has_thought() -> None:
    workload = {**OPEN, "sessions": {"turns": 3, "think": 2}, "arrivals": {"process": "poisson", "rate": "2/s"}}
    run = simulated(spec(workload))
    plan = {row["index"]: row for row in run.plan.to_pylist()}
    ends = {
        (plan[row["index"]]["session"], plan[row["index"]]["turn"]): row["end_ns"] for row in run.reported.to_pylist()
    }
    later = [row for row in run.reported.to_pylist() if plan[row["index"]]["turn"]]
    assert len(later) > 20
    for row in later:
        planned_row = plan[row["index"]]
        before = ends[planned_row["session"], planned_row["turn"] - 1]
        assert row["scheduled_ns"] == row["dispatched_ns"] == before + planned_row["think_ns"]
    assert (column(run, "cached_tokens")[[plan[i]["turn"] > 0 for i in column(run, "index")]] > 0).all()


def test_users_of_a_closed_loop_wait_for_their_answers_and_come_by_stages() -> None:
    stages = [{"users": 2, "for": "10s"}, {"users": 6, "for": "10s"}]
    run = simulated(spec({"prompt_tokens": 300, "output_tokens": 100, "stages": stages, "warmup": "2s"}))
    assert run.users == {"mean": 4.0, "max": 6.0}
    begin, end = column(run, "handed_over_ns"), column(run, "end_ns")
    busy = [int(((begin <= at) & (end > at)).sum()) for at in (5e9, 20e9)]
    assert busy == [2, 6]
    assert run.measure_end_ns == 22_000_000_000 and begin.max() < run.measure_end_ns < end.max()


def test_a_number_of_requests_ends_a_closed_loop() -> None:
    run = simulated(spec({"prompt_tokens": 50, "output_tokens": 20, "users": 3, "requests": 31}))
    assert column(run, "index").tolist() == list(range(31))
    assert set(column(run, "status")) == {"ok"}
    assert figures(spec({"prompt_tokens": 50, "output_tokens": 20, "users": 3, "requests": 31})).valid


def test_impatience_timeouts_full_queues_and_the_drains_end_are_recorded_as_such() -> None:
    slow = {**OPEN, "output_tokens": 400}
    patient = simulated(spec(slow, abandon={"share": 0.5, "patience": 1}))
    gone = column(patient, "status") == "cancelled"
    assert 0.35 < gone.mean() < 0.65 and set(column(patient, "hung_up")[gone]) == {"patience"}
    took = column(patient, "end_ns") - column(patient, "scheduled_ns")
    assert (took[gone] == 1_000_000_000).all()
    timed_out = simulated(spec(slow, timeout="1s"))
    assert set(column(timed_out, "status")) == {"timeout"} and set(column(timed_out, "error")) == {
        "no answer within the request's timeout"
    }
    full = simulated(spec(slow, args={"max-num-queued-reqs": 5}))
    refused = column(full, "status") == "rejected"
    assert refused.any() and set(column(full, "http_status")[refused]) == {503}
    cut = simulated(spec(slow, drain="1s"))
    late = column(cut, "status") == "timeout"
    assert late.any() and set(column(cut, "end_ns")[late]) == {23_000_000_000}


def test_a_killed_replica_shows_in_the_records() -> None:
    run = simulated(spec(sim="h100-sxm/llama-3.1-8b?replicas=2&router=least-in-flight&fault=kill 2 at 10s back 5s"))
    status, endpoint = column(run, "status"), column(run, "endpoint")
    assert set(endpoint) == {"sim:h100-sxm/llama-3.1-8b#1", "sim:h100-sxm/llama-3.1-8b#2"}
    assert set(endpoint[status == "reset"]) == {"sim:h100-sxm/llama-3.1-8b#2"}
    assert set(column(run, "error")[status == "reset"]) == {"its replica died"}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"sim": "h100-sxm/llama-3.1-8b?replica=2"}, "unknown key 'replica': did you mean 'replicas'"),
        ({"sim": "h100-sxm/llama-3.1-8b?replicas=0"}, "whole number"),
        ({"sim": "h100-sxm/llama-3.1-8b?router=random"}, "a router needs several replicas"),
        ({"sim": "h100-sxm/llama-3.1-8b?replicas=2&router=randon"}, "did you mean 'random'"),
        ({"sim": "h100-sxm/llama-3.1-8b?replicas=2&fault=kill 3 at 5s"}, "there are 2 replicas"),
        ({"sim": "h100-sxm/llama-3.1-8b?autoscale=yes"}, "'yes' is no condition"),
        ({"sim": "h100-sxm/llama-3.1-8b?jitter=much"}, "jitter"),
        ({"sim": "h100-sxn/llama-3.1-8b"}, "no preset"),
        ({"args": {"max-num-sequences": 4}}, "unknown flag '--max-num-sequences'"),
        ({"streamed": False}, "streamed: false"),
        ({"abort_if": {"errors": "5%"}}, "abort_if"),
    ],
)
def test_what_can_not_be_simulated_is_refused_by_name(changed: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        asyncio.run(execute(spec(**changed), tmp_path / "run", [], Watcher()))
    assert not (tmp_path / "run").exists()


def test_only_the_embedded_engine_has_a_virtual_clock(tmp_path: Path) -> None:
    other = build({"target": {"url": "http://127.0.0.1:1", "clock": "virtual"}, "workload": OPEN}, "test", Path())
    with pytest.raises(UserError, match="a target of kind url has no virtual clock"):
        asyncio.run(execute(other, tmp_path / "run", [], Watcher()))
