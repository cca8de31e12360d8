"""Only what is a field of a request is sent again of a logged record."""

import json
from pathlib import Path
from typing import Any

from tailgate.loadgen.job import meaning_changed
from tailgate.workloads.traces.logged_bodies import Bodies
from tailgate.workloads.traces.request_fields import FIELDS, request_fields

# As LiteLLM and its kind keep them: the request's fields among those of the log.
LOGGED: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "hi", "id": "msg-7", "created_at": 1, "name": "ann"}],
    "temperature": 0.5,
    "top_k": 20,
    "stop": ["x"],
    "priority": "high",  # of the log, not of the request
    "logprobs": {"content": []},  # of the answer
    "reasoning": "because",  # of the answer
    "seed": True,
    "max_tokens": None,
    "api_key": "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b",
    "user_api_key_hash": "88dc28d0",
    "user": "ann@example.org",
    "metadata": {"user_api_key_alias": "ann", "trace_id": "4bf92f35"},
    "litellm_trace_id": "4bf92f35",
    "response_cost": 0.0021,
    "response": {"choices": []},
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    "timestamp": 1700000000,
}


def test_what_a_log_adds_stays_behind_and_is_named() -> None:
    body, left_out = request_fields(LOGGED)
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi", "name": "ann"}],
        "temperature": 0.5,
        "top_k": 20,
        "stop": ["x"],
    }
    assert {"api_key", "metadata", "user", "response_cost", "priority", "messages[].id"} < set(left_out)
    assert "max_tokens" not in left_out  # null says nothing


def test_it_is_the_same_wherever_a_line_keeps_its_request(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text("\n".join(map(json.dumps, [LOGGED, {"request": LOGGED}, {"request": {"body": LOGGED}, "key": 1}])))
    bodies = Bodies(file)
    assert bodies.body(1) == bodies.body(2) == bodies.body(3) == request_fields(LOGGED)[0]


def test_tools_images_and_reasoning_stay_whole() -> None:
    body = {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "function": {"name": "f"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "x"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
        "chat_template_kwargs": {"enable_thinking": False},
        "max_completion_tokens": 10,
        "logprobs": True,
    }
    assert request_fields(body) == (body, [])


def test_what_would_be_refused_by_name_is_not_dropped_before() -> None:
    for name in ("n", "best_of", "num_return_sequences", "beam_width"):
        assert meaning_changed(request_fields({"prompt": "p", name: 2})[0])
    for name in ("use_beam_search", "echo"):
        assert meaning_changed(request_fields({"prompt": "p", name: True})[0])


def test_a_whole_number_that_pandas_wrote_as_a_float_is_one() -> None:
    body, left_out = request_fields({"prompt": "p", "max_tokens": 100.0, "logprobs": 5.0, "temperature": 1.0, "n": 2.0})
    assert body == {"prompt": "p", "max_tokens": 100, "logprobs": 5, "temperature": 1.0, "n": 2} and left_out == []
    assert (
        all(type(body[name]) is int for name in ("max_tokens", "logprobs", "n")) and type(body["temperature"]) is float
    )
    assert request_fields({"prompt": "p", "max_tokens": 100.5, "seed": float("nan")})[1] == ["max_tokens", "seed"]


def test_what_would_be_refused_by_name_passes_whatever_its_type() -> None:
    for field in ({"n": 2.0}, {"n": "2"}, {"echo": 1}, {"use_beam_search": "yes"}, {"best_of": [3]}):
        assert meaning_changed(request_fields({"prompt": "p", **field})[0]), field
    assert not meaning_changed(request_fields({"prompt": "p", "n": 1.0, "echo": 0})[0])


def test_no_field_tells_who_asked() -> None:
    assert not {"user", "safety_identifier", "prompt_cache_key", "metadata", "store", "api_key"} & set(FIELDS)
