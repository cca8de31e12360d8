"""Data sets and logs in the shapes in which people have them: each is read, or refused in a sentence that helps."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from tailgate.harness.cli import main

MESSAGES = [{"role": "user", "content": "hi there"}]
TURNS = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
USAGE = {"input_tokens": 12, "output_tokens": 3, "cache_read_input_tokens": 40}


def _jsonl(*records: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        file = folder / "d.jsonl"
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
        return file

    return write


def _parquet(**columns: list[Any]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        file = folder / "d.parquet"
        parquet.write_table(pa.table(columns), file)
        return file

    return write


NOON = datetime(2026, 11, 1, 12)
FILES = {
    "sharegpt": _jsonl({"id": "a", "conversations": TURNS}, {"id": "b", "conversations": TURNS}),
    "sharegpt as one list": _jsonl([{"id": "a", "conversations": TURNS}]),
    "batch input": _jsonl({"custom_id": "r0", "method": "POST", "url": "/v1/x", "body": {"messages": MESSAGES}}),
    "vllm's custom data set": _jsonl({"prompt": "hi there", "output_tokens": 35}),
    "langfuse": _jsonl({"startTime": "2025-11-30T10:53:20Z", "input": MESSAGES, "usage": {"input": 12, "output": 3}}),
    "otlp": _jsonl({"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": []}]}]}]}),
    "anthropic": _jsonl(
        *({"timestamp": 1700000000 + i, "request": {"messages": MESSAGES}, "usage": USAGE} for i in range(9))
    ),
    "messages in parquet": _parquet(messages=[MESSAGES] * 9, prompt_tokens=[9] * 9, completion_tokens=[7] * 9),
    "sharegpt in parquet": _parquet(conversations=[TURNS] * 9),
    "timestamps in parquet": _parquet(
        timestamp=[NOON + timedelta(seconds=i) for i in range(9)], input_tokens=[9] * 9, output_tokens=[7] * 9
    ),
}
FLAGS = {
    "no flag": [],
    "replay": ["--content", "replay"],
    "rate": ["--rate", "5/s"],
    "replay and rate": ["--content", "replay", "--rate", "5/s"],
    "columns": ["--columns", "prompt_tokens=input_tokens", "--columns", "output_tokens=output_tokens"],
    "columns, time": [
        *["--columns", "prompt_tokens=input_tokens", "--columns", "output_tokens=output_tokens"],
        *["--columns", "time=timestamp"],
    ],
    "columns, rate": [
        *["--columns", "prompt_tokens=prompt_tokens", "--columns", "output_tokens=completion_tokens"],
        *["--rate", "5/s"],
    ],
    "nested columns": [
        *["--columns", "prompt_tokens=usage.input", "--columns", "output_tokens=usage.output"],
        *["--columns", "time=startTime", "--time-unit", "calendar"],
    ],
    "a column of text": ["--columns", "prompt_tokens=prompt", "--columns", "output_tokens=output_tokens"],
    "a column of lists": ["--columns", "prompt_tokens=messages", "--columns", "output_tokens=conversations"],
}
READ = {
    ("anthropic", "no flag"), ("anthropic", "replay"), ("anthropic", "rate"), ("anthropic", "replay and rate"),
    ("messages in parquet", "columns, rate"), ("timestamps in parquet", "columns, time"),
    ("langfuse", "nested columns"),
}  # fmt: skip


def planned(file: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["workload", "plan", str(file), *flags, "--quiet", "-o", str(file.with_name("plan"))])
    return code, capsys.readouterr().err


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("kind", FILES)
def test_it_is_read_or_refused_in_one_line(
    kind: str, flags: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = planned(FILES[kind](tmp_path), FLAGS[flags], capsys)
    if (kind, flags) in READ:
        assert (code, told) == (0, "")
        return
    assert code == 2 and told.startswith("tailgate workload: ") and len(told.splitlines()) == 1, told
    assert "unexpected error" not in told and "Error" not in told


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            "timestamps in parquet",
            "must be named; it has: timestamp, input_tokens, output_tokens. Name them (--columns)",
        ),
        ("sharegpt in parquet", "it has no column of numbers, and so no token counts; it has: conversations"),
        ("sharegpt", "the trace's format isn't known; its first record has: id, conversations"),
        ("batch input", "its first record has: custom_id, method, url, body"),
    ],
)
def test_a_refusal_says_what_the_file_holds(
    kind: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in planned(FILES[kind](tmp_path), [], capsys)[1]


def test_lengths_alone_name_the_flags_that_give_them_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = planned(FILES["timestamps in parquet"](tmp_path), FLAGS["columns"], capsys)[1]
    assert "the trace has no times" in told and "--rate" in told and "--users" in told
