"""Laws of the stream parser, from SSE to record, over generated streams, splits and plain garbage."""

from array import array
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kit import scripted
from tests.kit.wire import new_exchange, record

from tailgate.loadgen.injector.api.openai_response import BadPayload, Reading, read_payloads
from tailgate.loadgen.injector.http import sse
from tailgate.loadgen.injector.http.token_stream import TokenStream
from tailgate.loadgen.records import CENSORED, SPOOL_SCHEMA, Status

pytestmark = pytest.mark.filterwarnings("error")

# --- what servers send --------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters='"\\\r\n' + "".join(map(chr, range(32)))))
LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def completions(draw: st.DrawFn) -> list[bytes]:
    """Payloads of a whole answer to /v1/completions."""
    said = [scripted.token(text) for text in draw(st.lists(TEXT, max_size=12))]
    last = scripted.token(draw(TEXT), finish=draw(st.sampled_from(["stop", "length"])))
    counted = scripted.usage(draw(st.integers(0, 10**6)), len(said) + 1)
    return [*said, last, counted, b"[DONE]"]


@st.composite
def chats(draw: st.DrawFn) -> list[bytes]:
    """Payloads of a whole answer to /v1/chat/completions: role, reasoning, content, an empty last delta."""
    reasoning = [scripted.delta(None, reasoning_content=text) for text in draw(st.lists(TEXT.filter(bool), max_size=4))]
    said = [scripted.delta(text) for text in draw(st.lists(TEXT, max_size=8))]
    end = [scripted.delta("", finish="stop"), scripted.usage(5, len(said)), b"[DONE]"]
    return [scripted.delta("", role="assistant"), *reasoning, *said, *end]


@st.composite
def event_streams(draw: st.DrawFn, payloads: Sequence[bytes]) -> bytes:
    """The payloads as server-sent events, in one of the ways the grammar allows."""
    if draw(st.booleans()):
        return b"".join(map(scripted.event, payloads))
    end = draw(LINE_ENDS)
    pieces = []
    for payload in payloads:
        for noise in draw(st.lists(st.sampled_from([b": keep-alive", b"event: token", b"id: 7", b"retry: 100", b""]))):
            pieces.append(noise + end)
        pieces.append(b"data:" + draw(st.sampled_from([b"", b" "])) + payload + end + end)
    return b"".join(pieces)


@st.composite
def cut(draw: st.DrawFn, body: bytes) -> list[bytes]:
    """The body in reads of any sizes, none of them empty."""
    at = draw(st.lists(st.integers(1, max(len(body) - 1, 1)), max_size=40, unique=True))
    edges = [0, *sorted(a for a in at if a < len(body)), len(body)]
    return [body[a:b] for a, b in pairwise(edges) if a < b]


def read_all(pieces: Sequence[bytes], reading: Reading, digest_after: set[int] = frozenset()) -> TokenStream:  # type: ignore[assignment]
    """A stream that got these reads, the k-th at stamp 1,000 k us, digested early after some of them."""
    stream = TokenStream(reading)
    for k, piece in enumerate(pieces):
        stream.pieces.append(piece)
        stream.size += len(piece)
        stream.received((1_000_000 * k, 1_000_000 * k + 10, 1_000_000 * k - 200_000, True))
        if k in digest_after:
            stream.digest()
    stream.digest(whole=True)
    return stream


def told(reading: Reading) -> dict[str, Any]:
    """What a reading has found out."""
    return {name: getattr(reading, name) for name in Reading.__slots__ if name != "text"}


def by_the_grammar(body: bytes) -> list[tuple[bytes, int]]:
    """Payloads and where they end, line by line, as the WHATWG's text says it."""
    found = []
    data: list[bytes] = []
    at = 0
    for line in body.splitlines(keepends=True):
        at += len(line)
        text = line.rstrip(b"\r\n")
        if text == line:  # no line end yet
            break
        name, colon, value = text.partition(b":")
        if not text:
            if data:
                found.append((b"\n".join(data), at))
            data = []
        elif name == b"data":
            data.append(value.removeprefix(b" ") if colon else b"")
    return found


# --- laws ---------------------------------------------------------------------------------------------


@given(st.data())
def test_split_agrees_with_the_grammar_on_streams(data: st.DataObject) -> None:
    body = data.draw(event_streams(data.draw(completions())))
    payloads, ends, _ = sse.split(body, whole=True)
    assert list(zip(payloads, ends.tolist(), strict=True)) == by_the_grammar(body)


@given(
    st.lists(
        st.sampled_from([b"data", b":", b" ", b"\n", b"\r", b"\r\n", b"x", b"data: ", b"\n\n", b"\xc3"]), max_size=60
    )
)
def test_split_agrees_with_the_grammar_on_anything_like_a_stream(parts: list[bytes]) -> None:
    body = b"".join(parts)
    payloads, ends, used = sse.split(body, whole=True)
    assert list(zip(payloads, ends.tolist(), strict=True)) == by_the_grammar(body)
    assert 0 <= used <= len(body)


@given(st.data())
def test_any_split_gives_the_same_reading_and_each_token_the_stamp_of_the_read_that_completed_it(
    data: st.DataObject,
) -> None:
    chat = data.draw(st.booleans())
    vllm = data.draw(st.booleans())
    body = data.draw(event_streams(data.draw(chats() if chat else completions())))
    pieces = data.draw(cut(body))
    early = data.draw(st.sets(st.integers(0, len(pieces) - 1)))
    whole = read_all([body], Reading(chat=chat, vllm=vllm))
    split = read_all(pieces, Reading(chat=chat, vllm=vllm), early)
    assert told(split.reading) == told(whole.reading)
    assert split.pending.strip() == whole.pending.strip() == b""

    # The truth: each content event's end, looked up in the ends of the reads.
    grammar = by_the_grammar(body)
    kinds = read_payloads(Reading(chat=chat, vllm=vllm), [payload for payload, _ in grammar])
    read_ends = list(accumulate(map(len, pieces)))
    due = [
        next(k for k, end in enumerate(read_ends) if end >= at)
        for (_, at), kind in zip(grammar, kinds, strict=True)
        if kind
    ]
    arrivals = array("I", bytes(split.arrivals_us))
    assert len(arrivals) == split.reading.contents == len(due)
    # Those of one read are spread evenly over the 200 us in which they came; the first read came after the sending.
    width_ns = [200_000 if k else 0 for k in range(len(pieces))]
    arrived = [
        1_000_000 * k - width_ns[k] + width_ns[k] * (due[: place + 1].count(k)) // due.count(k)
        for place, k in enumerate(due)
    ]
    if due:
        assert split.first_ns == arrived[0]
        assert split.last_ns == 1_000_000 * due[-1]
        assert list(arrivals) == [(ns - arrived[0]) // 1000 for ns in arrived]
    kept = np.frombuffer(split.censored, CENSORED)
    content_ends = [at for (_, at), kind in zip(grammar, kinds, strict=True) if kind]
    last_of = dict(zip(due, content_ends, strict=True))
    assert kept.tolist() == [
        (due.index(k), due.count(k), (1_000_000 * k - width_ns[k] - arrived[0]) // 1000, at == read_ends[k])
        for k, at in last_of.items()
        if due.count(k) > 1 or at != read_ends[k]
    ]


@given(st.data())
def test_the_fast_way_reads_what_the_slow_way_reads(data: st.DataObject) -> None:
    chat = data.draw(st.booleans())
    payloads = data.draw(chats() if chat else completions())
    fast, slow = (
        Reading(chat=chat, vllm=True),
        Reading(chat=chat, vllm=True, text=[]),
    )  # text wants every payload parsed
    assert read_payloads(fast, payloads) == read_payloads(slow, payloads)
    assert told(fast) == told(slow)


@given(st.data())
def test_what_a_token_says_cannot_be_taken_for_the_answer_s_frame(data: st.DataObject) -> None:
    evil = ['"finish_reason":null', '"choices":[{', '"token_ids":[', "[DONE]", "data: ", '{"error":{"message":"x"}}']
    text = data.draw(st.sampled_from(evil)) + data.draw(TEXT)
    chunk = orjson.dumps({"choices": [{"index": 0, "text": text, "finish_reason": None}], "usage": None})
    last = orjson.dumps({"choices": [{"index": 0, "text": text, "finish_reason": "stop"}]})
    reading = Reading(chat=False, vllm=True)
    assert read_payloads(reading, [chunk, chunk, last]) == [True, True, True]
    assert (reading.finish_reason, reading.error, reading.done) == ("stop", None, False)


@given(st.binary(max_size=300))
def test_any_bytes_split_or_not_are_read_without_an_exception(body: bytes) -> None:
    payloads, ends, used = sse.split(body)
    assert len(payloads) == len(ends) and used <= len(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def perhaps(*keys: str, **inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Anything, or an object with some of these keys."""
    return JSON | st.fixed_dictionaries({}, optional={**dict.fromkeys(keys, JSON), **inner})


# Objects that look like answers, with anything at all in each place.
CHOICE = perhaps(
    "text", "message", "finish_reason", "token_ids", delta=perhaps("content", "role", "tool_calls", "reasoning")
)
NEARLY = perhaps(
    "error",
    usage=perhaps("prompt_tokens", "completion_tokens", "prompt_tokens_details"),
    metrics=perhaps("queue_time_ms"),
    choices=JSON | st.lists(CHOICE, max_size=2),
)


def dumped(value: Any) -> bytes:
    import json

    return json.dumps(value).encode("utf-8", "surrogatepass")


PAYLOADS = st.one_of(st.binary(max_size=40), NEARLY.map(dumped), JSON.map(dumped), st.just(b"[DONE]"))


@given(st.data(), st.lists(PAYLOADS, max_size=6), st.sampled_from([200, 200, 200, 429, 500]), st.booleans())
@settings(max_examples=300)
def test_any_answer_gives_a_record_that_can_be_written(
    data: st.DataObject, payloads: list[bytes], status: int, streamed: bool
) -> None:
    exchange = new_exchange(chat=data.draw(st.booleans()), vllm=data.draw(st.booleans()), streamed=streamed)
    exchange.http_status = status
    exchange.content_type = data.draw(st.sampled_from([b"", b"text/event-stream", b"application/json", b"text/html"]))
    separator = data.draw(st.sampled_from([b"", b"\n\n"]))
    body = b"".join(b"data: " + payload + b"\n\n" for payload in payloads) if separator else b"".join(payloads)
    for piece in data.draw(cut(body)) if body else []:
        exchange.stream.pieces.append(piece)
        exchange.stream.size += len(piece)
        exchange.stream.received((exchange.stream.size, exchange.stream.size, 0, True))
    if data.draw(st.booleans()):
        exchange.end_ns = 10**6
        exchange.conclude()
    else:
        exchange.fail(Status.RESET, "reset", 10**6)
    row = record(exchange)
    assert row["status"] in set(Status)
    assert len(row["arrivals_us"] or b"") == 4 * row["chunks"]  # type: ignore[arg-type, operator]
    arrivals = row["arrivals_us"]
    row["arrivals_us"] = None if arrivals is None else list(array("I", arrivals))  # type: ignore[arg-type]
    if (kept := row["censored"]) is not None:
        row["censored"] = [
            dict(zip(CENSORED.names, interval, strict=True))  # type: ignore[arg-type]
            for interval in np.frombuffer(kept, CENSORED).tolist()  # type: ignore[call-overload]
        ]
    pa.Table.from_pylist([row], schema=SPOOL_SCHEMA)


def test_an_event_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    stream = TokenStream(Reading(chat=False, vllm=True))

    def fill() -> None:
        for _ in range(2_000):
            stream.pieces.append(b"x" * 16_384)
            stream.size += 16_384
            stream.received((0, 0, 0, True))
            if stream.size > stream.digest_at:
                stream.digest()

    with pytest.raises(BadPayload, match="without an end"):
        fill()


def test_long_events_are_not_copied_again_at_every_read() -> None:
    stream = TokenStream(Reading(chat=False, vllm=True))
    digests = 0
    for _ in range(600):  # 9.4 MiB
        stream.pieces.append(b"x" * 16_384)
        stream.size += 16_384
        stream.received((0, 0, 0, True))
        if stream.size > stream.digest_at:
            stream.digest()
            digests += 1
    assert digests <= 9  # each waits for twice as much as the one before
