"""From a request body to a sequence: what is accepted, and the refusals in vLLM's shape.

Knows the bodies of `/v1/completions` and `/v1/chat/completions` and nothing of HTTP. What an engine without
a model can't do (log probabilities, several choices, beams, grammars) is refused by name, not ignored.
"""

import math
import random
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from tailgate.harness.engine.config import Resolved
from tailgate.harness.engine.model import tokenizer
from tailgate.harness.engine.model.kv_cache import block_hashes
from tailgate.harness.engine.model.scheduler import EngineSequence

_UNSUPPORTED = (
    "logprobs", "top_logprobs", "prompt_logprobs", "echo", "use_beam_search", "prompt_embeds", "structured_outputs",
)  # fmt: skip


class ApiError(Exception):
    """A refusal: HTTP status and the fields of vLLM's error object."""

    def __init__(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.param = status, message, kind, param

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}}


def bad(message: str, param: str | None = None) -> ApiError:
    return ApiError(400, message, "BadRequestError", param)


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """What a body asks for, beside the sequence itself."""

    chat: bool
    stream: bool
    include_usage: bool
    continuous_usage: bool
    return_token_ids: bool
    prompt_ids: list[int]
    babble_offset: int


def chat_ids(body: dict[str, Any]) -> list[int]:
    """Token ids of the messages under the engine's own chat template."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad("messages must be a list with at least one entry", "messages")
    text = []
    for message in messages:
        if not isinstance(message, dict):
            raise bad("each message must be an object", "messages")
        content = message.get("content") or ""
        if isinstance(content, list):
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        text.append(f"<|{message.get('role', 'user')}|>\n{content}\n")
    return tokenizer.encode("".join(text) + "<|assistant|>\n")


def prompt_ids(prompt: Any, vocabulary: int) -> list[int]:
    """Token ids of a completion's prompt: text, ids, or a list that holds one of these."""
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = prompt[0]
    if isinstance(prompt, str):
        prompt = tokenizer.encode(prompt)
    if not isinstance(prompt, list):
        raise bad("prompt must be a string or a list of token ids", "prompt")
    if not prompt:
        raise bad("prompt must not be empty", "prompt")
    if not all(type(token) is int for token in prompt):
        raise bad("the engine takes one prompt per request: a string, or a list of token ids", "prompt")
    low, high = min(prompt), max(prompt)
    if low < 0 or high >= vocabulary:
        raise bad(f"Token id {high if high >= vocabulary else low} is out of vocabulary")
    return prompt


def read(
    body: Any, *, chat: bool, request_id: str, now_s: float, resolved: Resolved, babble: tokenizer.Babble
) -> tuple[EngineSequence, ApiRequest]:
    """The sequence and the options that a body asks for; an ApiError says why they can't be had."""
    if not isinstance(body, dict):
        raise bad("the body must be a JSON object")
    model = body.get("model")
    if model is not None and model != resolved.model_name:
        raise ApiError(
            404, f"The model `{model}` does not exist. Valid aliases: {resolved.model_name}.", "NotFoundError", "model"
        )
    for name in _UNSUPPORTED:
        if body.get(name):
            raise bad(f"the embedded engine has no model and can't do `{name}`", name)
    if _integer(body, "n", 1) != 1:
        raise bad("the embedded engine answers with one choice: n must be 1", "n")
    shape = resolved.step_time.shape
    ids = chat_ids(body) if chat else prompt_ids(body.get("prompt"), shape.vocabulary)
    room = resolved.max_model_len - len(ids)
    if room < 1:
        raise bad(
            f"This model's maximum context length is {resolved.max_model_len} tokens. "
            f"However, your prompt contains {len(ids)} input tokens.",
            "input_tokens",
        )
    asked_for = body.get("max_completion_tokens") if chat else None
    limit = asked_for if asked_for is not None else _integer(body, "max_tokens", room if chat else min(16, room))
    if type(limit) is not int or limit < 1:
        raise bad(f"max_tokens must be at least 1, got {limit}.", "max_tokens")
    if limit > room:
        raise bad(
            f"This model's maximum context length is {resolved.max_model_len} tokens. However, you requested "
            f"{limit} output tokens and your prompt contains {len(ids)} input tokens.",
            "max_tokens",
        )
    least = _integer(body, "min_tokens", 0)
    if not 0 <= least <= limit:
        raise bad(f"min_tokens must be less than or equal to max_tokens={limit}, got {least}.")
    raw = np.asarray(ids, dtype=np.int32).tobytes()
    content = zlib.crc32(raw, resolved.settings.seed)
    length = limit
    if not body.get("ignore_eos"):
        natural = _natural_length(random.Random(content), resolved.settings.natural_output_tokens)
        length = min(limit, max(natural, least))
    offset = content % len(babble.ids)
    salt = body.get("cache_salt") or ""
    if not isinstance(salt, str):
        raise bad("cache_salt must be a string", "cache_salt")
    chain = []
    if resolved.settings.enable_prefix_caching:
        chain = block_hashes(raw + babble.id_bytes(offset, length), resolved.settings.block_size, salt)
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise bad("stream_options must be an object", "stream_options")
    sequence = EngineSequence(
        request_id=request_id,
        prompt_tokens=len(ids),
        output_tokens=length,
        arrival_s=now_s,
        chain=chain,
        priority=_integer(body, "priority", 0),
        finish_reason="length" if length == limit else "stop",
    )
    asked = ApiRequest(
        chat=chat,
        stream=bool(body.get("stream")),
        include_usage=bool(options.get("include_usage")),
        continuous_usage=bool(options.get("continuous_usage_stats")),
        return_token_ids=bool(body.get("return_token_ids")),
        prompt_ids=ids,
        babble_offset=offset,
    )
    return sequence, asked


def _integer(body: dict[str, Any], name: str, default: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int:
        raise bad(f"{name} must be an integer, got {value!r}", name)
    return value


def _natural_length(rng: random.Random, median: int) -> int:
    """How long an answer is whose end is left to the model: lognormal with sigma 0.7, at least one token."""
    return max(1, round(math.exp(rng.gauss(math.log(median), 0.7))))
