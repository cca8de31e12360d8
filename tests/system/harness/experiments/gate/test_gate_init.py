"""The policies that `tailgate gate init --for ...` writes are run, with shorter loads, against the embedded engine."""

import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kit.busy import skip_if_too_busy
from tests.kit.command import command
from tests.kit.engine import engine_process

from tailgate.reports.rundir.manifest import Manifest

PRESET = "h100-sxm/llama-3.1-8b"  # slow enough for a busy machine to read its tokens one by one
SPEC = "workload: {prompt_tokens: 64, output_tokens: 8, arrivals: {rate: 20/s}, duration: 3s, warmup: 300ms}\n"


def call(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def init(folder: Path, purpose: str, baseline: str, candidate: str) -> subprocess.CompletedProcess[str]:
    (folder / "s.yaml").write_text(SPEC)
    sides = ("--baseline", baseline, "--candidate", candidate)
    done = call("gate", "init", f"{purpose}.yaml", "--for", purpose, *sides, "--spec", "s.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    first = (folder / f"{purpose}.yaml").read_text().partition("\n")[0]
    assert first.startswith("# Finds slowdowns above about ") and first.removeprefix("# ") in done.stdout
    return done


def verdict_of(done: subprocess.CompletedProcess[str]) -> dict:
    """Whatever it is: two seconds decide little, and a busy machine can't measure them."""
    assert done.returncode in (0, 1, 3, 4), done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def pull_request(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict]]:
    """A gate of two servers that are running, as in a pull request."""
    folder = tmp_path_factory.mktemp("pr")
    with engine_process(preset=PRESET) as (main, _), engine_process(preset=PRESET) as (change, _):
        init(folder, "pr", main, change)
        yield folder, verdict_of(call("gate", "--policy", "pr.yaml", "--out", "out", "--json", cwd=folder))


def test_a_pull_request_has_one_look_at_three_pairs_of_running_servers(pull_request: tuple[Path, dict]):
    _, found = pull_request
    assert found["spent"]["restart"] == "never" and "these launches only" in found["holds_for"]
    assert found["spent"]["runs"] and found["inconclusive"] == "neutral"
    skip_if_too_busy(found)
    assert (found["pairs"], found["design"]["extended"]) == (3, None)
    assert [metric["margin"] for metric in found["metrics"]] == [0.2, 0.2]
    assert found["blocks"] == (found["verdict"] == "FAIL")  # what it can't tell is neutral


def test_a_nightly_gate_judges_stored_runs_and_keeps_its_verdict(pull_request: tuple[Path, dict]):
    folder, found = pull_request
    init(folder, "nightly", "http://127.0.0.1:9", "http://127.0.0.1:9")
    skip_if_too_busy(found)
    for _, side, _, _ in found["spent"]["runs"]:
        (folder / side).mkdir(exist_ok=True)
    for name, side, *_ in found["spent"]["runs"]:
        (folder / side / name).symlink_to(folder / "out" / name)
    words = ("--baseline", "baseline/*", "--candidate", "candidate/*", "--json")
    nightly = verdict_of(call("gate", "--policy", "nightly.yaml", *words, cwd=folder))
    by_key = {metric["key"]: metric for metric in nightly["metrics"]}  # so short runs may have too few for a p90
    assert {key: metric["margin"] for key, metric in by_key.items()} == {"ttft.p90": 0.1, "tpot.mean": 0.07}
    assert by_key["tpot.mean"]["how"] == "unpaired, with drift"
    (line,) = (folder / "gate-history.jsonl").read_text().splitlines()
    assert json.loads(line)["verdict"] == nightly["verdict"]


def test_a_release_restarts_its_servers_and_judges_its_own_limits(tmp_path: Path):
    init(tmp_path, "release", f"sim:{PRESET}", f"sim:{PRESET}")
    path = tmp_path / "release.yaml"
    shorter = {"pairs: 5 ": "pairs: 3 ", "extension: 10 ": "extension: null ", "p99 < 800ms": "p90 < 800ms"}
    for written, short in shorter.items():
        assert written in path.read_text()
        path.write_text(path.read_text().replace(written, short))
    found = verdict_of(call("gate", "--policy", "release.yaml", "--out", "out", "--json", cwd=tmp_path))
    manifests = [Manifest.load(tmp_path / "out" / name) for name, *_ in found["spent"]["runs"]]
    commands = {shlex.join(manifest.target.life["command"]) for manifest in manifests}
    assert found["spent"]["restart"] == "each" and len(commands) == len(manifests) > 1  # each has an engine seed
    skip_if_too_busy(found)
    assert found["pairs"] == 3
    assert [threshold["metric"] for threshold in found["thresholds"]] == ["ttft", "errors"]
    assert found["thresholds"][0]["beyond"]["of"] > 0


def test_a_release_of_servers_that_cannot_be_restarted_is_told_so(tmp_path: Path):
    done = init(tmp_path, "release", "http://127.0.0.1:9", f"sim:{PRESET}")
    assert "note: baseline: a server that is only a URL can't be restarted" in done.stderr


def test_a_pilot_and_a_purpose_with_margins_of_its_own_exclude_each_other(tmp_path: Path):
    done = call("gate", "init", "--for", "pr", "--pilot", "3", cwd=tmp_path)
    assert done.returncode == 2 and "--pilot: --for pr has margins and pairs of its own" in done.stderr


def test_a_gate_without_its_servers_leaves_nothing_behind(tmp_path: Path):
    init(tmp_path, "pr", "http://127.0.0.1:9", "http://127.0.0.1:9")
    before = sorted(tmp_path.iterdir())
    done = call("gate", "--policy", "pr.yaml", cwd=tmp_path)
    assert done.returncode == 2 and "127.0.0.1:9" in done.stderr
    assert sorted(tmp_path.iterdir()) == before
