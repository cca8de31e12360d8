"""What a body may ask for: the parameters that change an answer are honoured, or refused in vLLM's shape and words.

An engine without a model has no log probabilities, grammars, tools, images or second choices. A body that wants one
of them is told so by name, since an answer that ignored it would be taken for what was asked for. Knobs of sampling
(temperature, penalties, seed) pick among words that are nonsense anyway: their values are checked, and that is all.
"""

import math
from typing import Any

# Parameters that the engine can't honour, each with the values beside null that ask for nothing.
_CANNOT: dict[str, tuple[Any, ...]] = {
    "logprobs": (False,), "top_logprobs": (0,), "prompt_logprobs": (), "logprob_token_ids": ([],),
    "echo": (False,), "suffix": ("",), "best_of": (1,), "use_beam_search": (False,), "prompt_embeds": ([],),
    "structured_outputs": (), "guided_json": (), "guided_regex": (), "guided_choice": (), "guided_grammar": (),
    "logit_bias": ({},), "allowed_token_ids": (), "bad_words": ([],), "logits_processors": ([],), "vllm_xargs": ({},),
    "truncate_prompt_tokens": (), "add_generation_prompt": (True,), "continue_final_message": (False,),
    "functions": ([],), "function_call": ("none", "auto"), "audio": (), "modalities": (["text"],),
    "return_prompt_text": (False,), "repetition_detection": (), "thinking_token_budget": (-1,),
    "watermarking": (False,), "stream_interval": (1,), "kv_transfer_params": ({},), "ec_transfer_params": ({},),
}  # fmt: skip

_TINY = math.ulp(0.0)
_RANGES: dict[str, tuple[float, float, str]] = {
    "temperature": (0, 2, "in [0, 2]"),
    "top_p": (_TINY, 1, "in (0, 1]"),
    "min_p": (0, 1, "in [0, 1]"),
    "presence_penalty": (-2, 2, "in [-2, 2]"),
    "frequency_penalty": (-2, 2, "in [-2, 2]"),
    "repetition_penalty": (_TINY, math.nextafter(math.inf, 0), "greater than zero"),
    "top_k": (-1, 2**63 - 1, "0 (disable), or at least 1"),
}


class ApiError(Exception):
    """A refusal: HTTP status and the fields of vLLM's error object."""

    def __init__(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.param = status, message, kind, param

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}}


def bad(message: str, param: str | None = None) -> ApiError:
    return ApiError(400, message, "BadRequestError", param)


def check(body: dict[str, Any], *, chat: bool) -> None:
    """ApiError for the first parameter of a body that can't be honoured."""
    for name, harmless in _CANNOT.items():
        value = body.get(name)
        if value is not None and not any(type(value) is type(nothing) and value == nothing for nothing in harmless):
            raise bad(f"the embedded engine has no model and can't do `{name}`", name)
    if integer(body, "n", 1) != 1:
        raise bad("the embedded engine answers with one choice: n must be 1", "n")
    for name, (least, most, words) in _RANGES.items():
        value = body.get(name)
        if value is None:
            continue
        if type(value) not in (int, float):
            raise bad(f"{name} must be a number, got {value!r}", name)
        if not least <= value <= most:
            raise bad(f"{name} must be {words}, got {value}.", name)
    integer(body, "seed", 0)
    integer(body, "priority", 0)  # first come, first served doesn't heed it, as vLLM doesn't
    _response_format(body.get("response_format"))
    if chat:
        _tools(body)
        template_options = body.get("chat_template_kwargs")
        if body.get("chat_template") or (isinstance(template_options, dict) and template_options.get("chat_template")):
            raise bad(
                "Chat template is passed with request, but --trust-request-chat-template is not set. "
                "Refused request with untrusted chat template.",
                "chat_template",
            )


def integer(body: dict[str, Any], name: str, default: int) -> int:
    """The integer that a body gives under `name`; `default` where it gives none."""
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int:
        raise bad(f"{name} must be an integer, got {value!r}", name)
    return value


def boolean(body: dict[str, Any], name: str) -> bool:
    """The switch that a body gives under `name`; off where it gives none."""
    value = body.get(name)
    if value is not None and type(value) is not bool:
        raise bad(f"{name} must be true or false, got {value!r}", name)
    return bool(value)


def stream_options(body: dict[str, Any], stream: bool) -> tuple[bool, bool]:
    """Whether a stream ends with its usage, and whether every chunk has it."""
    options = body.get("stream_options")
    if options is None:
        return False, False
    if not isinstance(options, dict):
        raise bad("stream_options must be an object", "stream_options")
    if options and not stream:
        raise bad("Stream options can only be defined when `stream=True`.", "stream_options")
    usage = boolean(options, "include_usage")
    return usage, boolean(options, "continuous_usage_stats") and usage


def stop_rules(body: dict[str, Any]) -> tuple[list[str], list[int]]:
    """The strings and the token ids at which an answer ends."""
    strings = body.get("stop") or []
    if isinstance(strings, str):
        strings = [strings]
    if not isinstance(strings, list) or not all(isinstance(entry, str) for entry in strings):
        raise bad("stop must be a string or a list of strings", "stop")
    if "" in strings:
        raise bad("stop cannot contain an empty string.", "stop")
    ids = body.get("stop_token_ids") or []
    if not isinstance(ids, list) or not all(type(entry) is int for entry in ids):
        raise bad(f"stop_token_ids must contain only integers, got {ids}.", "stop_token_ids")
    return strings, ids


def _response_format(given: Any) -> None:
    if given is None:
        return
    kind = given.get("type") if isinstance(given, dict) else None
    if kind in ("json_object", "json_schema", "structural_tag"):
        raise bad(f"the embedded engine has no model and can't do a `response_format` of {kind}", "response_format")
    if kind != "text":
        raise bad(
            "response_format must be an object whose type is text, json_object, json_schema or structural_tag",
            "response_format",
        )


def _tools(body: dict[str, Any]) -> None:
    tools, choice = body.get("tools"), body.get("tool_choice")
    if tools == []:
        raise bad(
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.", "tools"
        )
    if tools is not None and not isinstance(tools, list):
        raise bad("tools must be a list", "tools")
    choice = choice if choice is not None else "auto" if tools else "none"
    if choice == "none":
        return
    if tools is None:
        raise bad("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if choice == "auto":
        raise bad(
            '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set', "tool_choice"
        )
    if choice != "required" and not isinstance(choice, dict):
        raise bad(
            f'Invalid value for `tool_choice`: {choice}! Only named tools, "none", "auto" or "required" are supported.',
            "tool_choice",
        )
    raise bad("the embedded engine has no model and can't call a tool: tool_choice must be none", "tool_choice")
