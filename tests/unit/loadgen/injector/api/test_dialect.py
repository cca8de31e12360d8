"""What counts as a token's arrival, and what an answer tells of itself: the rules of docs/metrics.md."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from tests.kit import scripted

from tailgate.loadgen.injector.api.openai_response import BadPayload, Reading, error_text, read_payloads, read_whole


def completion(text: str | None, finish: str | None = None, **more: Any) -> bytes:
    return orjson.dumps({"choices": [{"index": 0, "text": text, "finish_reason": finish, **more}]})


def chat(finish: str | None = None, ids: list[int] | None = None, **delta: Any) -> bytes:
    choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": finish}
    return orjson.dumps({"choices": [choice if ids is None else {**choice, "token_ids": ids}]})


def kinds(payloads: list[bytes], *, is_chat: bool, vllm: bool = True) -> tuple[list[bool], Reading]:
    reading = Reading(chat=is_chat, vllm=vllm)
    return read_payloads(reading, payloads), reading


def test_in_completions_every_chunk_with_a_choice_is_an_arrival_even_without_text() -> None:
    found, reading = kinds([completion("a"), completion(""), completion("", "length")], is_chat=False)
    assert found == [True, True, True]
    assert (reading.contents, reading.finish_reason) == (3, "length")


def test_in_chat_the_role_brings_no_token_and_every_later_choice_does() -> None:
    payloads = [chat(role="assistant", content=""), chat(content="a"), chat(content=""), chat("stop", content="")]
    assert kinds(payloads, is_chat=True)[0] == [False, True, True, True]


def test_of_other_servers_only_what_is_not_empty_counts() -> None:
    payloads = [
        chat(role="assistant", content=""), chat(content="a"), chat(content=""), chat(reasoning_content="r"),
        chat(tool_calls=[{"index": 0}]), chat("stop"),
    ]  # fmt: skip
    assert kinds(payloads, is_chat=True, vllm=False)[0] == [False, True, False, True, True, False]
    assert kinds([completion(""), completion("a")], is_chat=False, vllm=False)[0] == [False, True]


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_is_content_but_not_the_answer(field: str) -> None:
    payloads = [chat(role="assistant", content=""), chat(**{field: "hm"}), chat(**{field: "so"}), chat(content="42")]
    found, reading = kinds(payloads, is_chat=True)
    assert found == [False, True, True, True]
    assert reading.first_answer == 2  # the third arrival


def test_without_reasoning_the_first_token_is_the_first_answer() -> None:
    assert kinds([chat(role="assistant", content=""), chat(content="42")], is_chat=True)[1].first_answer == 0


def test_the_usage_chunk_and_done_are_no_arrivals() -> None:
    found, reading = kinds([completion("a"), scripted.usage(7, 1), b"[DONE]"], is_chat=False)
    assert found == [True, False, False]
    assert (reading.prompt_tokens, reading.output_tokens, reading.done) == (7, 1, True)


def test_token_ids_tell_how_many_tokens_a_chunk_brought() -> None:
    payloads = [completion("ab", token_ids=[1, 2]), completion("c", token_ids=[3]), completion("de", token_ids=[4, 5])]
    reading = kinds(payloads, is_chat=False)[1]
    assert (reading.first_chunk_tokens, reading.multi_token_chunks) == (2, 2)
    reading = kinds([chat(role="assistant", content=""), chat(ids=[1], content="x")], is_chat=True)[1]
    assert (reading.first_chunk_tokens, reading.multi_token_chunks) == (1, 0)


def test_cached_tokens_and_the_server_s_own_times_are_taken() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}}
    metrics = {"queue_time_ms": 1.5, "time_to_first_token_ms": 20}
    last = orjson.dumps({"choices": [], "usage": usage, "metrics": metrics})
    reading = kinds([completion("a"), last], is_chat=False)[1]
    assert (reading.cached_tokens, reading.server_queue_ms, reading.server_ttft_ms) == (4, 1.5, 20.0)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ({"message": "out of memory", "code": 500}, "out of memory"),
        ("out of memory", "out of memory"),
        ({"detail": 3}, '{"detail":3}'),
        (["a", "b"], '["a","b"]'),
    ],
)
def test_errors_come_in_many_shapes(error: Any, said: str) -> None:
    payload = orjson.dumps({"error": error})
    assert kinds([payload], is_chat=False)[1].error == said
    assert error_text(payload) == said


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"object":"error","message":"too long","code":400}', "too long"),
        (b"<html>Bad Gateway</html>", "<html>Bad Gateway</html>"),
        (b"", ""),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"[1]", "[1]"),
    ],
)
def test_the_text_of_an_error_answer(body: bytes, said: str) -> None:
    assert error_text(body) == said


@pytest.mark.parametrize("payload", [b"{", b"[]", b"7", b"ping", b'{"choices":[7]}', b'{"choices":{"a":1}}'])
def test_what_is_not_of_this_api_is_bad_and_what_came_before_it_counts(payload: bytes) -> None:
    found, reading = kinds([completion("a"), payload, completion("b")], is_chat=False)
    assert found == [True]
    assert (reading.contents, reading.bad is None) == (1, False)


def test_a_chat_chunk_asked_for_as_completion_is_bad_only_where_it_differs() -> None:
    assert kinds([orjson.dumps({"choices": [{"index": 0, "text": "a"}]})], is_chat=True)[1].bad is not None


def test_a_whole_answer_is_read_in_both_apis() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    text = {"choices": [{"text": "a b", "finish_reason": "length"}], "usage": usage}
    message = {
        "choices": [{"message": {"role": "assistant", "content": "a b"}, "finish_reason": "stop"}],
        "usage": usage,
    }
    for is_chat, answer in ((False, text), (True, message)):
        reading = Reading(chat=is_chat, vllm=True, text=[])
        read_whole(reading, orjson.dumps(answer))
        assert (reading.text, reading.output_tokens, reading.done, reading.contents) == (["a b"], 2, True, 0)


@pytest.mark.parametrize("body", [b"", b"nope", b"[]", b"{}", b'{"choices":[]}', b'{"choices":[1]}'])
def test_a_whole_answer_of_another_api_is_refused(body: bytes) -> None:
    with pytest.raises(BadPayload):
        read_whole(Reading(chat=False, vllm=True), body)


def test_a_whole_answer_may_be_an_error() -> None:
    reading = Reading(chat=False, vllm=True)
    read_whole(reading, b'{"error":{"message":"no"}}')
    assert (reading.error, reading.done) == ("no", False)


def test_payloads_that_are_all_parsed_cost_no_more_than_their_number() -> None:
    """With token ids none of them takes the short way; looking for it must not look at all the others each time."""

    class Counted(list[bytes]):
        looks = 0

        def __iter__(self) -> Iterator[bytes]:
            for payload in super().__iter__():
                Counted.looks += 1
                yield payload

        def __getitem__(self, at: Any) -> Any:
            Counted.looks += len(range(*at.indices(len(self)))) if isinstance(at, slice) else 1
            return super().__getitem__(at)

    payloads = Counted([completion("a", token_ids=[1])] * 300)
    assert kinds(payloads, is_chat=False)[0] == [True] * 300
    assert Counted.looks <= 3 * 300
