"""A run that its kill switch ends, and what it leaves."""

import json
import threading
from pathlib import Path

from tests.kit.command import SIM, Tailgate
from tests.kit.scripted import Peer, Request, ScriptedServer, ok, whole


class _Hung:
    """Has a model and answers until the load begins; from then on it takes every request and answers none."""

    def __init__(self, begun: Path) -> None:
        self.begun = begun  # is there when the load begins
        self.over = threading.Event()

    def __call__(self, peer: Peer, request: Request) -> None:
        if request.target == "/v1/models":
            peer.send(whole(b'{"object": "list", "data": [{"id": "m"}]}'))
        elif request.method == "GET" or request.target == "/tokenize":
            peer.send(whole(b"", 404))
        else:
            if self.begun.exists():
                self.over.wait(60)
            peer.send(ok(tokens=1, prompt=8))


def test_a_server_that_hangs_stops_a_run(tailgate: Tailgate, tmp_path: Path) -> None:
    hung = _Hung(tmp_path / "run" / "manifest.json")
    with ScriptedServer(hung) as server:
        (tmp_path / "hung.yaml").write_text(f"""
target: {{url: "{server.url}"}}
workload: {{prompt_tokens: 8, output_tokens: 2, arrivals: {{process: constant, rate: 20/s}}, duration: 60s}}
abort_if: {{ttft: p99 > 1s}}
""")
        said = tailgate("run", "hung.yaml", "--out", "run", "--json")
        hung.over.set()
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert (manifest["state"], manifest["aborted_by"]) == ("aborted", "ttft"), said.err
    assert 1e9 < manifest["ended_ns"] < 20e9
    assert said.summary["errors"]["failed"] == 0  # what we cut off is not the server's failure
    assert said.summary["load"]["requests"]["cancelled"] > 10


def test_a_run_that_is_stopped_keeps_and_marks_what_it_has(tailgate: Tailgate, tmp_path: Path) -> None:
    spec = f"""
name: doomed
target: {{kind: sim, sim: {SIM.removeprefix("sim:")}}}
workload: {{prompt_tokens: 32, output_tokens: 8, arrivals: {{process: poisson, rate: 40/s}}, duration: 120s}}
abort_if: {{e2e: p50 > 1ms}}
"""
    (tmp_path / "doomed.yaml").write_text(spec)
    said = tailgate("run", "doomed.yaml", "--out", "run", "--json")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["state"] == "aborted"
    assert "abort_if" in manifest["state_reason"]
    assert said.code not in (0, 2)
    statuses = said.summary["load"]["requests"]
    assert statuses["ok"] > 0 and statuses["not_sent"] > 0
