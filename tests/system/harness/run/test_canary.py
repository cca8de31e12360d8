"""A secret planted by every way in comes out nowhere: no file, no stream, no list of processes."""

import base64
import binascii
import gzip
import json
import os
import re
import shlex
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from tests.kit.command import Said, Tailgate, free_port
from tests.kit.paths import SMALL_SERVER

CANARY = re.compile(rb"CANARY-?\w+")
TYPED = b"CANARYvariable"
PACKED = re.compile(rb"H4sI[\w+/]{16,}={0,2}")  # what gzip makes, in base64
WORKLOAD = {"arrivals": {"rate": "5/s"}, "duration": "1s", "prompt_tokens": 8, "output_tokens": 4}


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
            self.processes.update(_seen_of(process))
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


def _seen_of(process: Path) -> set[bytes]:
    """What a process shows of the canary, but for what was typed: the command itself, and a variable all inherit."""
    try:
        parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        shown = b"" if parent == os.getpid() else (process / "cmdline").read_bytes()
        environ = {*CANARY.findall((process / "environ").read_bytes())} - {TYPED}
        return environ.union(CANARY.findall(shown))
    except OSError:  # it ended, or is another's
        return set()


SPEC = {"workload": WORKLOAD, "extra": {"user_token": "CANARYextra", "metadata": {"password": "CANARYdeep"}}}
FLAGS = ["--header", "X-Api-Key: CANARYheader", "--header=Cookie: sid=CANARYcookie"]
# By each way: the target and further flags.
WAYS = {
    "url": ({"url": "http://ann:CANARYpassword@{at}"}, []),
    "headers": ({"url": "http://{at}", "headers": {"X-Api-Key": "CANARYheader", "Cookie": "sid=CANARYcookie"}}, []),
    "auth": ({"url": "http://{at}", "auth": {"command": "printf CANARY; printf command"}}, []),
    "auth env": ({"url": "http://{at}", "auth": {"env": "PLANTED"}}, []),
    "api-key-env": ({"url": "http://{at}"}, ["--api-key-env", "PLANTED"]),
    "flags": ({"url": "http://{at}"}, [*FLAGS, "--extra", '{"user_token": "CANARYextra"}']),
    "gpus": ({"url": "http://{at}"}, []),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_canary_comes_out_nowhere(tmp_path: Path, tailgate: Tailgate, echo: ThreadingHTTPServer, way: str) -> None:
    target, flags = WAYS[way]
    at = f"127.0.0.1:{echo.server_address[1]}"
    spec = {**SPEC, "target": {**target, "url": target["url"].format(at=at), "model": "m"}, "drain": "1s"}
    if way == "gpus":
        spec["telemetry"] = {"gpu": f"dcgm:http://ann:CANARYgpus@{at}/gpus?key=CANARYquery"}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    variables = {"PLANTED": TYPED.decode()} if "env" in way else {}
    said = tailgate("run", "spec.yaml", *flags, "--no-settle", "--out", "run", env=variables)
    assert said.code != 0
    if echo.RequestHandlerClass.kind == "load":  # type: ignore[attr-defined]
        assert b"refused" in (tmp_path / "run" / "summary.json").read_bytes(), said.err
        assert "***" in (tmp_path / "run" / "manifest.json").read_text()
    else:
        assert "HTTP 500: refused: {" in said.err
    _assert_nothing_is_seen(tmp_path, tailgate, said)
    assert not echo.RequestHandlerClass.processes  # type: ignore[attr-defined]


def test_a_query_is_refused_without_being_shown(tmp_path: Path, tailgate: Tailgate) -> None:
    target = {"url": "http://127.0.0.1:9?sig=CANARYquery", "model": "m"}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump({"target": target, "workload": WORKLOAD}))
    said = tailgate("run", "spec.yaml", "--out", "run")
    assert said.code == 2 and "was given with a query" in said.err
    _assert_nothing_is_seen(tmp_path, tailgate, said)


@pytest.mark.parametrize("dies", ["start", "load"])
def test_what_is_planted_in_a_servers_environment_comes_out_only_in_its_own_log(
    tmp_path: Path, tailgate: Tailgate, dies: str
) -> None:
    port = free_port()
    server = "exit 3" if dies == "start" else f"exec {sys.executable} {SMALL_SERVER} {port} die=3"
    target = {
        "kind": "command", "url": f"http://127.0.0.1:{port}", "env": {"HF_TOKEN": "CANARYenv"},
        "command": f"sh -c {shlex.quote(f'echo logged in with $HF_TOKEN; {server}')}",
    }  # fmt: skip
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump({"target": target, "workload": WORKLOAD, "drain": "1s"}))
    said = tailgate("run", "spec.yaml", "--no-settle", "--out", "run")
    assert said.code != 0
    shown = said.err if dies == "start" else (tmp_path / "run" / "events.jsonl").read_text()
    assert "logged in with ***" in shown, said.err
    if dies == "load":
        assert CANARY.search((tmp_path / "run" / "server.log").read_bytes())
    _assert_nothing_is_seen(tmp_path, tailgate, said)


def _assert_nothing_is_seen(folder: Path, tailgate: Tailgate, said: Said) -> None:
    """Not in what was printed, in no export, in no file but the one that it was written into."""
    streams = {"stdout": said.out.encode(), "stderr": said.err.encode()}
    if (folder / "run" / "summary.json").exists():
        assert _unpacked((folder / "run" / "report.html").read_bytes())
        for kind in ("md", "csv", "junit", "json"):
            streams[kind] = tailgate("report", "run", "--format", kind).out.encode()
    for name, content in streams.items():
        assert not CANARY.findall(content), name
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in ("spec.yaml", "server.log"):
            content = path.read_bytes()
            rows = str(pq.read_table(path).to_pylist()).encode() if path.suffix == ".parquet" else b""
            assert not CANARY.findall(content + rows + b"".join(_unpacked(content))), path


def _unpacked(content: bytes) -> list[bytes]:
    """What is packed inside: a page's figures, and the library that draws them."""
    return [gzip.decompress(binascii.a2b_base64(packed)) for packed in PACKED.findall(content)]
