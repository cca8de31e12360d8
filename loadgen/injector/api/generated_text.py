"""Where servers put generated text besides `content`, `reasoning`, `reasoning_content` and `tool_calls`.

Asked only of a delta in which these are empty: what nearly all deltas have is seen without it.
"""

from typing import Any, Final

_REASONING: Final = (
    "reasoning_details",  # OpenRouter, and who passes on its shape: [{type, text | summary | data}]
    "thinking",
    "thinking_blocks",  # LiteLLM, of Anthropic's models: [{type, thinking}]
    "reasoning_text",
)
_ANSWER: Final = (
    "refusal",
    "audio",  # {transcript, data}
    "function_call",  # {name, arguments}, before there were tool_calls
    "images",  # [{type, image_url: {url}}]
)
# The keys of a part that hold what was generated; `type`, `id`, `index`, `format` and `signature` describe it.
_HOLDS: Final = (
    "text",
    "summary",
    "thinking",
    "data",
    "transcript",
    "name",
    "arguments",
    "content",
    "refusal",
    "image_url",
    "url",
)
_DEPTH: Final = 4


def elsewhere(delta: dict[str, Any]) -> tuple[bool, bool]:
    """Whether reasoning, and whether parts of an answer, are in a delta without the usual fields."""
    return any(_some(delta.get(key)) for key in _REASONING), any(_some(delta.get(key)) for key in _ANSWER)


def in_parts(content: list[Any]) -> tuple[bool, bool]:
    """Whether `content` that is a list of parts holds reasoning, and whether it holds something of an answer."""
    thought = [part for part in content if isinstance(part, dict) and "thinking" in part]
    return _some(thought), _some([part for part in content if not (isinstance(part, dict) and "thinking" in part)])


def _some(value: Any, depth: int = _DEPTH) -> bool:
    """Whether there is a text that isn't empty in it."""
    if isinstance(value, str):
        return bool(value)
    if not depth:
        return False
    if isinstance(value, list):
        return any(_some(part, depth - 1) for part in value)
    return isinstance(value, dict) and any(_some(value.get(key), depth - 1) for key in _HOLDS)
