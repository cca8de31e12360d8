"""The command's outermost edge: readers who go away, errors that nobody foresaw, disks that fill up."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.kit.command import SHORT, SIM, Tailgate, command
from tests.kit.paths import ROOT

SCRIPT = """
import sys
from types import SimpleNamespace
from tailgate.harness import cli
def run(argv):
    {body}
sys.modules["made_up"] = SimpleNamespace(run=run)
cli.COMMANDS["run"] = ("made_up", "")
raise SystemExit(cli.main(["run"]))
"""


def said(body: str, **more: Any) -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(body=body)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, **more)


@pytest.mark.parametrize("code", [0, 1, 3, 4])
def test_a_reader_that_goes_away_does_not_change_the_verdict(code: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    script = SCRIPT.format(body=f"print('x' * 100_000); return {code}")
    done = subprocess.run([sys.executable, "-c", script], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (code, b"")


def test_help_into_a_reader_that_has_gone_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command("--help"), stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_nobody_foresaw_is_one_line_and_never_exit_code_1(tmp_path: Path) -> None:
    done = said("return [][0]", env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "IndexError" in line
    (kept,) = tmp_path.glob("tailgate-*.txt")
    assert str(kept) in line and "Traceback" in kept.read_text()


def test_what_nobody_foresaw_after_the_measuring_is_invalid_and_names_what_is_kept(tmp_path: Path) -> None:
    body = (
        "from pathlib import Path; from tailgate.harness.run.run_directory import new_run_directory\n"
        "    with new_run_directory(Path('kept'), 'x') as made:\n"
        "        made.keep(); {}['gone']"
    )
    done = said(body, cwd=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.returncode == 4, done.stderr
    assert "KeyError" in done.stderr and "tailgate report kept" in done.stderr


def test_numbers_that_no_run_can_have_are_refused(tailgate: Tailgate) -> None:
    for flag, value in (("--injectors", "0"), ("--injectors", "-1"), ("--seed", str(10**30))):
        done = tailgate("run", "--target", SIM, *SHORT, flag, value)
        assert done.code == 2 and flag.strip("-") in done.err and "Traceback" not in done.err, done.err
    for flag, value in (("--injectors", "0"), ("--step", "0"), ("--step", "-3")):
        done = tailgate("calibrate", flag, value)
        assert done.code == 2 and flag in done.err and "Traceback" not in done.err, done.err


# --- a disk that fills up: no file may grow beyond a limit -----------------------------------------------------

LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from tailgate.harness.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


def limited(limit: int, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-c", LIMITED.format(limit=limit), *map(str, arguments)]
    return subprocess.run(run, capture_output=True, text=True, check=False, cwd=cwd, timeout=120)


def test_content_that_finds_no_room_is_said_before_any_load(tmp_path: Path) -> None:
    done = limited(300_000, "run", "--target", SIM, *SHORT, "--out", "run", "--quiet", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "content.npz" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_report_without_room_says_so_and_keeps_the_spool(tailgate: Tailgate, tmp_path: Path) -> None:
    # As a killed run would be: the spool is there, the collected files are not.
    script = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; "
        "from tests.kit.fabricate import Row, fabricate; "
        "fabricate(Path(sys.argv[1]), [Row(at=10.0 * i, gaps=[1.0] * 300) for i in range(400)], seconds=4.0)"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "made", ROOT], check=True)
    done = limited(20_000, "report", tmp_path / "made", "--quiet", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Make room" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "made" / "spool" / "injector-0.arrows").exists()
    assert not list((tmp_path / "made").glob("*.tmp")) + list((tmp_path / "made").glob(".*.tmp"))
    assert tailgate("report", tmp_path / "made", "--json").summary["load"]["requests"]["ok"] == 400


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("a file system can't be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_disk_that_fills_up_ends_the_run_with_a_message_and_keeps_what_was_measured(
    tailgate: Tailgate, small_disk: Path
) -> None:
    run = small_disk / "run"
    load = ["--rate", "40/s", "--duration", "60s", "--prompt-tokens", "32", "--output-tokens", "8"]
    process = subprocess.Popen(
        command("run", "--target", SIM, *load, "--out", run), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    spool = run / "spool" / "injector-0.arrows"
    while not (spool.exists() and spool.stat().st_size > 20_000):
        assert process.poll() is None, process.communicate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while filler.write(b"x" * 4096) == 4096:
            pass
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 4, complaint
    assert "Traceback" not in complaint
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["state"] == "failed"
    assert "No space left" in manifest["state_reason"]
    (small_disk / "filler").unlink()
    summary = tailgate("report", run, "--json").summary
    assert summary["load"]["requests"]["ok"] > 20
    assert summary["verdict"] == "INVALID" and "No space left" in summary["why"]
