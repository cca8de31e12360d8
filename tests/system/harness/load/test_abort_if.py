"""A run that its kill switch ends, and what it leaves."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.kit.command import SIM, Tailgate


class _Hung(BaseHTTPRequestHandler):
    """Has a model and answers until the load begins; from then on it takes every request and answers none."""

    over = threading.Event()
    begun: Path  # is there when the load begins

    def do_GET(self) -> None:
        body = b'{"object": "list", "data": [{"id": "m"}]}' if self.path == "/v1/models" else b""
        self.send_response(200 if body else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        if self.path == "/tokenize":
            self.do_GET()
            return
        if self.begun.exists():
            self.over.wait(60)
        event = {"choices": [{"index": 0, "text": "x", "finish_reason": "length"}]}
        usage = {"choices": [], "usage": {"prompt_tokens": 8, "completion_tokens": 1, "total_tokens": 9}}
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write(f"data: {json.dumps(event)}\n\ndata: {json.dumps(usage)}\n\ndata: [DONE]\n\n".encode())

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_that_hangs_stops_a_run(tailgate: Tailgate, tmp_path: Path) -> None:
    _Hung.begun = tmp_path / "run" / "manifest.json"
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hung)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "hung.yaml").write_text(f"""
target: {{url: "http://127.0.0.1:{server.server_port}"}}
workload: {{prompt_tokens: 8, output_tokens: 2, arrivals: {{process: constant, rate: 20/s}}, duration: 60s}}
abort_if: {{ttft: p99 > 1s}}
""")
    said = tailgate("run", "hung.yaml", "--out", "run", "--json")
    _Hung.over.set()
    server.shutdown()
    server.server_close()
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
