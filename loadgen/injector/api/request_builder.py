"""Turns plan rows into bytes: head and body of each request, ready before its time, and how long its user waits."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tailgate.loadgen.injector.api.openai_response import Reading
from tailgate.loadgen.injector.exchange import Exchange
from tailgate.loadgen.injector.http.endpoint import Endpoint
from tailgate.loadgen.job import Job
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.sampling.random_streams import RandomField

if TYPE_CHECKING:
    from tailgate.loadgen.injector.api.conversation import Conversations

# RFC 9110, 5.6.2 and 5.5.
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# What says where a message ends, and what would have it come compressed.
_FRAMING: Final = frozenset(
    "content-length transfer-encoding connection accept-encoding expect upgrade x-request-id".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Row:
    """The part of a plan row that the injector needs."""

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
    kind: str = ""  # its class


# The complete JSON body of a row's request.
BodyMaker = Callable[[Row], bytes]


class RequestMaker:
    """Turns rows into exchanges. Whatever all requests share is made once, here."""

    def __init__(
        self,
        job: Job,
        endpoints: list[Endpoint],
        make_body: BodyMaker,
        conversations: "Conversations | None" = None,
    ) -> None:
        self._job = job
        self._make_body = make_body
        self._conversations = conversations
        self._chat = job.api == "chat"
        self._endpoints = endpoints
        self._heads = [_head(endpoint, job.headers) for endpoint in endpoints]
        self._patience: Patience | None = None
        if job.patience is not None:
            self._patience = Patience(job.patience, job.patience_share, job.patience_seed)

    def exchange(self, row: Row, endpoint: int, *, followed: bool = False) -> Exchange:
        """The request of a row to endpoint number ``endpoint``, ``followed`` by a later turn or not."""
        talks = self._conversations
        if talks is None or not self.needs_answers(row):
            return self.wrap(row.index, self._make_body(row), endpoint)
        made = self.wrap(row.index, talks.body(row, followed=followed), endpoint)
        made.stream.reading.text = []
        return made

    def needs_answers(self, row: Row) -> bool:
        """Whether the request sends an earlier answer again, so that it can't be made before that has come."""
        return self._conversations is not None and self._conversations.holds(row)

    def answered(self, exchange: Exchange) -> None:
        if self._conversations is not None:
            self._conversations.answered(exchange.index, "".join(exchange.stream.reading.text or []))

    def wrap(self, index: int, body: bytes, endpoint: int) -> Exchange:
        request_id = f"tg-{self._job.run_nonce}-{index}"
        head = self._heads[endpoint] % (request_id.encode(), len(body))
        reading = Reading(chat=self._chat, vllm=self._job.dialect == "vllm")
        made = Exchange(index, request_id, head + body, reading, streamed=self._job.streamed)
        made.endpoint = endpoint
        made.head = self._heads
        if self._patience is not None:
            made.patience_ns = self._patience.ns(index)
        return made

    def readdress(self, exchange: Exchange, endpoint: int) -> None:
        """Send the same request to another endpoint, or with renewed headers."""
        if endpoint != exchange.endpoint or exchange.head is not self._heads:
            body = exchange.payload[exchange.payload.index(b"\r\n\r\n") + 4 :]
            exchange.payload = self._heads[endpoint] % (exchange.request_id.encode(), len(body)) + body
            exchange.endpoint = endpoint
            exchange.head = self._heads

    def renew_headers(self, headers: dict[str, str]) -> None:
        """Use other headers for what is still to be sent (`readdress`). A UserError keeps the old ones."""
        self._heads = [_head(endpoint, headers) for endpoint in self._endpoints]


def _head(endpoint: Endpoint, headers: dict[str, str]) -> bytes:
    """The request's head with places for request id and content length. It accepts no compression."""
    own = {
        "Host": endpoint.host_header,
        "Content-Type": "application/json",
        "Accept": "text/event-stream, application/json",
        "User-Agent": "tailgate",
    }
    if endpoint.authorization:
        own["Authorization"] = endpoint.authorization
    if endpoint.proxy_authorization:
        own["Proxy-Authorization"] = endpoint.proxy_authorization
    check_headers(headers)
    given = {name.lower() for name in headers}
    lines = [f"{name}: {value}" for name, value in own.items() if name.lower() not in given]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    text = f"POST {endpoint.target} HTTP/1.1\r\n" + "\r\n".join(lines)
    fixed = text.encode("latin-1").replace(b"%", b"%%")
    return fixed + b"\r\nX-Request-Id: %b\r\nContent-Length: %d\r\n\r\n"


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise a UserError that names a header which would break the request's framing, without its secret value."""
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise UserError(f"{name!r} is not a header's name", where="target.headers")
        if name.lower() in _FRAMING:
            raise UserError(f"the header {name} is set by the load generator", where="target.headers")
        if not _VALUE.fullmatch(value):
            raise UserError(
                f"the value of the header {name} has a line break or a character beyond Latin-1",
                where="target.headers",
            )


class Patience:
    """Planned abandonment: a share of the users hangs up after a time drawn from a law. A bad law is a UserError.

    Who, and after how long, are functions of (seed, the row's index): the same users are impatient in every run of a
    plan, with any number of injectors. Hanging up is the dispatcher's work.
    """

    def __init__(self, law: str, share: float, seed: int) -> None:
        from tailgate.workloads.sampling.distribution_grammar import parse

        try:
            self._law = parse(law)
        except ValueError as error:
            raise UserError(str(error), where="patience") from error
        self._share = share
        self._who = RandomField(seed, "patience", "who")
        self._how_long = RandomField(seed, "patience", "how long")

    def ns(self, index: int) -> int | None:
        """How long a row's user waits after its request is due, or None if it waits for the end."""
        row = np.array([index])
        if self._who.uniform(row)[0] >= self._share:
            return None
        return int(self._law.quantile(self._how_long.uniform(row))[0] * 1e9)
