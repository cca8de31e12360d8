"""A secret planted by every way in comes out nowhere: no file, no stream, no list of processes."""

import base64
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from tests.kit.command import Tailgate

CANARY = re.compile(rb"CANARY-?\w+")


class _Echo(BaseHTTPRequestHandler):
    """Refuses what is asked, and repeats all of it in its message; `/v1/models` is answered where `kind` says so."""

    protocol_version = "HTTP/1.1"
    kind = ""
    processes: set[bytes]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.kind == "load" and self.path.startswith("/v1/models"):
            self._answer(200, {"object": "list", "data": [{"id": "m", "object": "model", "max_model_len": 32768}]})
        elif self.kind == "load" and self.path.startswith("/gpus"):
            self._answer(200, b'DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-a"} 412.5\n')
        else:
            self._refuse({})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                try:
                    self.processes.update(CANARY.findall((process / name).read_bytes()))
                except OSError:  # it ended, or is another's
                    continue
        self._refuse({key: value for key, value in body.items() if key not in ("prompt", "messages")})

    def _refuse(self, body: dict[str, object]) -> None:
        sent = dict(self.headers)
        scheme, _, pair = sent.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            sent["decoded"] = base64.b64decode(pair).decode()
        self._answer(500, {"error": {"message": f"refused: {json.dumps(body)} {sent} {self.path}"}})

    def _answer(self, code: int, data: dict[str, object] | bytes) -> None:
        content = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture(params=["start", "load"])
def echo(request: pytest.FixtureRequest) -> Iterator[ThreadingHTTPServer]:
    """A server that refuses everything from the start, or the load only."""
    handler = type("Handler", (_Echo,), {"kind": request.param, "processes": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("way", ["url", "headers", "auth", "gpus"])
def test_a_canary_comes_out_nowhere(tmp_path: Path, tailgate: Tailgate, echo: ThreadingHTTPServer, way: str) -> None:
    at = f"127.0.0.1:{echo.server_address[1]}"
    target = {
        "url": {"url": f"http://ann:CANARYpassword@{at}"},
        "headers": {"url": f"http://{at}", "headers": {"X-Api-Key": "CANARYheader", "Cookie": "sid=CANARYcookie"}},
        "auth": {"url": f"http://{at}", "auth": {"command": "printf CANARY; printf command"}},
        "gpus": {"url": f"http://{at}"},
    }[way]
    spec = {
        "target": target,
        "workload": {"arrivals": {"rate": "5/s"}, "duration": "1s", "prompt_tokens": 8, "output_tokens": 4},
        "extra": {"user_token": "CANARYextra", "metadata": {"password": "CANARYdeep"}},
        "drain": "1s",
    }
    if way == "gpus":
        spec["telemetry"] = {"gpu": f"dcgm:http://ann:CANARYgpus@{at}/gpus?key=CANARYquery"}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    said = tailgate("run", "spec.yaml", "--no-settle", "--out", "run")
    streams = {"stdout": said.out.encode(), "stderr": said.err.encode()}
    assert said.code != 0
    if echo.RequestHandlerClass.kind == "load":  # type: ignore[attr-defined]
        assert b"refused" in (tmp_path / "run" / "summary.json").read_bytes(), said.err
        for kind in ("md", "csv", "junit", "json"):
            streams[kind] = tailgate("report", "run", "--format", kind).out.encode()
    for name, content in streams.items():
        assert not CANARY.findall(content), name
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name != "spec.yaml":
            rows = str(pq.read_table(path).to_pylist()).encode() if path.suffix == ".parquet" else b""
            assert not CANARY.findall(path.read_bytes() + rows), path
    assert not echo.RequestHandlerClass.processes  # type: ignore[attr-defined]
