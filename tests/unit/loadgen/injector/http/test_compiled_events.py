"""The compiled cut of a body into events: what Python says of the same body, or nothing."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.kit.scripted import event
from tests.unit.loadgen.injector.http.test_fuzz_stream import chats, completions, event_streams

from tailgate.loadgen.injector.api import openai_response
from tailgate.loadgen.injector.api.openai_response import Reading
from tailgate.loadgen.injector.http import AVAILABLE, sse
from tailgate.loadgen.injector.http.sse import Events, usual_events

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="the extension was not built")

MARKS = (openai_response._CHOICE, openai_response._UNFINISHED, openai_response._TOKEN_IDS)
PIECES = st.sampled_from(
    [b"data: ", b"data:", b"\n\n", b"\n", b"\r\n", b"\r", b"x", b"", b": ping", *MARKS, b"data: x\n\n"]
)


def same(body: bytes) -> Events | None:
    """What the extension says of a body, which must be what Python says."""
    found = usual_events(body, *MARKS)
    if found is not None:
        payloads, ends, used = sse.split(body)
        assert list(found) == payloads
        assert (found.ends.tolist(), found.ends[-1]) == (ends.tolist(), used)
        assert list(found.plain) == openai_response._plain(Reading(chat=False, vllm=True), payloads)
    return found


@given(st.lists(PIECES, max_size=40))
@settings(max_examples=500)
@example([b"data: a\n\n", b"\n"])
@example([b"data: a\n\n", b"data: b\n"])
@example([b"data: a\n\n", b"data: b\nx\n\n"])
@example([b"data: a\n\n", b"dat"])
@example([b"data: a\n\n", b"id: 7\n\n"])
@example([b"data: \n\n"])
@example([b"data: a\n\n\n\n"])
def test_of_any_body_it_says_what_python_says_or_nothing(pieces: list[bytes]) -> None:
    same(b"".join(pieces))


@given(completions() | chats(), st.sampled_from([b"", b"d", b"data: ", b'data: {"choi', b"data: x\n", b": ping"]))
def test_what_servers_send_it_knows(payloads: list[bytes], rest: bytes) -> None:
    found = same(b"".join(map(event, payloads)) + rest)
    assert found is not None and list(found) == payloads


@given(st.data(), st.booleans(), st.booleans(), st.booleans())
def test_a_reading_is_the_same_with_it_and_without(data: st.DataObject, chat: bool, vllm: bool, whole: bool) -> None:
    body = data.draw(event_streams(data.draw(chats() if chat else completions())))
    body = body[: data.draw(st.integers(0, len(body)))]
    told = []
    for available in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sse, "AVAILABLE", available)
            reading = Reading(chat=chat, vllm=vllm)
            kinds, ends, used = openai_response.read_events(reading, body, whole=whole)
            told.append((kinds, ends.tolist(), used, reading))
    assert told[0] == told[1]
