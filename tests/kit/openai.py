"""A small OpenAI server whose answers are the test's to choose, and which keeps what it was asked.

Within the test: `answering(words)`. As a process of its own, as `kind: command` starts it:
`python small_server.py PORT [how ...]`, where each `how` is a field of `How`.
"""

import contextlib
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kit.scripted import CHUNKED, END, Peer, Request, ScriptedServer, chunk, event, whole

Words = Callable[[dict[str, Any]], Sequence[str] | None]  # None: refused with HTTP 418
PATHS = ("/v1/chat/completions", "/v1/completions")


@dataclass(frozen=True)
class How:
    """What a server does besides answering; ``die`` and ``slow`` begin after so many POSTs."""

    pauses_s: Sequence[float] = ()  # before each word
    before_usage_s: float = 0.0
    die: int | None = None  # ends its process, with code 7
    slow: int | None = None  # answers after a minute
    status: int | None = None  # answers POSTs with it
    key: str | None = None  # wants it as a bearer
    child: bool = False  # has a child of its own
    tls: Path | None = None  # a PEM file: speaks TLS


@dataclass
class OpenAi:
    """Each word of an answer is a token and an event."""

    words: Words
    how: How = How()
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # path, body
    loaded: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # those of the load, which has request ids

    def __call__(self, peer: Peer, request: Request) -> None:
        if request.target == "/health":
            peer.send(_json({}))
        elif self.how.key is not None and request.headers.get("authorization") != f"Bearer {self.how.key}":
            peer.send(_json({"error": "no key"}, 401))
        elif request.target == "/v1/models":
            peer.send(_json({"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "vllm"}]}))
        elif request.method == "POST" and request.target in PATHS:
            body = json.loads(request.body)
            if request.index >= 0:
                self.loaded.append((request.target, body))
            self._completion(peer, request.target, body)
        else:
            peer.send(_json({}, 404))

    def _completion(self, peer: Peer, path: str, body: dict[str, Any]) -> None:
        self.asked.append((path, body))
        if self.how.die is not None and len(self.asked) > self.how.die:
            print("CUDA error: an illegal memory access", flush=True)
            os._exit(7)
        if self.how.slow is not None and len(self.asked) > self.how.slow:
            print("asked", flush=True)
            time.sleep(60)
        words = self.words(body)
        if self.how.status is not None or words is None:
            peer.send(_json({"error": "not today"}, self.how.status or 418))
            return
        prompt = len(json.dumps(body.get("messages") or body.get("prompt")).split())
        usage = {"prompt_tokens": prompt, "completion_tokens": len(words), "total_tokens": prompt + len(words)}
        chat = path == PATHS[0]
        if not body.get("stream"):
            shape = {"message": {"content": " ".join(words)}} if chat else {"text": " ".join(words)}
            peer.send(_json({"choices": [{**shape, "finish_reason": "stop"}], "usage": usage}))
            return
        peer.send(CHUNKED)
        for pause, data in zip(self._pauses(chat, len(words)), _events(chat, words, usage), strict=True):
            time.sleep(pause)
            peer.send(chunk(event(data)))
        peer.send(END)

    def _pauses(self, chat: bool, words: int) -> list[float]:
        rest = [0.0] * (words - len(self.how.pauses_s))
        return [*[0.0] * chat, *self.how.pauses_s, *rest, self.how.before_usage_s, 0.0]


def _json(content: object, status: int = 200) -> bytes:
    return whole(json.dumps(content).encode(), status, content_type="application/json")


def _events(chat: bool, words: Sequence[str], usage: dict[str, int]) -> Iterator[bytes]:
    if chat:
        yield b'{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}'
    for k, word in enumerate(words):
        text = word if k == 0 else f" {word}"
        shape = {"delta": {"content": text}} if chat else {"text": text}
        yield json.dumps({"choices": [{**shape, "finish_reason": "stop" if k == len(words) - 1 else None}]}).encode()
    yield json.dumps({"choices": [], "usage": usage}).encode()
    yield b"[DONE]"


@dataclass(frozen=True)
class Answering:
    """A server within the test."""

    url: str
    asked: list[tuple[str, dict[str, Any]]]  # path, body; of the load


@contextlib.contextmanager
def answering(words: Words, pauses_s: Sequence[float] = (), before_usage_s: float = 0.0) -> Iterator[Answering]:
    """A server within the test; ``pauses_s``: before each word."""
    answer = OpenAi(words, How(pauses_s, before_usage_s))
    with ScriptedServer(answer) as server:
        yield Answering(server.url, answer.loaded)


def serve(port: int, how: How) -> None:
    """Until the process is ended."""
    if how.child:
        child = subprocess.Popen([sys.executable, "-c", "import time\nwhile True: time.sleep(60)"])
        print("child", child.pid, flush=True)
    context = None
    if how.tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(how.tls)
    with ScriptedServer(OpenAi(lambda body: ["x"] * body["max_tokens"], how), port=port, tls=context):
        while True:
            time.sleep(3600)
