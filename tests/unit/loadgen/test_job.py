"""Bodies whose answers can't be told apart, wherever they come from."""

from typing import Any

import pytest
from pydantic import ValidationError

from tailgate.harness.config.run_spec import RunSpec
from tailgate.loadgen.job import meaning_changed

CHANGES: list[dict[str, Any]] = [
    {"n": 2}, {"n": "2"}, {"n": 0}, {"best_of": 4}, {"use_beam_search": True}, {"echo": True}, {"prompt": ["a", "b"]},
    {"prompt": [[1, 2], [3]]}, {"num_return_sequences": 2},
]  # fmt: skip
FINE: list[dict[str, Any]] = [
    {}, {"n": 1, "best_of": 1}, {"n": None}, {"echo": False}, {"prompt": [1, 2, 3]}, {"prompt": ["a"]},
    {"logprobs": 5, "temperature": 1},
]  # fmt: skip


@pytest.mark.parametrize("body", CHANGES)
def test_what_changes_the_meaning_of_figures_is_named(body: dict[str, Any]) -> None:
    assert next(iter(body)) in meaning_changed(body)


@pytest.mark.parametrize("body", FINE)
def test_what_does_not_is_sent(body: dict[str, Any]) -> None:
    assert meaning_changed(body) == ""


def test_extra_may_not_ask_for_several_answers() -> None:
    workload = {"arrivals": {"rate": 1}, "duration": "5s", "prompt_tokens": 8, "output_tokens": 8}
    spec: dict[str, Any] = {"target": {"url": "http://x"}, "workload": workload}
    RunSpec.model_validate(spec | {"extra": {"n": 1}})
    with pytest.raises(ValidationError, match="`n` asks for several answers"):
        RunSpec.model_validate(spec | {"extra": {"n": 2}})
