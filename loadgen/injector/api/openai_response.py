"""What a payload of the OpenAI API says: does it bring generated tokens, does it end the answer, did it fail?

The rules are those of docs/metrics.md: in `/v1/completions` every chunk with a choice is a content arrival,
even with empty text; in chat the first delta `{role, content: ""}` is none. That is vLLM's way (`vllm=True`); of
other servers only non-empty text, reasoning, or tool calls count, wherever they are put (`generated_text`). The usage
chunk, `[DONE]` and heartbeats never do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from tailgate.loadgen.injector.api import generated_text
from tailgate.loadgen.injector.http import sse
from tailgate.loadgen.records import NO_COUNT

Payloads = Sequence[bytes] | sse.Events
DONE = b"[DONE]"
# vLLM's compact serialisation of a chunk with a choice. Inside a JSON string the quotes would be escaped, so the
# marker can't be part of generated text. A payload without it is parsed.
_CHOICE = b'"choices":[{'
_UNFINISHED = b'"finish_reason":null'
_TOKEN_IDS = b'"token_ids":['
_REASON_CHARS = 100
_NO_ROOM = ("429", "503")
# No answer has as many tokens; sums of such counts stay far inside 64 bits.
_MOST_TOKENS = (1 << 31) - 1


class BadPayload(ValueError):
    """A payload that is not JSON, or not of this API."""


@dataclass(slots=True)
class Reading:
    """What the payloads of one answer have said so far. One per request, updated in place."""

    chat: bool
    vllm: bool
    payloads: int = 0
    done: bool = False
    error: str | None = None
    turned_away: bool = False  # the error is that of a server without room for the request (429, 503), before a token
    passed_over: str | None = None  # the first event that is nothing of this API
    bad: str | None = None  # why a payload could not be read; nothing behind it was
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None  # NO_COUNT where usage names what is none
    server_queue_ms: float | None = None
    server_ttft_ms: float | None = None
    answered: bool = False  # content that is not reasoning has been seen
    first_answer: int | None = None  # its position among all content arrivals
    contents: int = 0
    first_chunk_tokens: int | None = None
    multi_token_chunks: int | None = None
    text: list[str] | None = field(default=None)  # kept only for those who ask for it


def read_events(reading: Reading, body: bytes, *, whole: bool = False) -> tuple[list[bool], sse.Ends, int]:
    """Take in the complete events of a body, in order (`whole`: nothing comes behind it).

    Returns what `read_payloads` says of them, and `sse.split`'s ends and number of bytes used.
    """
    events = sse.usual_events(body, _CHOICE, _UNFINISHED, _TOKEN_IDS) if _may_be_plain(reading) else None
    if events is not None:
        return read_payloads(reading, events, events.plain), events.ends, int(events.ends[-1])
    payloads, ends, used = sse.split(body, whole=whole)
    return read_payloads(reading, payloads), ends, used


def read_payloads(reading: Reading, payloads: Payloads, plain: Sequence[int] | None = None) -> list[bool]:
    """Take in the payloads of a stream, in order; says for each whether it is a content arrival.

    The list ends in front of a payload that is not JSON or not an object of this API; `Reading.bad` says why.
    ``plain`` is what `_plain` would find, if that is known already.
    """
    kinds: list[bool] = []
    if plain is None:
        plain = _plain(reading, payloads)
    try:
        while (at := len(kinds)) < len(payloads):
            run = plain.index(0, at) - at if reading.answered and reading.payloads else 0
            if run:
                reading.payloads += run
                reading.contents += run
                kinds += [True] * run
            else:
                kinds.append(_read(reading, payloads[at]))
    except BadPayload as error:
        reading.bad = str(error)
    return kinds


def _may_be_plain(reading: Reading) -> bool:
    return reading.vllm and reading.text is None


def _plain(reading: Reading, payloads: Payloads) -> Sequence[int]:
    """Which payloads are tokens that need no JSON parsed, as nearly all of vLLM's are; one False behind them.

    The last chunk (a finish reason that is a string) and whatever is unusual are not; neither is the first of an
    answer, though it may look like one: the caller sees to that.
    """
    if not _may_be_plain(reading):
        return [False] * (len(payloads) + 1)
    plain = [_CHOICE in p and _UNFINISHED in p and _TOKEN_IDS not in p for p in payloads]
    plain.append(False)
    return plain


def _read(reading: Reading, payload: bytes) -> bool:
    position = reading.payloads
    reading.payloads += 1
    if payload == DONE:
        reading.done = True
        return False
    try:
        event = orjson.loads(payload)
    except orjson.JSONDecodeError as why:
        return _read_other(reading, payload, why)
    if not isinstance(event, dict):
        raise BadPayload(f"not an object: {excerpt(payload)}")
    choices = event.get("choices")
    if (not choices or "error" in event) and (error := _error_of(event)) is not None:
        _take_error(reading, error)
        return False
    if "usage" in event or "metrics" in event:
        take_totals(reading, event)
    if not choices:
        if not event.get("usage"):  # a heartbeat, or news of the server's own
            reading.payloads -= 1
            if choices is None:
                reading.passed_over = reading.passed_over or excerpt(payload)
        return False
    choice = choices[0] if isinstance(choices, list) else None
    if not isinstance(choice, dict):
        raise BadPayload(f"choices is not a list of objects: {excerpt(payload)}")
    reason = choice.get("finish_reason")
    if isinstance(reason, str):
        reading.finish_reason = reason[:_REASON_CHARS]
    delta = choice.get("delta") if reading.chat else choice
    if delta is None and "text" not in choice:  # a last chunk that brings its finish reason only
        return False
    if not isinstance(delta, dict):
        raise BadPayload(f"a choice without {'delta' if reading.chat else 'text'}: {excerpt(payload)}")
    content = delta.get("content") if reading.chat else delta.get("text")
    reasoning = delta.get("reasoning") or delta.get("reasoning_content")
    tools = delta.get("tool_calls")
    if not (content or reasoning or tools):
        reasoning, elsewhere = generated_text.elsewhere(delta)
        if not (reasoning or elsewhere) and (not reading.vllm or (reading.chat and position == 0 and "role" in delta)):
            return False
    elif type(content) is list and not reasoning:  # parts, as Mistral's models send them
        reasoning, answer = generated_text.in_parts(content)
        if not (reasoning or answer or tools):
            return False
        reasoning = reasoning and not answer
    if "token_ids" in choice:
        _take_token_ids(reading, choice["token_ids"])
    if not reading.answered and not reasoning:
        reading.answered = True
        reading.first_answer = reading.contents
    if reading.text is not None and isinstance(content, str):
        reading.text.append(content)
    reading.contents += 1
    return True


def _read_other(reading: Reading, payload: bytes, why: orjson.JSONDecodeError) -> bool:
    """Take in what is no plain JSON: data of an error event (orjson takes no kind of bytes but bytes), a heartbeat."""
    if isinstance(payload, sse.ErrorData):
        _take_error(reading, _as_json(payload))
    elif (bare := payload.strip()) == DONE:
        reading.done = True
    elif not bare:
        reading.payloads -= 1
    else:
        raise BadPayload(f"not JSON: {excerpt(payload)}") from why
    return False


def _object(data: bytes) -> dict[str, Any]:
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadPayload(f"not JSON: {excerpt(data)}") from error
    if not isinstance(content, dict):
        raise BadPayload(f"not an object: {excerpt(data)}")
    return content


def _error_of(event: dict[str, Any]) -> Any:
    """The error that an event reports, None if it is none: `{error}`, or a bare `{message, code}`."""
    if event.get("error"):
        return event["error"]
    bare = "choices" not in event and isinstance(event.get("message"), str)
    return event if bare and (event.get("code") is not None or event.get("object") == "error") else None


def _as_json(data: bytes) -> Any:
    try:
        return orjson.loads(bytes(data))
    except orjson.JSONDecodeError:
        return excerpt(data)


def _take_error(reading: Reading, error: Any) -> None:
    """A 503 may come as an event: vLLM looks for room a second time when its 200 is already sent."""
    if isinstance(error, dict) and isinstance(error.get("error"), dict):
        error = error["error"]
    reading.error = _error_text(error)
    code = error.get("code") if isinstance(error, dict) else None
    reading.turned_away = not reading.contents and str(code) in _NO_ROOM


def _take_token_ids(reading: Reading, ids: Any) -> None:
    if not isinstance(ids, list):
        return
    if reading.contents == 0:
        reading.first_chunk_tokens = len(ids)
    reading.multi_token_chunks = (reading.multi_token_chunks or 0) + (len(ids) > 1)


def take_totals(reading: Reading, event: dict[str, Any]) -> None:
    """Take in usage and vLLM's per-request metrics, in whichever event they come."""
    usage = event.get("usage")
    if isinstance(usage, dict):
        reading.prompt_tokens = _count(usage.get("prompt_tokens"))
        reading.output_tokens = _count(claimed := usage.get("completion_tokens"))
        if reading.output_tokens is None and claimed is not None:
            reading.output_tokens = NO_COUNT
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict):
            reading.cached_tokens = _count(details.get("cached_tokens"))
    metrics = event.get("metrics")
    if isinstance(metrics, dict):
        reading.server_queue_ms = _number(metrics.get("queue_time_ms"))
        reading.server_ttft_ms = _number(metrics.get("time_to_first_token_ms"))


def read_whole(reading: Reading, body: bytes) -> None:
    """Take in an answer that was not streamed, or raise a BadPayload if it is none of this API."""
    answer = _object(body)
    if (error := _error_of(answer)) is not None:
        _take_error(reading, error)
        return
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise BadPayload(f"no choices: {excerpt(body)}")
    take_totals(reading, answer)
    choice = choices[0]
    reason = choice.get("finish_reason")
    reading.finish_reason = reason[:_REASON_CHARS] if isinstance(reason, str) else None
    if reading.text is not None:
        message = choice.get("message")
        text = message.get("content") if isinstance(message, dict) else choice.get("text")
        reading.text.append(text if isinstance(text, str) else "")
    reading.done = True


def error_text(body: bytes) -> str:
    """The message of an error answer as the server put it, or the start of whatever it sent."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return excerpt(body)
    if isinstance(answer, dict):
        return _error_text(answer.get("error") or answer.get("detail") or answer.get("message") or answer)
    return excerpt(body)


def _error_text(error: Any) -> str:
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return str(error["message"])[:500]
    try:
        return error[:500] if isinstance(error, str) else orjson.dumps(error)[:500].decode("utf-8", "replace")
    except orjson.JSONEncodeError:  # it reads deeper nesting than it writes
        return "an error whose nesting is too deep to be shown"


def excerpt(data: bytes) -> str:
    """The start of something unreadable, as text."""
    return data[:200].decode("utf-8", "replace")


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS else None


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None
