"""From a request body to a sequence: the prompt's token ids, how long the answer will be, and what it says.

Knows the bodies of `/v1/completions` and `/v1/chat/completions` and nothing of HTTP or of the engine's state, so that
long ones can be read beside the event loop. What a body may ask for is in `parameters`.
"""

import math
import random
import zlib
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import orjson

from tailgate.harness.engine.config import Resolved
from tailgate.harness.engine.model import tokenizer
from tailgate.harness.engine.model.kv_cache import block_hashes
from tailgate.harness.engine.model.scheduler import EngineSequence
from tailgate.harness.engine.server.parameters import ApiError, bad, boolean, check, integer, stop_rules, stream_options

_TEXT_PARTS = {
    "text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal", "thinking": "thinking",
}  # fmt: skip
_MEDIA = ("image", "audio", "video", "file")


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """What a body asks for, beside the sequence itself.

    `texts` holds what each token says where a stop string or id ends the answer; None: as the babble has it.
    """

    chat: bool
    stream: bool
    include_usage: bool
    continuous_usage: bool
    return_token_ids: bool
    prompt_ids: list[int]
    babble_offset: int
    texts: list[str] | None
    stop_reason: str | int | None


def parse(raw: bytes) -> dict[str, Any]:
    """The JSON object of a request body."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"JSON decode error: {error}", "Bad Request", "body") from error
    if not isinstance(body, dict):
        raise bad("the body must be a JSON object")
    return body


def most_bytes(context: int) -> int:
    """No body is longer that holds a prompt for a context of so many tokens, with 1 MiB for all else.

    In JSON a character takes up to six bytes (`\\u0061`).
    """
    return 6 * tokenizer.MAX_CHARACTERS_PER_TOKEN * context + 2**20


def too_long(context: int, count: int, unit: str, most: int) -> ApiError:
    """vLLM's refusal of a prompt that is seen to be too long before it is made tokens of."""
    return bad(
        f"This model's maximum context length is {context} tokens. However, your prompt contains {count} {unit} "
        f"(more than {most} {unit}, which is the upper bound for {context} input tokens). "
        "Please reduce the length of the input prompt.",
        "input_text",
    )


def chat_text(body: dict[str, Any], resolved: Resolved) -> str:
    """The messages (and tools) under the engine's own chat template."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad("messages must be a list with at least one entry", "messages")
    text = [f"<|tools|>\n{_json(body['tools'])}\n"] if body.get("tools") else []
    for message in messages:
        if not isinstance(message, dict):
            raise bad("each message must be an object", "messages")
        calls = _json(message["tool_calls"]) if message.get("tool_calls") else ""
        text.append(f"<|{message.get('role', 'user')}|>\n{_content(message.get('content'), resolved)}{calls}\n")
    return "".join(text) + "<|assistant|>\n"


def prompt_ids(prompt: Any, resolved: Resolved, *, bounded: bool = True) -> list[int]:
    """Token ids of a prompt: text (if `bounded`, what the context may hold), ids, or a list with one of them."""
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = prompt[0]
    if isinstance(prompt, str):
        most = resolved.max_model_len * tokenizer.MAX_CHARACTERS_PER_TOKEN
        if bounded and len(prompt) > most:
            raise too_long(resolved.max_model_len, len(prompt), "characters", most)
        prompt = tokenizer.encode(prompt)
    if not isinstance(prompt, list):
        raise bad("prompt must be a string or a list of token ids", "prompt")
    if not prompt:
        raise bad("prompt must not be empty", "prompt")
    if not all(type(token) is int for token in prompt):
        raise bad("the engine takes one prompt per request: a string, or a list of token ids", "prompt")
    low, high = min(prompt), max(prompt)
    vocabulary = resolved.step_time.shape.vocabulary
    if low < 0 or high >= vocabulary:
        raise bad(f"Token id {high if high >= vocabulary else low} is out of vocabulary")
    return prompt


def read(
    body: dict[str, Any], *, chat: bool, request_id: str, now_s: float, resolved: Resolved, babble: tokenizer.Babble
) -> tuple[EngineSequence, ApiRequest]:
    """The sequence and the options that a body asks for; an ApiError says why they can't be had."""
    settings = resolved.settings
    model = body.get("model")
    if model is not None and model != resolved.model_name:
        raise ApiError(
            404, f"The model `{model}` does not exist. Valid aliases: {resolved.model_name}.", "NotFoundError", "model"
        )
    check(body, chat=chat)
    stream = boolean(body, "stream")
    include_usage, continuous_usage = stream_options(body, stream)
    return_token_ids = boolean(body, "return_token_ids")
    salt = body.get("cache_salt") or ""
    if not isinstance(salt, str):
        raise bad("cache_salt must be a string", "cache_salt")
    ids = prompt_ids(chat_text(body, resolved) if chat else body.get("prompt"), resolved)
    limit, least = _limits(body, chat, len(ids), resolved.max_model_len)
    raw = np.asarray(ids, dtype=np.int32).tobytes()
    content = zlib.crc32(raw, settings.seed)
    offset = content % len(babble.ids)
    length = limit
    if not boolean(body, "ignore_eos"):
        natural = _natural_length(random.Random(content), settings.natural_output_tokens)
        length = min(limit, max(natural, least))
    texts, stop_reason = _stopped(body, babble, offset, length, least)
    if texts is not None:
        length = len(texts)
    chain = []
    if settings.enable_prefix_caching:
        chain = block_hashes(raw + babble.id_bytes(offset, length), settings.block_size, salt)
    sequence = EngineSequence(
        request_id=request_id,
        prompt_tokens=len(ids),
        output_tokens=length,
        arrival_s=now_s,
        chain=chain,
        priority=integer(body, "priority", 0),
        finish_reason="length" if length == limit and texts is None else "stop",
    )
    asked = ApiRequest(
        chat=chat,
        stream=stream,
        include_usage=include_usage,
        continuous_usage=continuous_usage,
        return_token_ids=return_token_ids,
        prompt_ids=ids if return_token_ids else [],
        babble_offset=offset,
        texts=texts,
        stop_reason=stop_reason,
    )
    return sequence, asked


def _limits(body: dict[str, Any], chat: bool, prompt: int, context: int) -> tuple[int, int]:
    """The most and the fewest tokens of the answer to a prompt of so many tokens."""
    room = context - prompt
    if room < 1:
        raise bad(
            f"This model's maximum context length is {context} tokens. However, your prompt contains {prompt} input "
            "tokens, which leaves no room for output tokens. Please reduce the length of the input prompt.",
            "input_tokens",
        )
    name = "max_completion_tokens" if chat and body.get("max_completion_tokens") is not None else "max_tokens"
    limit = integer(body, name, room if chat else min(16, room))
    if limit < 1:
        raise bad(f"{name} must be at least 1, got {limit}.", name)
    if limit > room:
        raise bad(
            f"This model's maximum context length is {context} tokens. However, you requested "
            f"{limit} output tokens and your prompt contains {prompt} input tokens.",
            name,
        )
    least = integer(body, "min_tokens", 0)
    if not 0 <= least <= limit:
        raise bad(f"min_tokens must be less than or equal to max_tokens={limit}, got {least}.")
    return limit, least


def _stopped(
    body: dict[str, Any], babble: tokenizer.Babble, offset: int, length: int, least: int
) -> tuple[list[str] | None, str | int | None]:
    """The texts of the answer's tokens where a stop string or id ends it, and that string or id; otherwise None.

    As in vLLM: the earliest end counts, the first `least` tokens end nothing, and what ended the answer is left out of
    its text unless `include_stop_str_in_output`.
    """
    strings, ids = stop_rules(body)
    if not (strings or ids):
        return None, None
    included = boolean(body, "include_stop_str_in_output")
    longest = max(map(len, strings), default=0)
    length = min(length, least + len(babble.ids) + 2 * longest)  # the text repeats: beyond this nothing new comes
    pieces = babble.pieces(offset, length)
    starts = [0, *accumulate(map(len, pieces))]  # character at which each token begins
    text = "".join(pieces)
    reason: str | int | None = None
    tokens, shown, first_end = length, len(text), len(text) + 1
    for string in strings:
        at = text.find(string, max(0, starts[least] - len(string) + 1))
        end = at + len(string)
        if at >= 0 and end < first_end:
            tokens, reason, shown, first_end = bisect_left(starts, end), string, end if included else at, end
    stopping = set(ids)
    for token, token_id in enumerate(babble.tokens(offset, tokens)[least:], least):
        if token_id in stopping:
            tokens, reason, shown = token + 1, token_id, starts[token + included]
            break
    if reason is None:
        return None, None
    return [piece[: max(0, shown - at)] for piece, at in zip(pieces[:tokens], starts, strict=False)], reason


def _content(content: Any, resolved: Resolved) -> str:
    """The text of a message's content: a string, or parts of text."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise bad("a message's content must be a string or a list of parts", "messages")
    text = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else None
        if isinstance(part, str):
            text.append(part)
        elif isinstance(kind, str) and any(name in kind for name in _MEDIA):
            raise bad(f"{resolved.model_name} is not a multimodal model", "messages")
        elif kind in _TEXT_PARTS and isinstance(part.get(_TEXT_PARTS[kind]), str):
            text.append(part[_TEXT_PARTS[kind]])
        else:
            raise bad(f"Unsupported chat content part type: {kind!r}.", "messages")
    return "".join(text)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _natural_length(rng: random.Random, median: int) -> int:
    """How long an answer is whose end is left to the model: lognormal with sigma 0.7, at least one token."""
    return max(1, round(math.exp(rng.gauss(math.log(median), 0.7))))
