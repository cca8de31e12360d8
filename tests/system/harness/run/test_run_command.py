"""`tailgate run` as a person meets it: what it prints, what it leaves, how it exits."""

import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from tests.kit.command import SHORT, SIM, Tailgate, command
from tests.kit.engine import engine_process

from tailgate.loadgen.injector.http import AVAILABLE

# On a machine that is busy with other things a run may rightly be INVALID; these tests are about other matters.
MEASURED = (0, 4)
SPEC = """
name: short
target: {kind: sim, sim: h100-sxm/llama-3.1-8b}
workload:
  prompt_tokens: 32
  output_tokens: 8
  arrivals: {process: poisson, rate: 40/s}
  duration: 1s
seed: 3
"""


def test_a_run_leaves_all_its_files_and_prints_where_the_report_is(tailgate: Tailgate, tmp_path: Path) -> None:
    said = tailgate("run", "--target", SIM, *SHORT, "--out", tmp_path / "run")
    assert said.code in MEASURED, said.err
    assert "report.html" in said.out and "SIMULATED" in said.out
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files >= {
        "manifest.json", "plan.parquet", "requests.parquet", "arrivals.parquet", "client.parquet", "server.parquet",
        "host.parquet", "events.jsonl", "summary.json", "report.html",
    }  # fmt: skip


def test_json_prints_the_summary_and_nothing_else(tailgate: Tailgate, tmp_path: Path) -> None:
    said = tailgate("run", "--target", SIM, *SHORT, "--out", tmp_path / "run", "--json")
    assert said.summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert said.summary["simulated"] is True
    assert said.summary["load"]["requests"]["ok"] == said.summary["load"]["requests"]["planned"]
    assert said.err == ""


def test_quiet_prints_the_verdict_alone(tailgate: Tailgate, tmp_path: Path) -> None:
    said = tailgate("run", "--target", SIM, *SHORT, "--out", tmp_path / "run", "--quiet")
    assert said.code in MEASURED
    assert said.out.count("\n") == 1 and said.out.split()[0] in ("PASS", "INVALID") and not said.err


def test_a_spec_and_flags_that_say_the_same_make_the_same_plan(tailgate: Tailgate, tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text(SPEC)
    tailgate("run", "short.yaml", "--out", "a", "--quiet")
    tailgate("run", "--target", SIM, *SHORT, "--seed", "3", "--out", "b", "--quiet")
    a, b = (json.loads((tmp_path / run / "manifest.json").read_text()) for run in "ab")
    assert a["plan_hash"] == b["plan_hash"]
    assert a["workload_hash"] == b["workload_hash"]


def test_flags_override_a_spec(tailgate: Tailgate, tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text(SPEC)
    said = tailgate("run", "short.yaml", "--requests", "7", "--out", "a", "--json")
    assert said.summary["load"]["requests"]["planned"] == 7


def test_every_planned_request_has_a_record_with_the_servers_token_counts(tailgate: Tailgate, tmp_path: Path) -> None:
    tailgate("run", "--target", SIM, *SHORT, "--out", "a", "--quiet")
    plan = pq.read_table(tmp_path / "a" / "plan.parquet")
    requests = pq.read_table(tmp_path / "a" / "requests.parquet")
    assert requests["index"].to_pylist() == plan["index"].to_pylist()
    assert requests["prompt_tokens"].to_pylist() == plan["prompt_tokens"].to_pylist()
    assert requests["output_tokens"].to_pylist() == plan["output_tokens"].to_pylist()


def test_chat_prompts_have_the_planned_length_too(tailgate: Tailgate, tmp_path: Path) -> None:
    tailgate("run", "--target", SIM, *SHORT, "--endpoint", "chat", "--out", "a", "--quiet")
    requests = pq.read_table(tmp_path / "a" / "requests.parquet")
    assert requests["status"].unique().to_pylist() == ["ok"]
    assert requests["prompt_tokens"].to_pylist() == requests["prompt_tokens_planned"].to_pylist()


def test_an_engine_that_is_only_a_url_is_marked_all_the_same(tailgate: Tailgate) -> None:
    with engine_process(preset=SIM.removeprefix("sim:")) as (url, _):
        said = tailgate("run", "--target", url, *SHORT, "--out", "a", "--json")
    assert said.summary["simulated"] is True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_it_measured_and_exits_130(tmp_path: Path, number: signal.Signals) -> None:
    process = _long_run(tmp_path)
    _until_requests_have_ended(process, tmp_path / "run")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["valid"] is False
    assert any("interrupt" in reason["name"] for reason in summary["checks"] if reason["status"] == "fail")
    statuses = summary["load"]["requests"]
    assert statuses["ok"] > 0 and statuses["not_sent"] > 0
    assert sum(count for name, count in statuses.items() if name != "planned") == statuses["planned"]
    assert "interrupted" in (tmp_path / "run" / "report.html").read_text().lower()


def test_after_kill_9_of_everything_the_spooled_part_can_be_reported(tailgate: Tailgate, tmp_path: Path) -> None:
    process = _long_run(tmp_path)
    tree = _until_requests_have_ended(process, tmp_path / "run")
    for member in tree:
        member.kill()
    process.communicate(timeout=60)
    psutil.wait_procs(tree, timeout=30)
    said = tailgate("report", tmp_path / "run", "--json")
    assert said.code in (4, 130), said.err
    statuses = said.summary["load"]["requests"]
    assert statuses["ok"] > 0
    assert said.summary["valid"] is False


def test_after_kill_9_of_the_command_line_nothing_goes_on_sending(tmp_path: Path) -> None:
    process = _long_run(tmp_path)
    tree = _until_requests_have_ended(process, tmp_path / "run")
    process.kill()
    process.communicate(timeout=60)
    _, alive = psutil.wait_procs([member for member in tree if member.pid != process.pid], timeout=30)
    assert not alive, [member.cmdline() for member in alive]


def _long_run(tmp_path: Path) -> subprocess.Popen[str]:
    arguments = ["run", "--target", SIM, "--rate", "40/s", "--duration", "60s", "--prompt-tokens", "32"]
    return subprocess.Popen(
        command(*arguments, "--output-tokens", "8", "--out", tmp_path / "run", "--quiet"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )


def _until_requests_have_ended(process: subprocess.Popen[str], run: Path) -> list[psutil.Process]:
    """The process tree, once the spool holds more than the stream's head."""
    spool = run / "spool" / "injector-0.arrows"
    while process.poll() is None:
        if spool.exists() and spool.stat().st_size > 20_000:
            me = psutil.Process(process.pid)
            return [me, *me.children(recursive=True)]
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError(process.communicate())


@pytest.mark.parametrize(("pure", "reads"), [("1", "python"), ("", "compiled" if AVAILABLE else "python")])
def test_a_run_says_whether_the_extension_read_its_streams(
    tailgate: Tailgate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pure: str, reads: str
) -> None:
    monkeypatch.setenv("TAILGATE_PURE_PYTHON", pure)
    said = tailgate("run", "--target", SIM, *SHORT, "--out", "a", "--quiet")
    assert said.code in (0, 3, 4), said.err
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["versions"]["reads"] == reads
