"""One process of a run is killed: the run ends, says who was killed, and what that took with it."""

import json
import subprocess
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from tests.kit.command import SIM, Tailgate, command


def running(run: Path) -> tuple[subprocess.Popen[str], dict[str, psutil.Process]]:
    """A run whose spools hold more than the streams' heads, and its processes by what they are."""
    load = ["--rate", "40/s", "--duration", "60s", "--prompt-tokens", "32", "--output-tokens", "64"]
    process = subprocess.Popen(
        command("run", "--target", SIM, *load, "--out", run, "--quiet"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None:
        files = [run / "spool" / name for name in ("injector-0.arrows", "host.arrows")]
        if all(file.exists() and file.stat().st_size > 10_000 * (file is files[0]) for file in files):
            found = {}
            for child in psutil.Process(process.pid).children(recursive=True):
                words = child.cmdline()
                for name in ("tailgate.loadgen.injector", "tailgate.loadgen"):
                    if name in words:
                        found[name] = child
            return process, found
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError(process.communicate())


def samples(path: Path) -> int:
    with path.open("rb") as file:
        try:
            return sum(batch.num_rows for batch in pa.ipc.open_stream(file))
        except pa.ArrowInvalid:
            return 0


@pytest.mark.parametrize(
    ("killed", "words"),
    [
        ("tailgate.loadgen.injector", "injector 0: was killed by SIGKILL"),
        ("tailgate.loadgen", "Locust process ended"),
    ],
)
def test_the_death_of_one_process_ends_the_run_and_is_named(tmp_path: Path, killed: str, words: str) -> None:
    process, family = running(tmp_path / "run")
    family[killed].kill()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 4, (out, err)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    first, *others = summary["invalid_reasons"]
    assert words in first and "requests were not sent" in first
    requests = summary["load"]["all_phases"]
    assert requests["ok"] > 0
    # Nothing that sends the reader astray: the rows that are lost explain the rest.
    assert not any("please report it" in reason or "Keep others away" in reason for reason in others), others
    statuses = summary["load"]["requests"]
    assert sum(count for name, count in statuses.items() if name != "planned") == statuses["planned"]
    psutil.wait_procs(list(family.values()), timeout=30)
    assert not any(member.is_running() for member in family.values())


def test_the_kill_of_the_command_line_loses_at_most_the_last_seconds_telemetry(
    tailgate: Tailgate, tmp_path: Path
) -> None:
    process, family = running(tmp_path / "run")
    process.kill()
    process.communicate(timeout=60)
    psutil.wait_procs(list(family.values()), timeout=30)
    assert samples(tmp_path / "run" / "spool" / "server.arrows") > 0
    assert samples(tmp_path / "run" / "spool" / "host.arrows") > 0
    said = tailgate("report", tmp_path / "run", "--json")
    assert said.code == 4, said.err
    assert (tmp_path / "run" / "server.parquet").exists() and (tmp_path / "run" / "host.parquet").exists()
