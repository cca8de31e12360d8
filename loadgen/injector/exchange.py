"""One request and its answer, from dispatch to record: the state that lives while it is in flight.

Absolute stamps are CLOCK_REALTIME nanoseconds. `conclude` decides the status of an answer that arrived; the
connection decides it where none did.
"""

import contextlib
from dataclasses import InitVar, dataclass, field
from typing import Any

from tailgate.loadgen.injector.api import openai_response
from tailgate.loadgen.injector.api.openai_response import BadPayload, Reading
from tailgate.loadgen.injector.http.endpoint import public_name
from tailgate.loadgen.injector.http.token_stream import TokenStream
from tailgate.loadgen.records import NO_COUNT, HungUp, Status

_ERROR_CHARS = 500


@dataclass(slots=True, eq=False, repr=False)
class Exchange:
    """A prepared request, and what has happened to it."""

    index: int
    request_id: str
    payload: bytes  # head and body, ready to send
    reading: InitVar[Reading]
    streamed: bool = field(kw_only=True)
    stream: TokenStream = field(init=False)
    endpoint: int = 0
    scheduled_ns: int | None = None
    handed_over_ns: int | None = None  # closed loop: when the user asked for it
    dispatched_ns: int | None = None
    head: object = None  # what its head was made from
    patience_ns: int | None = None  # how long the user waits, from when the request is due
    timeout_ns: int | None = None  # give up at this time
    hang_up_ns: int | None = None  # the user's patience ends at this time
    connect_start_ns: int | None = None
    connected_ns: int | None = None
    sent_ns: int | None = None
    headers_ns: int | None = None
    end_ns: int | None = None
    reused: bool | None = None
    http_status: int | None = None
    content_type: bytes = b""
    content_encoding: bytes = b""
    location: bytes = b""  # where a redirect points
    bytes_received: int = 0
    status: Status | None = None
    error: str | None = None
    hung_up: HungUp | None = None  # why, if we did

    def __post_init__(self, reading: Reading) -> None:
        self.stream = TokenStream(reading)

    def set_deadlines(self, due_ns: int, timeout_ns: int | None) -> None:
        """Give up when the user's patience or the timeout is over, both counted from when the request is due."""
        if self.patience_ns is not None:
            self.hang_up_ns = due_ns + self.patience_ns
        if timeout_ns is not None:
            self.timeout_ns = due_ns + timeout_ns

    def fail(self, status: Status, error: str | None, end_ns: int) -> None:
        """End without the answer's end. Arrivals up to now are kept.

        A stream that has said [DONE] is whole, as every client takes it, though its server never ends it.
        """
        if self.http_status == 200 and self.streamed:
            with contextlib.suppress(BadPayload):  # why the answer ended says more
                self.stream.digest()
            if self.stream.reading.done and self._outcome(end_ns)[0] is Status.OK:
                status, error, self.hung_up = Status.OK, None, None
        complaint = self.stream.reading.error
        if complaint is not None and status in (Status.RESET, Status.TRUNCATED):
            status, error = self._complained(), complaint  # it said why before it hung up
        self._end(status, error, end_ns)

    def conclude(self) -> None:
        assert self.end_ns is not None
        self._end(*self._outcome(self.end_ns), self.end_ns)

    def _outcome(self, end_ns: int) -> tuple[Status, str | None]:
        stream, reading = self.stream, self.stream.reading
        if self.http_status != 200:
            rejected = self.http_status in (429, 503)
            if 300 <= (self.http_status or 0) < 400 and self.location:
                where = public_name(self.location.decode("latin-1"))
                return Status.HTTP_ERROR, f"redirects to {where}, which is not followed"
            text = openai_response.error_text(b"".join(stream.pieces))
            return (Status.REJECTED if rejected else Status.HTTP_ERROR), text
        if self.content_encoding not in (b"", b"identity"):
            kind = self.content_encoding.decode("latin-1")
            return Status.BAD_RESPONSE, f"the answer is compressed ({kind}), which was not asked for"
        if self.content_type.startswith(b"text/html"):
            return Status.BAD_RESPONSE, f"a web page: {openai_response.excerpt(b''.join(stream.pieces))}"
        # What a body is, it says itself: some servers call a stream of events application/json.
        is_json = self.content_type.startswith(b"application/json") and not stream.start
        if is_json and self.streamed:
            stream.pieces[:] = [stream.pending, *stream.pieces]
            stream.pending = b""
            is_json = b"".join(stream.pieces).lstrip()[:1] in (b"{", b"[")
        try:
            if self.streamed and not is_json:
                stream.digest(whole=True)
            else:
                openai_response.read_whole(reading, b"".join(stream.pieces))
                stream.last_ns = stream.stamps[-1] if stream.stamps else end_ns
        except BadPayload as error:
            return Status.BAD_RESPONSE, str(error)
        if reading.error is not None:
            return self._complained(), reading.error
        if self.streamed and is_json:
            return Status.BAD_RESPONSE, "asked for a stream, got application/json"
        if not reading.payloads and stream.pending.strip():
            return Status.BAD_RESPONSE, f"not a stream of events: {openai_response.excerpt(stream.pending)}"
        if stream.pending.strip():
            return Status.TRUNCATED, "the stream ended inside an event"
        if not reading.payloads and not reading.done:
            if reading.passed_over is not None:
                return Status.BAD_RESPONSE, f"neither choices nor usage nor error: {reading.passed_over}"
            return Status.BAD_RESPONSE, "an answer without a single event"
        if not (reading.done or reading.finish_reason):
            return Status.TRUNCATED, "the stream ended without [DONE] or a finish reason"
        if self.streamed and not reading.contents and reading.output_tokens != 0:
            return Status.BAD_RESPONSE, _without_token(reading)
        return Status.OK, None

    def _complained(self) -> Status:
        return Status.REJECTED if self.stream.reading.turned_away else Status.SERVER_ERROR

    def _end(self, status: Status, error: str | None, end_ns: int) -> None:
        self.status = status
        # It will be shown on terminals: nothing in it may move the cursor.
        self.error = "".join(c if c.isprintable() else " " for c in error[:_ERROR_CHARS]) if error else None
        self.end_ns = end_ns
        self.payload = b""
        self.stream.pieces.clear()

    def record(self, injector: int, endpoints: list[str], t0_ns: int) -> tuple[Any, ...]:
        """The row of SPOOL_SCHEMA, in its order, with times relative to ``t0_ns``."""
        stream, reading = self.stream, self.stream.reading
        headers_ns = self.headers_ns
        if headers_ns is not None and stream.first_ns is not None:  # of one read with the head, it is an estimate
            headers_ns = min(headers_ns, stream.first_ns)
        stamps = (
            self.scheduled_ns, self.dispatched_ns, self.handed_over_ns, self.connect_start_ns, self.connected_ns,
            self.sent_ns, headers_ns, stream.first_ns, stream.first_answer_ns, stream.last_ns, self.end_ns,
        )  # fmt: skip
        single = reading.output_tokens is not None and reading.output_tokens == reading.contents
        first_chunk = reading.first_chunk_tokens
        multi = reading.multi_token_chunks
        return (
            self.index,
            endpoints[self.endpoint],
            injector,
            str(self.status),
            self.http_status,
            self.error,
            self.request_id,
            *[None if stamp is None else stamp - t0_ns for stamp in stamps],
            reading.prompt_tokens,
            reading.cached_tokens,
            reading.output_tokens,
            reading.contents,
            1 if first_chunk is None and single and reading.contents else first_chunk,
            0 if multi is None and single else multi,
            reading.finish_reason,
            stream.lag_max_ns if stream.first_ns is not None else None,
            stream.client_coalesced,
            stream.server_coalesced,
            stream.first_token_coalesced,
            self.reused,
            self.bytes_received,
            reading.server_queue_ms,
            reading.server_ttft_ms,
            self.hung_up and str(self.hung_up),
            bytes(stream.arrivals_us) if stream.first_ns is not None else None,
            bytes(stream.censored) if stream.first_ns is not None else None,
        )


def _without_token(reading: Reading) -> str:
    if reading.output_tokens is None or reading.output_tokens == NO_COUNT:
        return "an answer without a token"
    return f"an answer without a token, although its usage says that {reading.output_tokens:,} came"
