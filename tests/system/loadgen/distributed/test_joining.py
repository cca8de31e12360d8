"""Who can't take part, and what they are told; what can't be spread over machines."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.kit.command import command, free_port
from tests.kit.machines import Distributed, serving, started, until_line

LOAD = ["--rate", "20/s", "--duration", "2s", "--prompt-tokens", "16", "--output-tokens", "2", "--no-settle"]

OLD_WORKER = """
import locust
import tailgate.loadgen.distributed.protocol as protocol, tailgate.loadgen.distributed.workers
protocol.VERSION = "0.0.7"
from tailgate.loadgen.distributed.worker import main
raise SystemExit(main())
"""

# A worker whose plans are hashed by another generator, as one of another release might.
OTHER_PLANS = """
import locust, sys
from tailgate.loadgen.distributed import shard
REBUILD = '''
from tailgate.workloads.table import hashing
hashing.GENERATOR = "another"
from tailgate.loadgen.distributed.rebuild_plan import main
raise SystemExit(main())
'''
shard.python_module = lambda module: [sys.executable, "-c", REBUILD]
from tailgate.loadgen.distributed.worker import main
raise SystemExit(main())
"""


def said(*arguments: str | Path, **env: str) -> tuple[int, str]:
    process = started(command(*arguments), **env)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    return process.returncode, out + err


def test_a_port_in_use_is_named(exact: Path, tmp_path: Path) -> None:
    with serving(exact) as port, socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        code, text = said(
            "run", "--target", f"http://127.0.0.1:{port}", *LOAD, "--expect-workers", "1", "--bind", bind,
            "--out", tmp_path / "run",
        )  # fmt: skip
    assert code == 2
    assert f"can't listen on {bind}" in text and "in use" in text


def test_too_few_workers_are_named(exact: Path, tmp_path: Path) -> None:
    bind = f"127.0.0.1:{free_port()}"
    with serving(exact) as port:
        flags = ["--expect-workers", "3", "--bind", bind, "--wait", "6s", "--out", str(tmp_path / "run")]
        master = started(command("run", "--target", f"http://127.0.0.1:{port}", *LOAD, *flags))
        worker = started(command("worker", "--master", bind, "--name", "lonely", "--alone", "5s"))
        _, err = master.communicate(timeout=60)
        worker.communicate(timeout=60)
    assert master.returncode == 2
    assert "1 of 3 workers came within 6 s: lonely" in err


def test_a_worker_of_another_version_is_refused_with_both_versions_named(exact: Path, tmp_path: Path) -> None:
    from importlib.metadata import version

    with serving(exact) as port:
        flags = ["--target", f"http://127.0.0.1:{port}", *LOAD]
        with Distributed(tmp_path, flags, workers=1) as run:
            host, bind_port = run.address.split(":")
            old = subprocess.run(
                [
                    sys.executable, "-c", OLD_WORKER, "--host", host, "--port", bind_port, "--injectors", "1",
                    "--folder", str(tmp_path / "old"), "--wait", "30", "--alone", "10",
                ],
                capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
            ended = run.ended()
    assert old.returncode == 2
    if "too late" not in old.stderr:  # it may have come after the one that fits
        assert "tailgate 0.0.7" in old.stderr and f"tailgate {version('tailgate')}" in old.stderr
    assert any("turned away" in event["text"] and "0.0.7" in event["text"] for event in ended.events)
    assert ended.check("lost_rows")["value"] == 0


def test_a_worker_without_a_master_gives_up_and_says_where_it_looked() -> None:
    bind = f"127.0.0.1:{free_port()}"
    code, text = said("worker", "--master", bind, "--wait", "2s")
    assert code == 2
    assert "no master answers within 2 s" in text and bind in text


def test_a_key_is_read_from_the_workers_own_environment_and_missing_there_it_is_named(
    exact: Path, tmp_path: Path
) -> None:
    bind = f"127.0.0.1:{free_port()}"
    with serving(exact) as port:
        flags = ["--expect-workers", "1", "--bind", bind, "--out", str(tmp_path / "run"), "--api-key-env", "TG_KEY"]
        master = started(command("run", "--target", f"http://127.0.0.1:{port}", *LOAD, *flags), TG_KEY="sesame-42")
        worker = started(command("worker", "--master", bind, "--api-key-env", "TG_KEY"))
        _, err = master.communicate(timeout=60)
        _, worker_err = worker.communicate(timeout=60)
    assert master.returncode == worker.returncode == 2
    for text in (err, worker_err):
        assert "TG_KEY is not set on this machine" in text
        assert "sesame-42" not in text
    assert "worker-1" in err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--header", "Authorization: Bearer sesame-42"], "Authorization is a secret"),
        (["--target", "http://me:sesame-42@127.0.0.1:9"], "user and password in a URL"),
        (["--target", "http://sesame-42@127.0.0.1:9"], "user and password in a URL"),
        (["--header", "X-Gateway-Token: sesame-42"], "X-Gateway-Token is a secret"),
        (["--extra", '{"api_key": "sesame-42"}'], "api_key looks like a secret"),
        (["--extra", '{"a": [{"api_key": "sesame-42"}]}'], "extra.a[0].api_key: a[0].api_key looks like a secret"),
        (["--header", "X-Other: Bearer sesame-42"], "X-Other is a secret"),
        (["--target", "http://127.0.0.1:9?code=sesame-42"], "the query in a URL"),
        (["--injectors", "2"], "tailgate worker --injectors"),
        (["--ui", "8089"], "127.0.0.1:8089"),
        (["--bind", "nowhere:99999"], "HOST:PORT"),
        (["--bind", "192.0.2.1"], "can't listen on 192.0.2.1:5557"),
    ],
)
def test_what_can_not_be_spread_is_refused_before_anything_is_sent(
    exact: Path, tmp_path: Path, flags: list[str], told: str
) -> None:
    with serving(exact) as port:
        target = [] if "--target" in flags else ["--target", f"http://127.0.0.1:{port}"]
        code, text = said("run", *target, *LOAD, "--expect-workers", "1", *flags, "--out", tmp_path / "run")
    assert code == 2
    assert told in text and "sesame-42" not in text


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--master", "a:b:c"], "brackets"), (["--master", "box", "--injectors", "none"], "--injectors"),
        (["--master", "box", "--wait", "soon"], "not a duration"),
        (["--master", "box", "--spool", "/dev/null/x"], "can't be written"),
    ],
)  # fmt: skip
def test_a_workers_wrong_flags_are_refused(flags: list[str], told: str) -> None:
    code, text = said("worker", *flags)
    assert code == 2
    assert told in text


def test_a_worker_whose_plan_differs_is_refused_with_both_hashes(exact: Path, tmp_path: Path) -> None:
    bind = f"127.0.0.1:{free_port()}"
    with serving(exact) as port:
        flags = ["--expect-workers", "1", "--bind", bind, "--out", str(tmp_path / "run")]
        master = started(command("run", "--target", f"http://127.0.0.1:{port}", *LOAD, *flags))
        until_line(master, "waiting for 1 workers")
        host, port_of_master = bind.split(":")
        arguments = ["--host", host, "--port", port_of_master, "--injectors", "1", "--folder", str(tmp_path / "worker")]
        worker = started([sys.executable, "-c", OTHER_PLANS, *arguments, "--wait", "30", "--alone", "10"])
        _, err = master.communicate(timeout=60)
        worker.communicate(timeout=60)
    assert master.returncode == worker.returncode == 2
    assert "the worker's plan is not the master's: its hash is" in err
    assert "worker-1" in err
