"""Laws of a connection: any split of an answer gives the same record, any bytes give a record.

Real sockets and the real loop, in this thread; each piece is read before the next one is sent.
"""

import gc
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.kit import scripted
from tests.kit.scripted import CHUNKED, END, chunk, head
from tests.kit.wire import Wire, new_exchange, record

from tailgate.loadgen.injector.api.openai_response import Reading
from tailgate.loadgen.injector.exchange import Exchange
from tailgate.loadgen.injector.http.connection import Connection
from tailgate.loadgen.injector.http.token_stream import TokenStream
from tailgate.loadgen.records import CENSORED, Status

# What depends on how the bytes came, not on what they were.
TIMING = {
    "connect_start_ns", "connected_ns", "sent_ns", "headers_ns", "first_token_ns", "first_answer_ns", "last_token_ns",
    "end_ns", "receive_lag_max_ns", "client_coalesced", "server_coalesced", "first_token_coalesced", "arrivals_us",
    "censored",
}  # fmt: skip

BODY = scripted.body(5).replace(b" word", "mañana 🌍".encode())
EVENTS = [scripted.event(payload) for payload in scripted.payloads(5)]
CRLF_BODY = BODY.replace(b"\n", b"\r\n").replace(b"data: ", b"data:")
WHOLE = '{"choices":[{"text":"ñ","finish_reason":"length"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}'.encode()

ANSWERS: dict[str, tuple[bytes, Status]] = {
    "chunked": (CHUNKED + b"".join(map(chunk, EVENTS)) + END, Status.OK),
    "chunks that end anywhere": (
        CHUNKED + b"".join(chunk(BODY[a : a + 37]) for a in range(0, len(BODY), 37)) + END, Status.OK,
    ),
    "chunk extensions and trailers": (
        CHUNKED + b'%x;name="v"\r\n%b\r\n' % (len(BODY), BODY) + b"0\r\nX-Trailer: 1\r\n\r\n", Status.OK,
    ),
    "content-length": (head(200, f"Content-Length: {len(CRLF_BODY)}") + CRLF_BODY, Status.OK),
    "until close": (head(200) + BODY, Status.OK),
    "HTTP/1.0": (head(200, version="1.0") + BODY, Status.OK),
    "after 100 and 103": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + CHUNKED + chunk(BODY) + END,
        Status.OK,
    ),
    "headers in odd cases": (
        b"HTTP/1.1 200 OK\r\ncOnTeNt-TyPe: TEXT/Event-Stream\r\nTRANSFER-ENCODING:chunked\r\n\r\n" + chunk(BODY) + END,
        Status.OK,
    ),
    "an error": (head(500, "Content-Length: 13", content_type="text/plain") + b"engine failed", Status.HTTP_ERROR),
    "an error until close": (head(429, content_type="text/plain") + b"slow down", Status.REJECTED),
    "a bad event": (
        CHUNKED + chunk(EVENTS[0]) + chunk(b"data: {nope\n\n") + chunk(EVENTS[1]) + END, Status.BAD_RESPONSE,
    ),
    "an error event": (CHUNKED + chunk(EVENTS[0] + b'data: {"error":"x"}\n\n') + END, Status.SERVER_ERROR),
    "a missing end": (CHUNKED + b"".join(map(chunk, EVENTS[:3])) + END, Status.TRUNCATED),
}  # fmt: skip


def steady(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in TIMING}


@given(st.data())
@settings(max_examples=150)
def test_any_split_of_an_answer_gives_the_same_record(wire: Wire, data: st.DataObject) -> None:
    answer, status = ANSWERS[data.draw(st.sampled_from(list(ANSWERS)))]
    at = data.draw(st.sets(st.integers(1, len(answer) - 1), max_size=25))
    edges = [0, *sorted(at), len(answer)]
    split = record(wire.answer([answer[a:b] for a, b in pairwise(edges)]))
    whole = record(wire.answer([answer]))
    assert whole["status"] == status
    assert steady(split) == steady(whole)
    assert len(split["arrivals_us"] or b"") == 4 * split["chunks"]  # type: ignore[arg-type, operator]


def test_an_answer_may_come_byte_by_byte(wire: Wire) -> None:
    for name, (answer, status) in ANSWERS.items():
        pieces = [answer[k : k + 1] for k in range(len(answer))]
        assert record(wire.answer(pieces))["status"] == status, name


@given(st.data())
def test_a_whole_answer_is_read_the_same_in_any_split(wire: Wire, data: st.DataObject) -> None:
    answer = head(200, f"Content-Length: {len(WHOLE)}", content_type="application/json") + WHOLE
    at = sorted(data.draw(st.sets(st.integers(1, len(answer) - 1), max_size=10)))
    pieces = [answer[a:b] for a, b in pairwise([0, *at, len(answer)])]
    row = record(wire.answer(pieces, new_exchange(streamed=False)))
    assert (row["status"], row["output_tokens"], row["chunks"]) == (Status.OK, 1, 0)


@st.composite
def garbled(draw: st.DrawFn) -> list[bytes]:
    """A valid answer with bytes changed, lost, doubled or put in; or plain garbage."""
    data = bytearray(draw(st.sampled_from([answer for answer, _ in ANSWERS.values()])))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.sampled_from(["change", "lose", "put in", "double"])):
            case "change":
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "lose":
                del data[at : at + draw(st.integers(1, 40))]
            case "put in":
                data[at:at] = draw(st.binary(max_size=8) | st.sampled_from([b"\r\n", b"\n\n", b"0\r\n\r\n", b"data: "]))
            case "double":
                data[at:at] = data[at : at + draw(st.integers(1, 200))]
    split = draw(st.integers(1, max(len(data), 1)))
    return [bytes(data[:split]), bytes(data[split:])]


@given(st.one_of(garbled(), st.lists(st.binary(max_size=60), max_size=4)), st.sampled_from(["close", "stay"]))
@settings(max_examples=400)
@example([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n"], "close")
@example([b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"], "close")
@example([b"HTTP/1.1 999 ?\r\n\r\n"], "stay")
@example([b"\r\n\r\n\r\n"], "close")
@example([b"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"], "stay")
def test_any_bytes_at_all_give_a_record(wire: Wire, pieces: list[bytes], then: str) -> None:
    row = record(wire.answer([piece for piece in pieces if piece], then=then))
    assert row["status"] in set(Status)
    assert len(row["arrivals_us"] or b"") == 4 * row["chunks"]  # type: ignore[arg-type, operator]


def test_a_head_without_an_end_is_given_up(wire: Wire) -> None:
    pieces = [b"HTTP/1.1 200 OK\r\nX-Endless: ", *[b"x" * 16_000] * 40]
    row = record(wire.answer(pieces, then="stay"))
    assert row["status"] == Status.BAD_RESPONSE
    assert "no end of the head" in str(row["error"])


def test_an_endless_error_body_keeps_its_beginning(wire: Wire) -> None:
    pieces = [head(500, content_type="text/plain"), b"the cause " + b"x" * 15_000, *[b"y" * 16_000] * 30]
    exchange = wire.answer(pieces)
    assert (exchange.status, exchange.http_status) == (Status.HTTP_ERROR, 500)
    assert str(exchange.error).startswith("the cause ")


def test_many_events_in_one_read_came_within_one_interval_and_are_counted_as_sent_together(wire: Wire) -> None:
    row = record(wire.answer([CHUNKED + b"".join(map(chunk, EVENTS)) + END]))
    assert row["chunks"] == 5
    assert row["server_coalesced"] + row["client_coalesced"] == 5  # type: ignore[operator]
    interval = np.frombuffer(row["censored"], CENSORED)  # type: ignore[call-overload]
    assert interval[["first", "count"]].tolist() == [(0, 5)] and not interval["last_exact"].any()
    assert row["sent_ns"] <= row["first_token_ns"] + 1000 * int(interval["after_us"][0]) + 1000  # type: ignore[operator]
    assert row["headers_ns"] <= row["first_token_ns"] <= row["last_token_ns"] <= row["end_ns"]  # type: ignore[operator]


def test_each_event_in_a_read_of_its_own_is_not_coalesced(wire: Wire) -> None:
    row = record(wire.answer([CHUNKED, *map(chunk, EVENTS), END]))
    assert (row["chunks"], row["server_coalesced"], row["client_coalesced"]) == (5, 0, 0)


def test_nothing_is_left_for_the_garbage_collector(wire: Wire) -> None:
    """It is off while the injector measures: a cycle would stay until the end."""
    gc.collect()
    gc.disable()
    try:
        for answer, _ in ANSWERS.values():
            wire.answer([answer])
            wire.answer([answer[:-9]])
            wire.answer([answer[:-9]], then="stay")
        wire.answer([b"no HTTP at all\r\n\r\n"])
        ours = (Connection, Exchange, TokenStream, Reading)
        left = [thing for thing in gc.get_objects() if isinstance(thing, ours)]
    finally:
        gc.enable()
    assert left == []
