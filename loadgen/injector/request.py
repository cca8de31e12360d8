"""Plan rows to bytes: head and body of each request, ready before its time."""

from dataclasses import dataclass
from typing import Any, Final

import orjson

from loadgen.injector.dialect import Reading
from loadgen.injector.endpoint import Endpoint
from loadgen.injector.exchange import Exchange
from loadgen.job import Job
from workloads.prompts import PromptMaker

PATHS: Final = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}


@dataclass(frozen=True, slots=True)
class Row:
    """What of a plan row the injector needs."""

    index: int
    at_ns: int | None
    session: int
    turn: int
    think_ns: int
    prompt_tokens: int
    output_tokens: int
    prefix_blocks: list[int]
    content_seed: int
    priority: int


class RequestMaker:
    """Rows to exchanges. Everything that is the same for all requests is made once, here."""

    def __init__(self, job: Job, endpoints: list[Endpoint], prompts: PromptMaker) -> None:
        self._job = job
        self._prompts = prompts
        self._chat = job.api == "chat"
        self._endpoints = endpoints
        self._heads = [_head(endpoint, job.headers) for endpoint in endpoints]
        self._before = b'{"model":' + orjson.dumps(job.model) + (b',"messages":' if self._chat else b',"prompt":')
        self._after = _after(job)

    def exchange(self, row: Row, endpoint: int) -> Exchange:
        """The request of a row, addressed to endpoint number ``endpoint``."""
        make = self._prompts.messages_json if self._chat else self._prompts.ids_json
        prompt = make(row.content_seed, row.prefix_blocks, row.prompt_tokens)
        length = b'"max_tokens":%d' % row.output_tokens
        if self._job.forced_output:
            length += b',"min_tokens":%d,"ignore_eos":true' % row.output_tokens
        if row.priority:
            length += b',"priority":%d' % row.priority
        body = b"".join((self._before, prompt, b",", length, self._after))
        return self.wrap(row.index, body, endpoint)

    def wrap(self, index: int, body: bytes, endpoint: int) -> Exchange:
        """A request with a body that is ready already."""
        request_id = f"tg-{self._job.run_nonce}-{index}"
        head = self._heads[endpoint] % (request_id.encode(), len(body))
        reading = Reading(chat=self._chat, vllm=self._job.dialect == "vllm")
        made = Exchange(index, request_id, head + body, reading, streamed=self._job.streamed)
        made.endpoint = endpoint
        return made

    def readdress(self, exchange: Exchange, endpoint: int) -> None:
        """The same request to another endpoint."""
        if endpoint != exchange.endpoint:
            body = exchange.payload[exchange.payload.index(b"\r\n\r\n") + 4 :]
            exchange.payload = self._heads[endpoint] % (exchange.request_id.encode(), len(body)) + body
            exchange.endpoint = endpoint

    def renew_headers(self, headers: dict[str, str]) -> None:
        """Other headers from now on: a token was refreshed."""
        self._heads = [_head(endpoint, headers) for endpoint in self._endpoints]


def _head(endpoint: Endpoint, headers: dict[str, str]) -> bytes:
    """The request's head with places for request id and content length. No Accept-Encoding: no compression."""
    own = {
        "Host": endpoint.host_header,
        "Content-Type": "application/json",
        "Accept": "text/event-stream, application/json",
        "User-Agent": "tailgate",
    }
    given = {name.lower() for name in headers}
    lines = [f"{name}: {value}" for name, value in own.items() if name.lower() not in given]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    text = f"POST {endpoint.target} HTTP/1.1\r\n" + "\r\n".join(lines)
    fixed = text.encode("latin-1").replace(b"%", b"%%")
    return fixed + b"\r\nX-Request-Id: %b\r\nContent-Length: %d\r\n\r\n"


def _after(job: Job) -> bytes:
    """The fields behind prompt and length: the same in every request."""
    fields: dict[str, Any] = {"temperature": 0}
    if job.streamed:
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
    fields |= job.extra
    return b"," + orjson.dumps(fields)[1:]
