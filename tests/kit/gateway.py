"""An OpenAI server with the habits of gateways: what it lists, what it refuses, and in which words."""

import json
import threading
from dataclasses import dataclass, field
from typing import Any

from tests.kit.scripted import CHUNKED, END, Peer, Request, chunk, event, head, whole

NO_ROUTE = {"detail": "Not Found"}


@dataclass
class Gateway:
    """Answers with one word a token, as `ScriptedServer(Gateway(...))`; POSTs it was asked are in `bodies`."""

    # Names of its list (a text: only one); None: it has no list; bytes: that body instead; a number: HTTP status alone;
    # False: it closes.
    models: Any = "m"
    owner: str = "acme"
    metrics: str | None = None
    forbids: dict[str, int] = field(default_factory=dict)  # field -> status; `ids`: prompts as token ids
    says: str = "[{{'type': 'extra_forbidden', 'loc': ('body', '{name}')}}]"  # of a refused field
    moved: dict[str, str] = field(default_factory=dict)  # path -> where a 307 points
    status: int = 200  # of every POST
    hangs: bool = False  # no POST is answered
    goes_on: bool = False  # an answer has no end
    least: int = 0  # tokens that an answer may be limited to; fewer are refused
    meets: threading.Barrier | None = None  # a POST is answered when so many are there
    fingerprint: str | None = None
    in_a_200: bool = False  # refusals come as an event of a stream
    bodies: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, peer: Peer, request: Request) -> None:
        path = request.target.partition("?")[0]
        if path in self.moved:
            peer.send(head(307, f"Location: {self.moved[path]}", "Content-Length: 0"))
        elif request.method == "PRI" or (path == "/v1/models" and self.models is False):
            peer.close()
        elif path == "/v1/models" and isinstance(self.models, int):
            peer.send(_json({}, self.models))
        elif path == "/v1/models" and self.models is not None:
            peer.send(whole(self._list(), content_type="application/json"))
        elif path == "/metrics" and self.metrics is not None:
            peer.send(whole(self.metrics.encode()))
        elif request.method == "POST" and path.endswith("completions"):
            self._answer(peer, json.loads(request.body), chat="chat" in path)
        else:
            peer.send(_json(NO_ROUTE, 404))

    def _list(self) -> bytes:
        if isinstance(self.models, bytes):
            return self.models
        names = [self.models] if isinstance(self.models, str) else self.models
        return json.dumps({"object": "list", "data": [{"id": n, "owned_by": self.owner} for n in names]}).encode()

    def _answer(self, peer: Peer, body: dict[str, Any], *, chat: bool) -> None:
        self.bodies.append(body)
        if self.hangs:
            peer.wait_hung_up()
            return
        if self.meets is not None:
            self.meets.wait(10)
        tokens = body.get("max_tokens") or body.get("max_completion_tokens") or 4
        if tokens < self.least:
            peer.send(_json({"error": {"message": f"an answer needs a limit of {self.least} tokens at least"}}, 400))
            return
        ids = isinstance(body.get("prompt"), list)
        for name, status in self.forbids.items():
            if name in body or (name == "ids" and ids):
                error = {"error": {"message": self.says.format(name="prompt" if name == "ids" else name)}}
                if self.in_a_200:
                    peer.send(CHUNKED + chunk(event(json.dumps(error).encode())) + END)
                else:
                    peer.send(_json(error, status))
                return
        if self.status != 200:
            peer.send(_json({"error": {"message": "no such thing"}}, self.status))
            return
        shape = [{"delta": {"content": "a "}} if chat else {"text": "a "} for _ in range(tokens)]
        about = {"system_fingerprint": self.fingerprint} if self.fingerprint else {}
        events = [{"choices": [{**piece, "index": 0, "finish_reason": None}], **about} for piece in shape]
        events[-1]["choices"][0]["finish_reason"] = "length"  # type: ignore[index]
        events.append({"choices": [], "usage": {"prompt_tokens": 32, "completion_tokens": tokens}, **about})
        if self.goes_on:
            peer.send(CHUNKED + chunk(event(json.dumps(events[0]).encode())))
            peer.wait_hung_up()
            return
        payloads = [json.dumps(piece).encode() for piece in events]
        peer.send(CHUNKED + b"".join(chunk(event(payload)) for payload in [*payloads, b"[DONE]"]) + END)


def _json(content: object, status: int = 200) -> bytes:
    return whole(json.dumps(content).encode(), status, content_type="application/json")
