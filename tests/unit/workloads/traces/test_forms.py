"""Numbers, times and names in the forms in which people's files have them."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from tests.kit.traces import jsonl, plan_of, spec

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.traces.logged_bodies import Bodies
from tailgate.workloads.traces.replay import load

COLUMNS = {"time": "t", "prompt_tokens": "in", "output_tokens": "out"}
BOM = "\ufeff"


@pytest.mark.parametrize(
    ("text", "count"), [("374.0", 374), ("1,024", 1024), ("1,024.0", 1024), (" 7 ", 7), ("2e3", 2000)]
)
@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_whole_numbers_are_read_however_they_are_written(tmp_path: Path, text: str, count: int, format: str) -> None:
    file = tmp_path / "t"
    if format == "csv":
        file.write_text(f't,in,out\n0.0,"{text}",44.0\n"1,000.5",396.0,109.0\n')
    else:
        jsonl(file, {"t": 0.0, "in": text, "out": 44.0}, {"t": "1,000.5", "in": 396.0, "out": 109.0})
    columns = load(spec(file, format, columns=COLUMNS)).columns
    assert columns.prompt_tokens.tolist() == [count, 396]
    assert columns.at_ns.tolist() == [0, 1_000_500_000_000]


@pytest.mark.parametrize("text", ["4.5", "1,02", "1_000", "", "nan", "1.024,0"])
@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_what_is_no_whole_number_is_a_broken_row(tmp_path: Path, text: str, format: str) -> None:
    file = tmp_path / "t"
    if format == "csv":
        file.write_text(f't,in,out\n0,5,1\n1,"{text}",1\n')
    else:
        jsonl(file, {"t": 0, "in": 5, "out": 1}, {"t": 1, "in": text, "out": 1})
    with pytest.raises(UserError, match=r"line \d: in .* is (not a|empty)"):
        load(spec(file, format, columns=COLUMNS))


@pytest.mark.parametrize("format", ["auto", "openai"])
def test_a_mark_before_the_text_and_values_that_are_no_numbers_do_no_harm(tmp_path: Path, format: str) -> None:
    record = {"timestamp": 1700000000, "usage": {"prompt_tokens": 5, "completion_tokens": 2}, "cost": float("nan")}
    file = jsonl(tmp_path / "t.jsonl", BOM + json.dumps(record | {"messages": []}) + "\n", record)
    assert load(spec(file, format)).columns.prompt_tokens.tolist() == [5, 5]
    assert Bodies(file).body(1)["messages"] == []


def test_utf_16_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("{}", encoding="utf-16")
    for format in ("auto", "mooncake"):
        with pytest.raises(UserError, match=r"UTF-16\. Save it as UTF-8"):
            load(spec(tmp_path / "t.jsonl", format))


def test_mooncake_without_hash_ids_is_read_and_it_is_said(tmp_path: Path) -> None:
    records = [{"timestamp": k, "input_length": 5, "output_length": 2} for k in range(3)]
    replay = load(spec(jsonl(tmp_path / "t.jsonl", *records), "auto"))
    assert replay.columns.prompt_tokens.tolist() == [5, 5, 5]
    assert "3 of 3 requests have no hash_ids" in replay.notices[0]


@pytest.mark.parametrize(
    ("usage", "prompt"),
    [
        (
            {"input_tokens": 20, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 3, "output_tokens": 1},
            123,
        ),
        ({"input_tokens": 20, "cache_read_input_tokens": None, "output_tokens": 1}, 20),
        ({"input_tokens": 20, "input_tokens_details": {"cached_tokens": 8}, "output_tokens": 1}, 20),
        ({"prompt_tokens": 20, "cache_read_input_tokens": 8, "completion_tokens": 1}, 20),
    ],
)
def test_tokens_that_a_cache_held_are_part_of_the_prompt(tmp_path: Path, usage: dict[str, Any], prompt: int) -> None:
    file = jsonl(tmp_path / "t.jsonl", {"timestamp": 1700000000, "response": {"usage": usage}})
    assert load(spec(file, "auto")).columns.prompt_tokens.tolist() == [prompt]


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_columns_inside_objects_are_named_by_their_path(tmp_path: Path, format: str) -> None:
    records = [{"at": {"t": k}, "usage": {"input": 5 + k, "more": {"out": 2}}, "meta": {"s": "a"}} for k in range(2)]
    file = tmp_path / f"t.{format}"
    if format == "parquet":
        parquet.write_table(pa.Table.from_pylist(records), file)
    else:
        jsonl(file, *records)
    named = {"time": "at.t", "prompt_tokens": "usage.input", "output_tokens": "usage.more.out", "session": "meta.s"}
    columns = load(spec(file, format, columns=named)).columns
    assert (columns.prompt_tokens.tolist(), columns.turn.tolist()) == ([5, 6], [0, 1])
    with pytest.raises(UserError, match=r"usage\.none"):
        load(spec(file, format, columns=named | {"prompt_tokens": "usage.none"}))


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("ms", "Europe/Berlin")])
def test_times_of_a_parquet_file_are_what_their_type_says(tmp_path: Path, kind: pa.DataType) -> None:
    times = [datetime(2026, 11, 1, 12, 0, second, 250_000) for second in (0, 3)]
    table = {"t": pa.array(times, pa.timestamp("us")).cast(kind), "in": [5.0, 6.0], "out": [1, 2]}
    parquet.write_table(pa.table(table), tmp_path / "t.parquet")
    assert plan_of(tmp_path / "t.parquet", "auto", columns=COLUMNS).table["at_ns"].to_pylist() == [0, 3_000_000_000]
    with pytest.raises(UserError, match="'t' holds calendar times, not ms"):
        plan_of(tmp_path / "t.parquet", "auto", columns=COLUMNS, time_unit="ms")


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_a_calendar_time_read_as_seconds_names_the_option(tmp_path: Path, format: str) -> None:
    file = tmp_path / "t"
    if format == "csv":
        file.write_text("t,in,out\n2026-11-01 12:00:00,5,1\n")
    else:
        jsonl(file, {"t": "2026-11-01 12:00:00", "in": 5, "out": 1})
    with pytest.raises(UserError, match="--time-unit"):
        load(spec(file, format, columns=COLUMNS))
