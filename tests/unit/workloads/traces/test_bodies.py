"""Bodies replayed verbatim, formats told from files, and content that would mislead refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.config.workload import WorkloadSpec
from tailgate.workloads.plan.plan import make_plan
from tailgate.workloads.prompts.content_check import refuse_misleading
from tailgate.workloads.traces.detect import guess_format
from tailgate.workloads.traces.logged_bodies import Bodies

USAGE = {"prompt_tokens": 10, "completion_tokens": 2}


def log(tmp_path: Path, *records: Any) -> Path:
    file = tmp_path / "log.jsonl"
    file.write_text("\n".join(record if isinstance(record, str) else json.dumps(record) for record in records))
    return file


def test_a_plan_names_the_lines_whose_bodies_are_sent(tmp_path: Path) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "tools": [{"type": "function"}]}
    file = log(
        tmp_path,
        {"timestamp": 1700000005, "request": {"body": body}, "usage": USAGE},
        "",
        {"timestamp": 1700000000, "request": body | {"temperature": 0}, "usage": USAGE},
        {"timestamp": 1700000009, "prompt": "p", "usage": USAGE},
    )
    spec = WorkloadSpec.model_validate({"trace": {"file": file}, "content": {"kind": "replay"}})
    lines = make_plan(spec, 1).table["content_seed"].to_pylist()
    assert lines == [3, 1, 4]
    bodies = Bodies(file)
    assert bodies.body(1) == body
    assert bodies.body(3) == body | {"temperature": 0}
    assert bodies.body(4)["prompt"] == "p"


def test_a_line_without_a_body_says_so(tmp_path: Path) -> None:
    bodies = Bodies(log(tmp_path, {"timestamp": 1, "usage": USAGE}))
    with pytest.raises(UserError, match=r"log\.jsonl, line 1: holds no request body"):
        bodies.body(1)
    with pytest.raises(UserError, match="no line 7"):
        bodies.body(7)


def test_replayed_content_needs_a_log() -> None:
    with pytest.raises(ValueError, match="needs a `trace` in OpenAI's shape"):
        WorkloadSpec.model_validate(
            {"prompt_tokens": 1, "output_tokens": 1, "users": 1, "requests": 1, "content": {"kind": "replay"}}
        )


def spec(kind: str) -> WorkloadSpec:
    return WorkloadSpec.model_validate(
        {"prompt_tokens": 1, "output_tokens": 1, "users": 1, "requests": 1, "content": {"kind": kind}}
    )


def test_random_content_with_speculative_decoding_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="no draft model can guess random tokens"):
        refuse_misleading(spec("random"), speculative=True, grammar=False, forced_output=True)
    refuse_misleading(spec("corpus"), speculative=True, grammar=False, forced_output=True)
    refuse_misleading(spec("random"), speculative=False, grammar=False, forced_output=True)


def test_a_forced_length_with_a_grammar_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="can't be followed by more tokens"):
        refuse_misleading(spec("corpus"), speculative=False, grammar=True, forced_output=True)
    refuse_misleading(spec("corpus"), speculative=False, grammar=True, forced_output=False)


@pytest.mark.parametrize(
    ("path", "format"),
    [
        ("azure-2023/AzureLLMInferenceTrace_conv.csv", "azure"),
        ("azure-2025-lmm/AzureLMMInferenceTrace_multimodal.head-tail.csv", "azure"),
        ("burstgpt/BurstGPT_3.first400.csv", "burstgpt"),
        ("mooncake/conversation_trace.jsonl.gz", "mooncake"),
        ("ragpulse/0_trace.first300.jsonl", "ragpulse"),
        ("servegen/reason/deepseek-r1", "servegen"),
        ("kv-cache-tester", "kv-cache-tester"),
        ("kv-cache-tester/trace_0008.json.gz", "kv-cache-tester"),
    ],
)
def test_formats_are_told_from_the_files(traces: Path, path: str, format: str) -> None:
    assert guess_format(traces / path) == format


def test_a_log_in_openais_shape_is_told(tmp_path: Path) -> None:
    assert guess_format(log(tmp_path, {"timestamp": 1, "usage": USAGE})) == "openai"


def test_an_unknown_format_asks_for_it(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"has the columns a, b.*trace-format"):
        guess_format(tmp_path / "x.csv")
    with pytest.raises(UserError, match="format isn't known"):
        guess_format(log(tmp_path, {"a": 1}))
    with pytest.raises(UserError, match="doesn't look like a trace"):
        guess_format(tmp_path)
