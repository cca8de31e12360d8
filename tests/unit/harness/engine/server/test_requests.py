"""From bodies to sequences: what would change an answer is honoured or refused, in vLLM's words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailgate.harness.engine.config import Settings, resolve
from tailgate.harness.engine.model import tokenizer
from tailgate.harness.engine.model.scheduler import EngineSequence
from tailgate.harness.engine.server.parameters import ApiError
from tailgate.harness.engine.server.requests import ApiRequest, most_bytes, prompt_ids, read

ENGINE = resolve(Settings(preset="h100-sxm/qwen2.5-0.5b", served_model_name="sim", max_model_len=4096))
BABBLE = tokenizer.Babble.seeded(0)
PROMPT = {"prompt": "a"}
CHAT = {"messages": [{"role": "user", "content": "a"}]}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def understand(body: dict[str, Any], chat: bool = False) -> tuple[EngineSequence, ApiRequest]:
    return read(body, chat=chat, request_id="r", now_s=0.0, resolved=ENGINE, babble=BABBLE)


@pytest.mark.parametrize(
    ("more", "param", "words"),
    [
        ({"logprobs": 0}, "logprobs", "can't do `logprobs`"),
        ({"prompt_logprobs": 0}, "prompt_logprobs", "can't do"),
        ({"best_of": 2}, "best_of", "can't do"),
        ({"echo": True}, "echo", "can't do"),
        ({"suffix": "b"}, "suffix", "can't do"),
        ({"guided_json": {"type": "object"}}, "guided_json", "can't do"),
        ({"guided_choice": ["a"]}, "guided_choice", "can't do"),
        ({"structured_outputs": {"regex": "a+"}}, "structured_outputs", "can't do"),
        ({"logit_bias": {"5": -100}}, "logit_bias", "can't do"),
        ({"bad_words": ["no"]}, "bad_words", "can't do"),
        ({"truncate_prompt_tokens": 5}, "truncate_prompt_tokens", "can't do"),
        ({"response_format": {"type": "json_object"}}, "response_format", "json_object"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format", "json_schema"),
        ({"response_format": "json"}, "response_format", "must be an object"),
        ({"n": 2}, "n", "one choice"),
        ({"temperature": -1}, "temperature", "in [0, 2]"),
        ({"temperature": "0"}, "temperature", "a number"),
        ({"top_p": 0}, "top_p", "in (0, 1]"),
        ({"top_k": -2}, "top_k", "at least 1"),
        ({"repetition_penalty": 0}, "repetition_penalty", "greater than zero"),
        ({"stream": "false"}, "stream", "true or false"),
        ({"ignore_eos": 1}, "ignore_eos", "true or false"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "only be defined when `stream=True`"),
        ({"stream": True, "stream_options": {"include_usage": "no"}}, "include_usage", "true or false"),
        ({"stop": [""]}, "stop", "empty string"),
        ({"stop": [5]}, "stop", "list of strings"),
        ({"stop_token_ids": ["5"]}, "stop_token_ids", "only integers"),
    ],
)
@pytest.mark.parametrize("chat", [False, True])
def test_what_would_change_the_answer_is_refused_by_name(more: dict[str, Any], param: str, words: str, chat: bool):
    with pytest.raises(ApiError) as refused:
        understand((CHAT if chat else PROMPT) | more, chat)
    assert (refused.value.status, refused.value.kind, refused.value.param) == (400, "BadRequestError", param)
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("more", "param", "words"),
    [
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "see"}, IMAGE]}]},
            "messages",
            "multimodal",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages", "not a multimodal model"),
        ({"messages": [{"role": "user", "content": [{"type": "poem"}]}]}, "messages", "Unsupported chat content part"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages", "Unsupported chat content part"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages", "a string or a list"),
        ({"tools": [TOOL]}, "tool_choice", '"auto" tool choice requires --enable-auto-tool-choice'),
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice", "can't call a tool"),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice", "can't call a tool"),
        ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice", "Invalid value for `tool_choice`"),
        ({"tools": []}, "tools", "must not be an empty array"),
        ({"tool_choice": "required"}, "tool_choice", "`tools` must be set"),
        ({"logprobs": True, "top_logprobs": 5}, "logprobs", "can't do"),
        ({"functions": [TOOL]}, "functions", "can't do"),
        ({"modalities": ["text", "audio"]}, "modalities", "can't do"),
        ({"chat_template": "{{ x }}"}, "chat_template", "--trust-request-chat-template"),
        ({"max_completion_tokens": 9000}, "max_completion_tokens", "9000 output tokens"),
    ],
)
def test_chat_that_an_engine_without_a_model_cannot_answer_is_refused(more: dict[str, Any], param: str, words: str):
    with pytest.raises(ApiError) as refused:
        understand(CHAT | more, chat=True)
    assert refused.value.status == 400 and refused.value.param == param and words in refused.value.message


def test_parameters_that_ask_for_nothing_are_no_reason_to_refuse():
    idle = {
        "n": 1, "best_of": 1, "echo": False, "suffix": None, "logprobs": None, "logit_bias": {}, "stop": [],
        "response_format": {"type": "text"}, "priority": 0, "temperature": 0.7, "top_p": 1, "top_k": -1, "seed": 3,
        "stream_options": None, "min_p": 0, "user": "someone", "frequency_penalty": -2, "bad_words": [],
    }  # fmt: skip
    assert understand(PROMPT | idle)[0].output_tokens == understand(PROMPT)[0].output_tokens
    chat = {"logprobs": False, "top_logprobs": 0, "add_generation_prompt": True, "parallel_tool_calls": True}
    understand(CHAT | chat, chat=True)


def test_tools_that_may_not_be_called_and_calls_made_before_are_part_of_the_prompt():
    plain = understand(CHAT, chat=True)[0].prompt_tokens
    assert understand(CHAT | {"tools": [TOOL], "tool_choice": "none"}, chat=True)[0].prompt_tokens > plain
    called = {"role": "assistant", "content": None, "tool_calls": [TOOL]}
    spoken = {"role": "assistant", "content": None}
    with_call, without = (
        understand({"messages": [message, *CHAT["messages"]]}, chat=True)[0].prompt_tokens
        for message in (called, spoken)
    )
    assert with_call > without > plain


def test_running_usage_is_given_only_with_usage_as_in_vllm():
    options = {"continuous_usage_stats": True}
    assert not understand(PROMPT | {"stream": True, "stream_options": options})[1].continuous_usage
    assert understand(PROMPT | {"stream": True, "stream_options": options | {"include_usage": True}})[
        1
    ].continuous_usage


def test_a_prompt_far_too_long_is_refused_before_it_is_made_tokens_of(monkeypatch: pytest.MonkeyPatch):
    def never(_text: str) -> list[int]:
        raise AssertionError("tokenized")

    monkeypatch.setattr(tokenizer, "encode", never)
    with pytest.raises(ApiError, match=r"maximum context length is 4096 tokens\. However, your prompt contains 20000"):
        prompt_ids("a" * 20_000, ENGINE)


def test_no_prompt_that_fits_the_context_is_longer_than_a_body_may_be():
    longest = "\\u0061" * (4096 * tokenizer.MAX_CHARACTERS_PER_TOKEN)
    assert len(longest) < most_bytes(4096) < 2 * len(longest) + 2**20


FORCED = {"ignore_eos": True, "max_tokens": 500}
WHOLE = "".join(BABBLE.pieces(understand(PROMPT | FORCED)[1].babble_offset, 500))


@given(st.integers(0, len(WHOLE) - 9), st.integers(1, 8), st.integers(0, 500), st.booleans())
def test_an_answer_ends_at_the_first_stop_string_after_its_least_length(at: int, size: int, least: int, included: bool):
    stop = WHOLE[at : at + size]
    body = {"stop": ["Nowhere", stop], "min_tokens": least, "include_stop_str_in_output": included}
    sequence, asked = understand(PROMPT | FORCED | body)
    pieces = BABBLE.pieces(asked.babble_offset, 500)
    must = len("".join(pieces[:least]))
    found = next((k for k in range(len(WHOLE)) if WHOLE.startswith(stop, k) and k + size > must), None)
    if found is None:
        assert asked.texts is None and sequence.output_tokens == 500 and sequence.finish_reason == "length"
        return
    assert asked.texts is not None and asked.stop_reason == stop and sequence.finish_reason == "stop"
    assert "".join(asked.texts) == WHOLE[: found + size * included]
    assert len(asked.texts) == sequence.output_tokens > least
    through = len("".join(pieces[: sequence.output_tokens]))
    assert through >= found + size > len("".join(pieces[: sequence.output_tokens - 1]))


@given(st.integers(0, 499), st.integers(0, 499), st.booleans())
def test_an_answer_ends_at_the_first_stop_id_after_its_least_length(at: int, least: int, included: bool):
    offset = understand(PROMPT | FORCED)[1].babble_offset
    tokens, pieces = BABBLE.tokens(offset, 500), BABBLE.pieces(offset, 500)
    body = {"stop_token_ids": [tokens[at]], "min_tokens": least, "include_stop_str_in_output": included}
    sequence, asked = understand(PROMPT | FORCED | body)
    if tokens[at] not in tokens[least:]:
        assert asked.texts is None and sequence.output_tokens == 500
        return
    last = tokens.index(tokens[at], least)
    assert sequence.output_tokens == last + 1 and asked.stop_reason == tokens[at]
    assert asked.texts is not None and "".join(asked.texts) == "".join(pieces[: last + included])
