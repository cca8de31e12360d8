"""Several machines, one run: every row sent once, every record back, every loss counted."""

import contextlib
import re
import signal
import subprocess
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from tests.kit.command import command
from tests.kit.machines import Distributed, Ended, load, serving, started

pytestmark = pytest.mark.alone

MS = 1e6


def test_twenty_thousand_requests_by_two_workers_are_the_plan_with_the_figures_of_one_machine(
    exact: Path, tmp_path: Path
) -> None:
    with serving(exact, "--ttft-us", "50000", "--itl-us", "20000") as port:
        flags = [*load(port, 1000, 20), "--requests", "20000"]
        with Distributed(tmp_path / "two", flags) as run:
            two = run.ended()
        served = [requests_served(port)]
        alone = subprocess.run(
            command("run", *flags, "--out", tmp_path / "one", "--quiet"), capture_output=True, text=True, check=False
        )
        served.append(requests_served(port))
    one = Ended(tmp_path / "one", alone.returncode, alone.stdout, alone.stderr, [])
    records, plan = two.requests(), two.plan()
    assert plan.num_rows > 19_500
    assert records["index"].to_pylist() == plan["index"].to_pylist()
    assert set(records["status"].to_pylist()) == {"ok"}
    # By the server's own count, with the trial request of each run.
    assert served == [plan.num_rows + 1, 2 * (plan.num_rows + 1)]
    assert two.check("duplicates")["value"] == 0
    assert two.manifest["plan_hash"] == one.manifest["plan_hash"]
    assert set(records["injector"].to_pylist()) == {0, 1}
    assert two.check("lost_rows")["value"] == 0
    assert [code for code, _ in two.workers] == [0, 0]
    for name in ("ttft", "itl", "e2e"):
        mine, theirs = two.summary["latency_ms"][name]["p50"], one.summary["latency_ms"][name]["p50"]
        assert mine == pytest.approx(theirs, abs=2.0), name
        if two.summary["valid"] and one.summary["valid"]:  # else the machine was too busy for tails, and they say so
            mine, theirs = two.summary["latency_ms"][name]["p99"], one.summary["latency_ms"][name]["p99"]
            assert mine == pytest.approx(theirs, rel=0.25), name
    for worker in two.manifest["workers"]:
        assert abs(worker["clock_offset_ms"]) <= worker["clock_error_ms"] + 0.1  # it is one machine's clock
    # The merged arrivals are the plan's, at the plan's times.
    late = records["dispatched_ns"].to_numpy() - plan["at_ns"].to_numpy()
    assert np.median(late) < 5 * MS
    planned, sent = (dispersion(t) for t in (plan["at_ns"].to_numpy(), records["dispatched_ns"].to_numpy()))
    assert sent == pytest.approx(planned, abs=4 * np.sqrt(2 / 20))


def requests_served(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        (count,) = re.findall(rb"request_success_total\{.*\} (\d+)", response.read())
    return int(count)


def dispersion(times_ns: np.ndarray) -> float:
    counts = np.bincount((times_ns // 1_000_000_000).astype(int))[:20]
    return float(counts.var(ddof=1) / counts.mean())


def test_an_answer_in_flight_when_the_load_ends_is_reported(exact: Path, tmp_path: Path) -> None:
    with serving(exact, "--ttft-us", "3000000") as port, Distributed(tmp_path, load(port, 5, 2)) as run:
        ended = run.ended()
    records = ended.requests()
    assert set(records["status"].to_pylist()) == {"ok"}
    assert max(records["end_ns"].to_pylist()) > 3.5e9
    assert ended.summary["load"]["requests"]["ok"] == ended.plan().num_rows


def test_three_workers_with_two_injectors_each_send_the_same_rows_as_one(exact: Path, tmp_path: Path) -> None:
    with serving(exact) as port:
        with Distributed(tmp_path / "six", load(port, 60, 3), workers=3, injectors=2) as run:
            six = run.ended()
        with Distributed(tmp_path / "one", load(port, 60, 3), workers=1) as run:
            one = run.ended()
    assert six.manifest["plan_hash"] == one.manifest["plan_hash"]
    assert set(six.requests()["injector"].to_pylist()) == set(range(6))
    for column in ("index", "scheduled_ns", "prompt_tokens", "output_tokens", "status"):
        assert six.requests()[column].to_pylist() == one.requests()[column].to_pylist(), column


def test_a_sessions_turns_stay_in_order_on_one_worker_in_a_closed_loop_too(exact: Path, tmp_path: Path) -> None:
    spec = tmp_path / "sessions.yaml"
    spec.write_text("""
workload:
  prompt_tokens: 16
  output_tokens: 2
  sessions: {turns: 4, think: 0.05, new_tokens: 8}
  stages: [{users: 4, for: 1s}, {users: 12, for: 2s, ramp: 1s}]
""")
    with (
        serving(exact, "--ttft-us", "10000") as port,
        Distributed(tmp_path, [spec, "--target", f"http://127.0.0.1:{port}", "--no-settle"], workers=2) as run,
    ):
        ended = run.ended()
    plan, records = ended.plan().to_pylist(), ended.requests().to_pylist()
    think = {row["index"]: row["think_ns"] for row in plan}
    last: dict[int, dict[str, int]] = {}
    assert len(records) > 100
    for record in sorted(records, key=lambda r: (r["session"], r["turn"])):
        assert record["status"] == "ok"
        before = last.get(record["session"])
        assert record["turn"] == (0 if before is None else before["turn"] + 1)
        if before is not None:
            assert record["injector"] == before["injector"]
            assert record["handed_over_ns"] >= before["end_ns"] + think[record["index"]]
        last[record["session"]] = record
    users = ended.summary["load"]["users"]
    assert users["max"] == 12
    assert users["mean"] == pytest.approx((4 + 4 + 12) / 3, abs=1.0)
    assert ended.summary["load"]["loop"] == "closed"


def test_a_worker_that_comes_late_takes_no_users_of_a_closed_loop(exact: Path, tmp_path: Path) -> None:
    flags = ["--users", "9", "--duration", "8s", "--prompt-tokens", "16", "--output-tokens", "2"]
    with (
        serving(exact, "--ttft-us", "100000") as port,
        Distributed(tmp_path, ["--target", f"http://127.0.0.1:{port}", *flags], workers=1) as run,
    ):
        run.until_spooled(0, 10_000)
        code = run.join().wait(60)
        ended = run.ended()
    assert code == 2
    said = ended.workers[1][1]
    assert "too late" in said and "Traceback" not in said
    assert ended.summary["load"]["users"] == {"mean": pytest.approx(9, abs=0.2), "max": 9}
    # Nobody thinks: all nine have a request in flight all the time, to the end.
    rows = [row for row in ended.client().to_pylist() if 1e9 <= row["t_ns"] <= 6e9]
    assert min(row["in_flight_ns"] / row["dur_ns"] for row in rows) > 7.5


def test_requests_end_a_closed_loop_of_fewer_users_than_workers(exact: Path, tmp_path: Path) -> None:
    flags = ["--users", "1", "--requests", "10", "--prompt-tokens", "16", "--output-tokens", "2"]
    with serving(exact) as port, Distributed(tmp_path, ["--target", f"http://127.0.0.1:{port}", *flags]) as run:
        ended = run.ended()
    assert ended.requests()["status"].to_pylist() == ["ok"] * 10
    assert ended.manifest["state"] == "complete" and ended.manifest["ended_ns"] < 20e9


TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:{k // 60:02}:{k % 60:02}.0000000,{10 + k % 7},2\n" for k in range(100)
)


def closed_over(trace: Path, port: int) -> list[str | Path]:
    """A closed loop whose plan's file ends after 4,096 rows: after about five seconds it is gone on with."""
    trace.write_text(TRACE)
    return [
        "--trace", trace, "--target", f"http://127.0.0.1:{port}", "--users", "16", "--duration", "60s",
        "--max-context", "64", "--over-context", "clip",
    ]  # fmt: skip


def test_a_worker_without_the_trace_goes_on_with_a_closed_loops_plan(exact: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    with (
        serving(exact, "--ttft-us", "16000", "--itl-us", "100") as port,
        Distributed(tmp_path, closed_over(trace, port), workers=1) as run,
    ):
        run.until_spooled(0, 1_000)
        away = trace.rename(tmp_path / "away.csv")  # a worker's machine has none
        run.until_reported(0, 4_200)
        away.rename(trace)
        run.master.send_signal(signal.SIGINT)
        ended = run.ended()
    assert ended.manifest["state"] == "interrupted"
    assert [code for code, _ in ended.workers] == [0]


def test_an_injector_that_can_not_go_on_fails_the_run(exact: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    with serving(exact, "--ttft-us", "16000", "--itl-us", "100") as port:
        process = started(command("run", *closed_over(trace, port), "--out", tmp_path / "run"))
        spool = tmp_path / "run" / "spool" / "injector-0.arrows"
        while not (spool.exists() and spool.stat().st_size > 1_000):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        trace.unlink()
        out, err = process.communicate(timeout=120)
    ended = Ended(tmp_path / "run", process.returncode, out, err, [])
    assert ended.code == 4
    assert ended.manifest["state"] == "failed" and ended.manifest["failed_side"] == "client"
    assert "trace.csv" in ended.manifest["state_reason"]
