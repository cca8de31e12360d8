"""A log's own bodies, sent from several machines: each worker gets the log, and the same bodies go out."""

import gzip
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kit.command import command
from tests.kit.engine import engine_process
from tests.kit.machines import Distributed, Ended


@pytest.fixture
def engine() -> Iterator[str]:
    with engine_process(preset="h100-sxm/llama-3.1-8b") as (url, _):
        yield url


def test_two_workers_send_the_bodies_that_one_machine_sends(engine: str, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl.gz"
    with gzip.open(log, "wt") as file:
        for k in range(40):
            body = {"messages": [{"role": "user", "content": "word " * (3 * k + 1)}]}
            usage = {"prompt_tokens": 5, "completion_tokens": 3}
            file.write(json.dumps({"timestamp": 1_700_000_000 + k / 20, "request": body, "usage": usage}) + "\n")
    flags = ["--target", engine, "--endpoint", "chat", "--trace", str(log), "--trace-format", "openai"]
    flags += ["--content", "replay", "--quiet", "--no-settle"]
    with Distributed(tmp_path / "two", flags) as run:
        two = run.ended()
    alone = subprocess.run(command("run", *flags, "--out", tmp_path / "one"), capture_output=True, check=False)
    assert alone.returncode in (0, 4), alone.stderr
    one = Ended(tmp_path / "one", alone.returncode, "", "", []).requests()
    assert set(two.requests()["status"].to_pylist()) == {"ok"}, two.err
    assert set(two.requests()["injector"].to_pylist()) == {0, 1}
    counted = two.requests()["prompt_tokens"].to_pylist()
    assert counted == one["prompt_tokens"].to_pylist()
    assert len(set(counted)) == 40  # by the body's own length, not by the log's usage
