"""A server as `kind: command` starts it: `python small_server.py PORT [how ...]`, just enough of an OpenAI API.

die=N: ends with code 7 at the POST after the first N; slow=N: answers POSTs after the first N after a minute;
status=N: answers POSTs with it; key=K: wants it as a bearer; child: has a child of its own; tls=PEM: speaks TLS.
"""

import http.server
import json
import os
import ssl
import subprocess
import sys
import time

PORT = int(sys.argv[1])
HOW = dict(word.partition("=")[::2] for word in sys.argv[2:])
POSTS = iter(range(10**9))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/health":
            return self._answer(200, {})
        if self._refused():
            return self._answer(401, {"error": "no key"})
        if self.path == "/v1/models":
            return self._answer(200, {"data": [{"id": "m", "owned_by": "me"}]})
        return self._answer(404, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._refused():
            return self._answer(401, {"error": "no key"})
        if "die" in HOW and next(POSTS) >= int(HOW["die"] or 0):
            print("CUDA error: an illegal memory access", flush=True)
            os._exit(7)
        if "slow" in HOW and next(POSTS) >= int(HOW["slow"] or 0):
            print("asked", flush=True)
            time.sleep(60)
        if "status" in HOW:
            return self._answer(int(HOW["status"]), {"error": "not today"})
        usage = {"prompt_tokens": 3, "completion_tokens": body["max_tokens"]}
        if not body.get("stream"):
            return self._answer(200, {"choices": [{"text": "a"}], "usage": usage})
        chunks = [{"choices": [{"text": " x", "index": 0, "finish_reason": None}]}] * body["max_tokens"]
        text = "".join(f"data: {json.dumps(one)}\n\n" for one in [*chunks, {"choices": [], "usage": usage}])
        return self._send(200, "text/event-stream", f"{text}data: [DONE]\n\n".encode())

    def log_message(self, *_: object) -> None:
        pass

    def _refused(self) -> bool:
        return "key" in HOW and self.headers.get("Authorization") != f"Bearer {HOW['key']}"

    def _answer(self, status: int, body: object) -> None:
        self._send(status, "application/json", json.dumps(body).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


if __name__ == "__main__":
    if "child" in HOW:
        child = subprocess.Popen([sys.executable, "-c", "import time\nwhile True: time.sleep(60)"])
        print("child", child.pid, flush=True)
    server = Server(("127.0.0.1", PORT), Handler)
    if "tls" in HOW:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(HOW["tls"])
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()
