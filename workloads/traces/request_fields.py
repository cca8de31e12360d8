"""Which keys of a logged record are fields of a request: only these are sent again.

A line of a log also holds what a gateway or a tracer wrote down about the request: hashes of keys, trace ids, users,
costs, the answer. None of that is the server's business. So a key is sent only if it is one of OpenAI's API or of the
servers that extend it (vLLM, SGLang, TensorRT-LLM), has the type that it has there, and says nothing of who asked:
`user`, `safety_identifier`, `prompt_cache_key`, `metadata` and `store` change no figure and stay behind.

pandas writes a whole number as `100.0` where its column has gaps: that is the number 100.
"""

from collections.abc import Mapping
from typing import Any, Final

_NUMBER: Final = (int, float)
_WHOLE: Final = (int,)
_SWITCH: Final = (bool,)
_OBJECT: Final = (dict,)
_LIST: Final = (list,)
_TEXT: Final = (str,)
_ANY: Final = (object,)

FIELDS: Final[dict[str, tuple[type, ...]]] = {
    # what is asked
    "model": _TEXT, "messages": _LIST, "prompt": (str, list), "suffix": _TEXT, "tools": _LIST,
    "tool_choice": (str, dict), "functions": _LIST, "function_call": (str, dict), "parallel_tool_calls": _SWITCH,
    "modalities": _LIST, "audio": _OBJECT, "prediction": _OBJECT, "web_search_options": _OBJECT, "documents": _LIST,
    "input": (str, list, dict), "mm_processor_kwargs": _OBJECT, "media_io_kwargs": _OBJECT,
    "prompt_embeds": (str, list),
    # how long the answer is
    "max_tokens": _WHOLE, "max_completion_tokens": _WHOLE, "min_tokens": _WHOLE, "ignore_eos": _SWITCH,
    "stop": (str, list), "stop_token_ids": _LIST, "include_stop_str_in_output": _SWITCH, "no_stop_trim": _SWITCH,
    "thinking_token_budget": _WHOLE, "truncate_prompt_tokens": _WHOLE,
    # how it is sampled
    "temperature": _NUMBER, "top_p": _NUMBER, "top_k": _NUMBER, "min_p": _NUMBER, "seed": _WHOLE,
    "frequency_penalty": _NUMBER, "presence_penalty": _NUMBER, "repetition_penalty": _NUMBER,
    "length_penalty": _NUMBER, "logit_bias": _OBJECT, "allowed_token_ids": _LIST, "bad_words": (str, list),
    "logits_processors": _LIST, "vllm_xargs": _OBJECT,
    # what it looks like
    "stream": _SWITCH, "stream_options": _OBJECT, "logprobs": (bool, int), "top_logprobs": _WHOLE,
    "prompt_logprobs": _WHOLE, "response_format": _OBJECT, "structured_outputs": _OBJECT, "guided_json": (str, dict),
    "guided_regex": _TEXT, "guided_choice": _LIST, "guided_grammar": _TEXT, "guided_decoding_backend": _TEXT,
    "guided_whitespace_pattern": _TEXT, "structural_tag": (str, dict), "regex": _TEXT, "ebnf": _TEXT,
    "json_schema": (str, dict), "verbosity": _TEXT, "skip_special_tokens": _SWITCH,
    "spaces_between_special_tokens": _SWITCH, "return_tokens_as_token_ids": _SWITCH, "return_token_ids": _SWITCH,
    "detokenize": _SWITCH,
    # how the model reasons and how its template is filled
    "reasoning_effort": _TEXT, "reasoning": _OBJECT, "thinking": _OBJECT, "include_reasoning": _SWITCH,
    "separate_reasoning": _SWITCH, "stream_reasoning": _SWITCH, "enable_thinking": _SWITCH, "chat_template": _TEXT,
    "chat_template_kwargs": _OBJECT, "add_generation_prompt": _SWITCH, "continue_final_message": _SWITCH,
    "add_special_tokens": _SWITCH,
    # how the server treats it
    "priority": _WHOLE, "service_tier": _TEXT, "cache_salt": _TEXT, "prompt_cache_retention": _TEXT, "lora_path": _TEXT,
    # what is refused elsewhere, by name and whatever its type (`loadgen.job.meaning_changed`): to drop it would hide it
    "n": _ANY, "best_of": _ANY, "num_return_sequences": _ANY, "beam_width": _ANY, "use_beam_search": _ANY, "echo": _ANY,
}  # fmt: skip
_MESSAGE: Final = frozenset(
    "role content name tool_calls tool_call_id function_call refusal audio prefix "  # noqa: SIM905
    "reasoning reasoning_content reasoning_details thinking thinking_blocks".split()
)


def request_fields(record: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The fields of a request that a record holds, and the names of what it holds besides (`messages[].id`)."""
    read = {name: _read(name, value) for name, value in record.items()}
    body = {name: value for name, value in read.items() if _is_field(name, value)}
    left_out = [name for name, value in record.items() if name not in body and value is not None]
    if isinstance(messages := body.get("messages"), list):
        body["messages"] = [_message(message, left_out) for message in messages]
    return body, left_out


def _is_field(name: str, value: Any) -> bool:
    kinds = FIELDS.get(name)
    if kinds is None or value is None:
        return False
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds or kinds is _ANY)


def _read(name: str, value: Any) -> Any:
    """The value, or the whole number that it is where one belongs."""
    kinds = FIELDS.get(name, ())
    whole = isinstance(value, float) and value.is_integer() and (kinds is _ANY or (int in kinds and float not in kinds))
    return int(value) if whole else value


def _message(message: Any, left_out: list[str]) -> Any:
    if not isinstance(message, dict):
        return message
    left_out += [shown for name in message if name not in _MESSAGE and (shown := f"messages[].{name}") not in left_out]
    return {name: value for name, value in message.items() if name in _MESSAGE}
