"""The null server: answers completions on an exact schedule and does nothing else.

    python -m harness.calibrate.null_server --ttft-ms 50 --itl-ms 20

Token i of a request is due at ``a + ttft + i * itl``, where ``a`` is the kernel's receive stamp of the request's last
byte. What the server sends late it measures itself: ``GET /lateness``. It runs on the injector's own event loop, since
asyncio's timers are a millisecond coarse. Loopback only.
"""

import argparse
import json
import re
import signal
import socket
import sys
import time
from array import array
from collections import deque
from functools import partial

import numpy as np

from tailgate.loadgen.injector.event_loop import READABLE, EventLoop
from tailgate.loadgen.injector.kernel_timestamps import (
    ANCILLARY_BYTES,
    StampKeeper,
    ask_for_stamps,
    be_punctual,
    raise_file_limit,
    unpack_timespec,
)

MODEL = "null"
_GIGA = 1_000_000_000
_NEVER = 1 << 62
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_EVENT = (
    b'data: {"id":"cmpl-0123456789abcdef","object":"text_completion","created":1764000000,"model":"null",'
    b'"choices":[{"index":0,"text":" tok","logprobs":null,"finish_reason":%b,"stop_reason":null}]}\n\n'
)
_USAGE = (
    b'data: {"id":"cmpl-0123456789abcdef","object":"text_completion","created":1764000000,"model":"null","choices":[],'
    b'"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}}\n\n'
)
# Numbers of sane length: whoever finds the port must not end the calibration with a strange one.
_MAX_TOKENS = re.compile(rb'"max_tokens":\s*([1-9]\d{0,8})(?!\d)')
_LENGTH = re.compile(rb"content-length:\s*(\d{1,9})(?!\d)", re.IGNORECASE)
_LARGEST_BYTES = 1 << 26


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_TOKEN = _chunk(_EVENT % b"null")
_LAST = _chunk(_EVENT % b'"length"')
_END = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class _Answer:
    __slots__ = ("due", "left", "prompt", "sock", "total")

    def __init__(self, sock: socket.socket, due: int, total: int, prompt: int) -> None:
        self.sock = sock
        self.due = due
        self.left = self.total = total
        self.prompt = prompt


class NullServer:
    """Serves until the process ends. Times in nanoseconds."""

    def __init__(self, loop: EventLoop, ttft_ns: int, itl_ns: int) -> None:
        self._loop = loop
        self._ttft_ns = ttft_ns
        self._itl_ns = itl_ns
        # Deadlines of each kind only grow: two queues in order of time need no heap.
        self._firsts: deque[_Answer] = deque()
        self._nexts: deque[_Answer] = deque()
        self._armed_at = _NEVER
        self._input: dict[int, bytes] = {}
        self.lateness_ns = array("q")
        self._prompt_tokens = self._generated = 0
        self._stamps = StampKeeper()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self._real_less_mono_ns = time.time_ns() - time.monotonic_ns()
        loop.watch(self._listener.fileno(), self._accept)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def _accept(self, _mask: int) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ask_for_stamps(sock)
            self._loop.watch(sock.fileno(), partial(self._readable, sock), READABLE)

    def _readable(self, sock: socket.socket, _mask: int) -> None:
        try:
            data, ancillary, _, _ = sock.recvmsg(1 << 16, ANCILLARY_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        fd = sock.fileno()
        if not data or len(self._input.get(fd, b"")) > _LARGEST_BYTES:
            self._loop.unwatch(fd)
            self._input.pop(fd, None)
            sock.close()
            return
        stamp = time.time_ns()
        if ancillary:
            seconds, nanoseconds = unpack_timespec(ancillary[0][2])
            stamp = seconds * _GIGA + nanoseconds
        whole = self._input.pop(fd, b"") + data
        head, blank, body = whole.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not blank or len(body) < int(length[1] if length else 0):
            self._input[fd] = whole
            return
        self._request(sock, head, body, stamp)

    def _request(self, sock: socket.socket, head: bytes, body: bytes, stamp: int) -> None:
        if head.startswith(b"POST /v1/completions"):
            asked = _MAX_TOKENS.search(body)
            prompt = body.count(b",", body.find(b"["), body.find(b"]")) + 1
            self._prompt_tokens += prompt
            due = stamp + self._ttft_ns
            self._firsts.append(_Answer(sock, due, int(asked[1]) if asked else 1, prompt))
            self._arm()
        elif head.startswith(b"GET /v1/models"):
            models = {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "vllm"}]}
            self._plain(sock, json.dumps(models).encode())
        elif head.startswith(b"GET /lateness"):
            self._plain(sock, json.dumps(self.lateness()).encode())
        elif head.startswith(b"GET /metrics"):
            self._plain(
                sock,
                b"# TYPE vllm:prompt_tokens_total counter\nvllm:prompt_tokens_total %d\n"
                b"# TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total %d\n"
                % (self._prompt_tokens, self._generated),
            )
        else:
            self._write(sock, b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

    def lateness(self) -> dict[str, float]:
        """How many tokens left since the last call, and how late they were, in ms."""
        late, self.lateness_ns = np.frombuffer(self.lateness_ns, np.int64) / 1e6, array("q")
        if not len(late):
            return {"tokens": 0, "p50": 0.0, "p99": 0.0, "max": 0.0}
        p50, p99 = np.percentile(late, [50, 99])
        return {"tokens": len(late), "p50": float(p50), "p99": float(p99), "max": float(late.max())}

    def _arm(self) -> None:
        due = min((queue[0].due for queue in (self._firsts, self._nexts) if queue), default=_NEVER)
        if due < self._armed_at:
            self._armed_at = due
            self._loop.at(due - self._real_less_mono_ns, self._fire)

    def _fire(self) -> None:
        self._armed_at = _NEVER
        for queue in (self._firsts, self._nexts):
            while queue and queue[0].due <= time.time_ns():
                self._send_token(queue.popleft())
        self._arm()

    def _send_token(self, answer: _Answer) -> None:
        answer.left -= 1
        self._generated += 1
        data = (
            _TOKEN
            if answer.left
            else _LAST + _chunk(_USAGE % (answer.prompt, answer.prompt + answer.total, answer.total)) + _END
        )
        if answer.left == answer.total - 1:
            data = _HEAD + data
        self.lateness_ns.append(time.time_ns() - answer.due)
        if self._write(answer.sock, data) and answer.left:
            answer.due += self._itl_ns
            self._nexts.append(answer)

    def _plain(self, sock: socket.socket, body: bytes) -> None:
        self._write(
            sock, b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )

    def _write(self, sock: socket.socket, data: bytes) -> bool:
        """False when the client is gone, or reads so slowly that its socket is full: this server never waits."""
        try:
            return sock.send(data) == len(data)
        except OSError:
            return False


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ttft-ms", type=float, default=50.0)
    parser.add_argument("--itl-ms", type=float, default=20.0)
    given = parser.parse_args()
    be_punctual(die_with_parent=True)
    raise_file_limit()
    loop = EventLoop()
    server = NullServer(loop, int(given.ttft_ms * 1e6), int(given.itl_ms * 1e6))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(json.dumps({"port": server.port}), flush=True)
    loop.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
