"""Streams of everyday servers: text in unusual places, heartbeats, errors of other shapes, counts that are none."""

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kit import scripted
from tests.kit.wire import new_exchange, record

from tailgate.loadgen.injector.api.openai_response import Reading, read_payloads
from tailgate.loadgen.injector.exchange import Exchange
from tailgate.loadgen.injector.recording.live_stats import LiveStats
from tailgate.loadgen.records import NO_COUNT, Status

WORD, LAST, COUNT = scripted.delta("a"), scripted.delta("b", finish="stop"), scripted.usage(5, 2)
WHOLE = [scripted.delta("", role="assistant"), WORD, LAST, COUNT, b"[DONE]"]


def answered(body: bytes, *, kind: bytes = b"text/event-stream", vllm: bool = False) -> Exchange:
    """The exchange of a chat whose answer came in one read."""
    exchange = new_exchange(chat=True, vllm=vllm)
    exchange.http_status, exchange.content_type, exchange.sent_ns, exchange.end_ns = 200, kind, 0, 100
    exchange.stream.pieces.append(body)
    exchange.stream.size = len(body)
    exchange.stream.received((50, 60, 0, True))
    exchange.conclude()
    return exchange


def stream(payloads: Sequence[bytes]) -> bytes:
    return b"".join(map(scripted.event, payloads))


def with_delta(**delta: Any) -> bytes:
    return orjson.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


REASONING = {
    "reasoning_details": [
        [{"type": "reasoning.text", "text": "r"}],
        [{"type": "reasoning.summary", "summary": "r"}],
        [{"type": "reasoning.encrypted", "data": "cjE="}],
    ],
    "thinking": ["r"],
    "thinking_blocks": [[{"type": "thinking", "thinking": "r"}]],
    "reasoning_text": ["r"],
    "content": [[{"type": "thinking", "thinking": [{"type": "text", "text": "r"}]}]],
}
ANSWERS = {
    "refusal": ["I can't"],
    "audio": [{"transcript": "a"}, {"data": "UklGRg=="}],
    "function_call": [{"name": "f"}, {"arguments": "{"}],
    "tool_calls": [[{"index": 0, "function": {"arguments": '{"a'}}]],
    "content": [[{"type": "text", "text": "a"}]],
}
EMPTY = {
    "reasoning_details": [[], [{"type": "reasoning.text", "text": ""}], [{"type": "reasoning.text", "id": "x"}], None],
    "refusal": ["", None],
    "audio": [{}, {"id": "audio_1", "expires_at": 17}],
    "content": [[], [{"type": "text", "text": ""}]],
    "annotations": [[{"type": "url_citation"}]],
}


def pairs(fields: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(name, value) for name, values in fields.items() for value in values]


@pytest.mark.parametrize(("name", "value"), pairs(REASONING))
def test_reasoning_counts_wherever_it_is_put_and_is_not_the_answer(name: str, value: Any) -> None:
    reading = Reading(chat=True, vllm=False)
    deltas = [with_delta(role="assistant", content=""), with_delta(**{"content": "", name: value}), WORD]
    assert read_payloads(reading, deltas) == [False, True, True]
    assert reading.first_answer == 1


@pytest.mark.parametrize(("name", "value"), pairs(ANSWERS))
def test_parts_of_an_answer_count_wherever_they_are_put(name: str, value: Any) -> None:
    reading = Reading(chat=True, vllm=False)
    deltas = [with_delta(role="assistant", content=""), with_delta(**{"content": None, name: value}), WORD]
    assert read_payloads(reading, deltas) == [False, True, True]
    assert reading.first_answer == 0


@pytest.mark.parametrize(("name", "value"), pairs(EMPTY))
def test_fields_without_text_are_no_arrival(name: str, value: Any) -> None:
    assert read_payloads(Reading(chat=True, vllm=False), [with_delta(**{name: value}), WORD]) == [False, True]


@pytest.mark.parametrize("vllm", [True, False])
@pytest.mark.parametrize(
    "heartbeat",
    [
        b"data:\n\n", b"data: \n\n", b'data: {"type":"ping"}\n\n', b"event: ping\ndata: {}\n\n", b": ping\n\n",
        b'data: {"id":"x","object":"chat.completion.chunk","choices":[]}\n\n', b"event: heartbeat\r\ndata:\r\n\r\n",
    ],
)  # fmt: skip
def test_heartbeats_are_passed_over_wherever_they_come(heartbeat: bytes, vllm: bool) -> None:
    events = [scripted.event(payload) for payload in WHOLE]
    for place in range(len(events)):
        exchange = answered(b"".join([*events[:place], heartbeat, *events[place:]]), vllm=vllm)
        row = record(exchange)
        assert (exchange.status, row["chunks"], row["output_tokens"]) == (Status.OK, 2, 2), place


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (b'event: error\ndata: {"message":"out of memory","code":500}\n\n', "out of memory"),
        (b'event: error\ndata: {"error":{"message":"out of memory"}}\n\n', "out of memory"),
        (b"event: error\ndata: out of memory\n\n", "out of memory"),
        (b"event:error\r\ndata: out of memory\r\n\r\n", "out of memory"),
        (b'data: {"message":"out of memory","code":500}\n\n', "out of memory"),
        (b'data: {"object":"error","message":"out of memory","type":"Internal"}\n\n', "out of memory"),
    ],
)
def test_an_error_is_one_in_every_shape(event: bytes, text: str) -> None:
    exchange = answered(stream(WHOLE[:2]) + event + b"data: [DONE]\n\n")
    assert (exchange.status, exchange.error) == (Status.SERVER_ERROR, text)


def test_an_error_event_may_say_that_there_is_no_room() -> None:
    exchange = answered(b'event: error\ndata: {"message":"busy","code":503}\n\n')
    assert (exchange.status, exchange.error) == (Status.REJECTED, "busy")


@pytest.mark.parametrize("kind", [b"application/json", b"application/json; charset=utf-8", b"text/plain", b""])
@pytest.mark.parametrize("start", [b"", b"\n", b": hello\n\n", b"\xef\xbb\xbf"])
def test_events_are_events_whatever_their_type_is_called(kind: bytes, start: bytes) -> None:
    exchange = answered(start + stream(WHOLE), kind=kind)
    assert (exchange.status, record(exchange)["chunks"]) == (Status.OK, 2)


def test_json_is_no_stream_and_its_error_is_told_however_long_it_is() -> None:
    whole = b'{"choices":[{"message":{"content":"a"}}]}'
    assert answered(whole, kind=b"application/json").error == "asked for a stream, got application/json"
    exchange = new_exchange(chat=True)
    exchange.http_status, exchange.content_type, exchange.end_ns = 200, b"application/json", 100
    body = orjson.dumps({"error": {"message": "no", "trace": "x" * 100}})
    exchange.stream.pieces.append(body[:60])
    exchange.stream.size = 60
    exchange.stream.received((50, 50, 0, True))
    exchange.stream.digest()  # as the connection does with much of an answer
    exchange.stream.pieces.append(body[60:])
    exchange.conclude()
    assert (exchange.status, exchange.error) == (Status.SERVER_ERROR, "no")


def test_a_last_chunk_without_a_delta_brings_its_finish_reason() -> None:
    for last in ({"finish_reason": "stop"}, {"finish_reason": "stop", "delta": None}):
        exchange = answered(stream([*WHOLE[:2], orjson.dumps({"choices": [{"index": 0, **last}]})]))
        assert (exchange.status, record(exchange)["finish_reason"]) == (Status.OK, "stop")


def test_usage_without_content_is_said() -> None:
    exchange = answered(stream([with_delta(role="assistant"), scripted.usage(5, 40), b"[DONE]"]))
    assert exchange.status is Status.BAD_RESPONSE
    assert "its usage says that 40 came" in str(exchange.error)


@pytest.mark.parametrize("claim", [-1, -(2**63), 2**31, 2**63 - 1, 2**64, 8.5, 1e300, "8", True, [], {}])
def test_what_is_no_count_is_recorded_as_none(claim: Any) -> None:
    odd = (
        orjson.dumps({"choices": [], "usage": {"prompt_tokens": claim, "completion_tokens": claim}}, option=0)
        if claim != 2**64
        else b'{"choices":[],"usage":{"prompt_tokens":18446744073709551616,"completion_tokens":1e20}}'
    )
    row = record(exchange := answered(stream([*WHOLE[:3], odd, b"[DONE]"])))
    assert exchange.status is Status.OK
    assert (row["prompt_tokens"], row["output_tokens"], row["chunks"]) == (None, NO_COUNT, 2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = ("usage", "metrics", "error", "choices", "message", "code", "object")
INNER = (
    "prompt_tokens", "completion_tokens", "prompt_tokens_details", "cached_tokens", "queue_time_ms", "delta", "content",
    "finish_reason", "token_ids", "reasoning_details", "refusal", "audio", "message", "error", "code", "index",
)  # fmt: skip
OBJECTS = st.dictionaries(st.sampled_from(INNER), JSON, max_size=4)
CHOICES = st.lists(st.fixed_dictionaries({"delta": OBJECTS}) | OBJECTS, max_size=2)
EVENTS = st.dictionaries(st.sampled_from(NAMES), JSON | OBJECTS | CHOICES, max_size=4)


@given(st.lists(EVENTS, max_size=4), st.booleans(), st.booleans())
def test_no_answer_ends_an_injector_whatever_it_holds(
    events: list[dict[str, Any]], as_error: bool, as_json: bool
) -> None:
    odd = [orjson.dumps(event) for event in events]
    body = stream([*WHOLE[:2], *odd, *WHOLE[2:]]) if not as_json else b"".join(odd)
    if as_error:
        body = body.replace(b"data:", b"event: error\ndata:", 1)
    exchange = answered(body, kind=b"application/json" if as_json else b"text/event-stream")
    record(exchange)
    live = LiveStats()
    for _ in range(3):
        live.add(exchange)
    orjson.dumps(live.tick())


def test_an_error_that_is_nested_too_deep_to_be_written_is_still_an_error() -> None:
    deep = b'{"a":' * 500 + b"1" + b"}" * 500
    exchange = answered(stream([b'{"error":' + deep + b"}"]))
    assert exchange.status is Status.SERVER_ERROR
    assert "nesting" in str(exchange.error)
