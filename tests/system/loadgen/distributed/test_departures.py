"""Who leaves a distributed run, and who comes too late: what is lost is counted, and nobody goes on alone."""

import re
import signal
from pathlib import Path

import numpy as np
import pytest
from tests.kit.machines import Distributed, killed, load, serving


def test_what_a_killed_worker_did_not_report_is_lost_and_counted_and_the_run_is_invalid(
    exact: Path, tmp_path: Path
) -> None:
    with serving(exact) as port, Distributed(tmp_path, load(port, 100, 8)) as run:
        run.until_spooled(0, 20_000)
        run.until_spooled(1, 20_000)
        victim = run.worker_processes[0]
        killed(victim)
        ended = run.ended()
    assert ended.code == 4, ended.err
    records, plan = ended.requests(), ended.plan()
    status = np.array(records["status"].to_pylist())
    injector = np.array(plan["session"].to_pylist()) % 2
    dead = set(injector[status == "lost"].tolist())
    assert len(dead) == 1  # one worker's rows only
    # Every row of the dead one that did not come back is lost; the other's are all there.
    assert set(status[injector != dead.pop()].tolist()) == {"ok"}
    assert set(status.tolist()) == {"ok", "lost"}
    lost = int((status == "lost").sum())
    assert records.num_rows == plan.num_rows and lost > 100
    check = ended.check("lost_rows")
    assert check["status"] == "fail" and check["value"] == pytest.approx(100 * lost / plan.num_rows)
    told = [event["text"] for event in ended.events if event["kind"] == "worker"]
    assert any("is missing" in text for text in told)
    assert any("did not come back" in text for text in told)


def test_a_closed_loop_that_loses_a_workers_users_is_no_result(exact: Path, tmp_path: Path) -> None:
    flags = ["--users", "8", "--duration", "6s", "--prompt-tokens", "16", "--output-tokens", "2"]
    with (
        serving(exact, "--ttft-us", "20000") as port,
        Distributed(tmp_path, ["--target", f"http://127.0.0.1:{port}", "--no-settle", *flags]) as run,
    ):
        run.until_spooled(0, 20_000)
        run.until_spooled(1, 20_000)
        killed(run.worker_processes[1])
        ended = run.ended()
    assert ended.code == 4, ended.err
    assert ended.manifest["state"] == "failed" and ended.manifest["failed_side"] == "client"
    assert "its users were missing" in ended.manifest["state_reason"]
    assert ended.check("unclosed_injectors")["value"] == 1
    assert ended.summary["load"]["users"]["max"] <= 8  # of those who are left
    assert any("its users were missing" in reason for reason in ended.summary["invalid_reasons"])


def test_ctrl_c_on_a_worker_is_an_event_and_its_rows_are_not_sent(exact: Path, tmp_path: Path) -> None:
    with serving(exact) as port, Distributed(tmp_path, load(port, 50, 6)) as run:
        run.until_spooled(0, 20_000)
        run.until_spooled(1, 20_000)
        run.worker_processes[0].send_signal(signal.SIGINT)
        ended = run.ended()
    assert ended.workers[0][0] == 130
    assert any("was interrupted" in event["text"] for event in ended.events)
    counts = {entry["values"]: entry["counts"] for entry in ended.requests()["status"].value_counts().to_pylist()}
    assert counts["not_sent"] > 0 and "lost" not in counts
    assert ended.code == 4


def test_a_worker_that_comes_while_the_run_goes_on_is_turned_away_and_told_of(exact: Path, tmp_path: Path) -> None:
    # Long enough for another worker to come up in it on a busy machine.
    with serving(exact) as port, Distributed(tmp_path, load(port, 20, 15), workers=1) as run:
        run.until_spooled(0, 1_000)
        late = run.join()
        code = late.wait(60)
        ended = run.ended()
    assert code == 2
    assert "too late" in ended.workers[1][1]
    assert any("turned away" in event["text"] for event in ended.events)
    assert ended.check("lost_rows")["value"] == 0


def test_later_turns_in_flight_on_a_killed_worker_are_lost(exact: Path, tmp_path: Path) -> None:
    spec = tmp_path / "sessions.yaml"
    spec.write_text("""
workload:
  prompt_tokens: 16
  output_tokens: 2
  arrivals: {process: constant, rate: 10/s}
  duration: 5s
  sessions: {turns: 5, think: 0.05, new_tokens: 8}
drain: 10s
""")
    with (
        serving(exact, "--ttft-us", "400000") as port,
        Distributed(tmp_path, [spec, "--target", f"http://127.0.0.1:{port}"]) as run,
    ):
        run.until_spooled(0, 15_000)
        run.until_spooled(1, 15_000)
        killed(run.worker_processes[0])
        ended = run.ended()
    assert ended.code == 4
    assert ended.manifest["state"] == "failed" and "did not come back" in ended.manifest["state_reason"]
    (dead,) = ended.manifest["unclosed"]
    missing = [row for row in ended.requests().to_pylist() if row["injector"] == dead and row["status"] != "ok"]
    assert {row["status"] for row in missing} == {"lost"}
    assert any(row["turn"] > 0 for row in missing)


def test_the_load_ends_and_the_records_are_kept_when_the_master_is_killed(exact: Path, tmp_path: Path) -> None:
    with serving(exact) as port, Distributed(tmp_path, load(port, 20, 600)) as run:
        run.until_spooled(0, 1_000)
        killed(run.master)
        for worker in run.worker_processes:
            _, err = worker.communicate(timeout=60)
            assert worker.returncode == 1
            assert "not heard of" in err
            (kept,) = re.findall(r"kept in (\S+)", err)
            assert list(Path(kept).glob("spool/injector-*.arrows"))
