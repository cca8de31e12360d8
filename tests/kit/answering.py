"""A small OpenAI server whose answers are the test's to choose, and which keeps what it was asked."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Words = Callable[[dict[str, Any]], list[str] | None]  # None: refused with HTTP 418


@dataclass
class Answering:
    """Each word of an answer is a token and an event."""

    url: str
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # path, body


@contextlib.contextmanager
def answering(words: Words, pauses_s: Sequence[float] = (), before_usage_s: float = 0.0) -> Iterator[Answering]:
    """``pauses_s``: before each word."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            if self.path == "/v1/models":
                self._whole({"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "vllm"}]})
            else:
                self.send_error(404)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path not in ("/v1/chat/completions", "/v1/completions"):
                self.send_error(404)
                return
            with lock:
                made.asked.append((self.path, body))
            said = words(body)
            if said is None:
                self.send_error(418)
                return
            prompt = len(json.dumps(body.get("messages") or body.get("prompt")).split())
            usage = {"prompt_tokens": prompt, "completion_tokens": len(said), "total_tokens": prompt + len(said)}
            chat = self.path.startswith("/v1/chat")
            if not body.get("stream"):
                shape = {"message": {"content": " ".join(said)}} if chat else {"text": " ".join(said)}
                self._whole({"choices": [{**shape, "finish_reason": "stop"}], "usage": usage})
                return
            events: list[dict[str, Any]] = []
            if chat:
                events.append({"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
            for k, word in enumerate(said):
                text = word if k == 0 else f" {word}"
                reason = "stop" if k == len(said) - 1 else None
                shape = {"delta": {"content": text}} if chat else {"text": text}
                events.append({"choices": [{**shape, "finish_reason": reason}]})
            events.append({"choices": [], "usage": usage})
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a user was ended in its midst
                pauses = [0.0] * chat + [*pauses_s, *[0.0] * (len(said) - len(pauses_s)), before_usage_s, 0.0]
                for event, pause in zip([*map(json.dumps, events), "[DONE]"], pauses, strict=True):
                    time.sleep(pause)
                    data = f"data: {event}\n\n".encode()
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
                self.wfile.write(b"0\r\n\r\n")

        def _whole(self, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = Answering(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
