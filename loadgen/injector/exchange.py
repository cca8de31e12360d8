"""One request and its answer, from dispatch to record: the state that lives while it is in flight.

Absolute stamps are CLOCK_REALTIME nanoseconds. `conclude` decides the status of an answer that arrived; the
connection decides it where none did.
"""

import contextlib
from typing import Any

from tailgate.loadgen.injector.api import openai_response
from tailgate.loadgen.injector.api.openai_response import BadPayload, Reading
from tailgate.loadgen.injector.http.token_stream import TokenStream
from tailgate.loadgen.records import HungUp, Status

_ERROR_CHARS = 500


class Exchange:
    """A prepared request, then what happened to it."""

    __slots__ = (
        "bytes_received",
        "connect_start_ns",
        "connected_ns",
        "content_encoding",
        "content_type",
        "dispatched_ns",
        "end_ns",
        "endpoint",
        "error",
        "handed_over_ns",
        "hang_up_ns",
        "head",
        "headers_ns",
        "http_status",
        "hung_up",
        "index",
        "patience_ns",
        "payload",
        "request_id",
        "reused",
        "scheduled_ns",
        "sent_ns",
        "status",
        "stream",
        "streamed",
        "timeout_ns",
    )

    def __init__(self, index: int, request_id: str, payload: bytes, reading: Reading, *, streamed: bool) -> None:
        self.index = index
        self.request_id = request_id
        self.payload = payload  # head and body, ready to send
        self.streamed = streamed
        self.stream = TokenStream(reading)
        self.endpoint = 0
        self.scheduled_ns: int | None = None
        self.handed_over_ns: int | None = None
        self.dispatched_ns: int | None = None
        self.head: object = None  # what its head was made from
        self.patience_ns: int | None = None  # how long the user waits, from when the request is due
        self.timeout_ns: int | None = None  # give up at this time
        self.hang_up_ns: int | None = None  # the user's patience ends at this time
        self.connect_start_ns: int | None = None
        self.connected_ns: int | None = None
        self.sent_ns: int | None = None
        self.headers_ns: int | None = None
        self.end_ns: int | None = None
        self.reused: bool | None = None
        self.http_status: int | None = None
        self.content_type = b""
        self.content_encoding = b""
        self.bytes_received = 0
        self.status: Status | None = None
        self.error: str | None = None
        self.hung_up: HungUp | None = None  # why, if we did

    def fail(self, status: Status, error: str | None, end_ns: int) -> None:
        """End without a whole answer. Arrivals up to here are kept."""
        self._digest_what_came()
        complaint = self.stream.reading.error
        if complaint is not None and status in (Status.RESET, Status.TRUNCATED):
            status, error = self._complained(), complaint  # it said why before it hung up
        self._end(status, error, end_ns)

    def conclude(self) -> None:
        """A whole HTTP answer came and ended at `end_ns`: find out what it was."""
        end_ns = self.end_ns
        assert end_ns is not None
        stream, reading = self.stream, self.stream.reading
        if self.http_status != 200:
            rejected = self.http_status in (429, 503)
            body = b"".join(stream.pieces)
            self._end(Status.REJECTED if rejected else Status.HTTP_ERROR, openai_response.error_text(body), end_ns)
            return
        if self.content_encoding not in (b"", b"identity"):
            kind = self.content_encoding.decode("latin-1")
            self._end(Status.BAD_RESPONSE, f"the answer is compressed ({kind}), which was not asked for", end_ns)
            return
        if self.content_type.startswith(b"text/html"):
            self._end(Status.BAD_RESPONSE, f"a web page: {openai_response.excerpt(b''.join(stream.pieces))}", end_ns)
            return
        try:
            if self.streamed and not self.content_type.startswith(b"application/json"):
                stream.digest(whole=True)
            else:
                openai_response.read_whole(reading, b"".join(stream.pieces))
                stream.last_ns = stream.stamps[-1] if stream.stamps else end_ns
        except BadPayload as error:
            self._end(Status.BAD_RESPONSE, str(error), end_ns)
            return
        if reading.error is not None:
            self._end(self._complained(), reading.error, end_ns)
        elif self.streamed and self.content_type.startswith(b"application/json"):
            self._end(Status.BAD_RESPONSE, "asked for a stream, got application/json", end_ns)
        elif not reading.payloads and stream.pending.strip():
            self._end(Status.BAD_RESPONSE, f"not a stream of events: {openai_response.excerpt(stream.pending)}", end_ns)
        elif stream.pending.strip():
            self._end(Status.TRUNCATED, "the stream ended inside an event", end_ns)
        elif not reading.payloads and not reading.done:
            self._end(Status.BAD_RESPONSE, "an answer without a single event", end_ns)
        elif not (reading.done or reading.finish_reason):
            self._end(Status.TRUNCATED, "the stream ended without [DONE] or a finish reason", end_ns)
        elif self.streamed and not reading.contents and reading.output_tokens != 0:
            self._end(Status.BAD_RESPONSE, "an answer without a token", end_ns)
        else:
            self._end(Status.OK, None, end_ns)

    def _complained(self) -> Status:
        return Status.REJECTED if self.stream.reading.turned_away else Status.SERVER_ERROR

    def _digest_what_came(self) -> None:
        if self.http_status == 200 and self.streamed:
            with contextlib.suppress(BadPayload):  # why the answer ended says more
                self.stream.digest()

    def _end(self, status: Status, error: str | None, end_ns: int) -> None:
        self.status = status
        # It will be shown on terminals: nothing in it may move the cursor.
        self.error = "".join(c if c.isprintable() else " " for c in error[:_ERROR_CHARS]) if error else None
        self.end_ns = end_ns
        self.payload = b""
        self.stream.pieces.clear()

    def record(self, injector: int, endpoints: list[str], t0_ns: int) -> tuple[Any, ...]:
        """The row of SPOOL_SCHEMA, in its order; times relative to ``t0_ns``."""
        stream, reading = self.stream, self.stream.reading

        def relative(stamp: int | None) -> int | None:
            return None if stamp is None else stamp - t0_ns

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
            relative(self.scheduled_ns),
            relative(self.dispatched_ns),
            relative(self.handed_over_ns),
            relative(self.connect_start_ns),
            relative(self.connected_ns),
            relative(self.sent_ns),
            relative(self.headers_ns),
            relative(stream.first_ns),
            relative(stream.first_answer_ns),
            relative(stream.last_ns),
            relative(self.end_ns),
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
        )
