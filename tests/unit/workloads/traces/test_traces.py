"""Every reader against the real files: counts, tokens, sharing; and broken input named by line."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from tests.kit.traces import jsonl, plan_of, spec

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.table.columns import NO_TIME
from tailgate.workloads.traces.formats.openai_log import time_ns
from tailgate.workloads.traces.replay import load

# --- logs and files with named columns ------------------------------------------------------------------------


def test_openai_style_logs_are_read_wherever_they_keep_things(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path / "log.jsonl",
        {"timestamp": 1700000000, "model": "m", "user": "u1", "usage": {"prompt_tokens": 10, "completion_tokens": 2}},
        "\n",
        {
            "created_at": "2023-11-14T22:13:21Z",
            "response": {"body": {"model": "m", "usage": {"input_tokens": 20, "output_tokens": 3}}},
        },
        {
            "created": 1700000002500,
            "session_id": "s",
            "request": {"model": "n"},
            "response": {"status_code": 200, "usage": {"prompt_tokens": 30, "completion_tokens": 4}},
        },
        {"created": 1700000003, "session_id": "s", "status": 429, "error": {"message": "slow down"}},
    )
    replay = load(spec(file, "openai"))
    assert replay.columns.at_ns.tolist() == [0, 1_000_000_000, 2_500_000_000]
    assert replay.columns.prompt_tokens.tolist() == [10, 20, 30]
    assert replay.classes == ("m", "n") and replay.tenants[0] == "u1"
    assert "1 requests without prompt tokens (failed) left out" in replay.notices[0]


@pytest.mark.parametrize(
    "when", [1700000000, 1700000000.0, 1700000000000, "1700000000", "2023-11-14T22:13:20Z", "2023-11-14 22:13:20"]
)
def test_times_are_told_by_their_size_or_their_form(when: Any) -> None:
    assert time_ns(when) == 1_700_000_000_000_000_000


COLUMNS = {"time": "when", "prompt_tokens": "in", "output_tokens": "out", "session": "chat"}
RECORDS = [
    {"when": 5.0, "in": 10, "out": 1, "chat": "a"},
    {"when": 6.5, "in": 20, "out": 2, "chat": "b"},
    {"when": 7.0, "in": 30, "out": 3, "chat": "a"},
]


def named(tmp_path: Path, kind: str) -> Path:
    file = tmp_path / f"log.{kind}"
    if kind == "csv":
        file.write_text(
            "when,chat,in,out\n" + "".join(f"{r['when']},{r['chat']},{r['in']},{r['out']}\n" for r in RECORDS)
        )
    elif kind == "jsonl":
        jsonl(file, *RECORDS)
    else:
        parquet.write_table(pa.Table.from_pylist(RECORDS), file)
    return file


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_any_file_is_read_by_the_names_of_its_columns(tmp_path: Path, kind: str) -> None:
    columns = load(spec(named(tmp_path, kind), kind, columns=COLUMNS)).columns
    assert columns.at_ns.tolist() == [0, 1_500_000_000, 2_000_000_000]
    assert columns.prompt_tokens.tolist() == [10, 20, 30]
    assert (columns.session.tolist(), columns.turn.tolist()) == ([0, 1, 0], [0, 0, 1])


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_named_column_that_isnt_there_lists_those_that_are(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError, match=r"'into'.*when"):
        load(spec(named(tmp_path, kind), kind, columns=COLUMNS | {"prompt_tokens": "into"}))


@pytest.mark.parametrize(
    ("columns", "says"),
    [({}, "name the columns of prompt_tokens"), (COLUMNS | {"sesion": "x"}, "did you mean 'session'")],
)
def test_columns_that_are_unnamed_or_unknown_are_errors(columns: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        spec(Path("x.csv"), "csv", columns=columns)


MOONCAKE = {"timestamp": 1, "input_length": 4, "output_length": 1, "hash_ids": [1]}
USAGE = {"prompt_tokens": 10, "completion_tokens": 2}


@pytest.mark.parametrize(
    ("format", "line", "says"),
    [
        ("mooncake", json.dumps(MOONCAKE | {"input_length": -4}), "input_length -4 is negative"),
        ("mooncake", json.dumps(MOONCAKE | {"input_length": 4.5}), "not a whole number"),
        ("mooncake", json.dumps(MOONCAKE | {"hash_ids": 7}), "not a list of block ids"),
        ("mooncake", json.dumps(MOONCAKE | {"timestamp": "x"}), "'x' is not a number"),
        (
            "mooncake",
            '{"timestamp": 1, "input_length": 4}',
            "there is no 'output_length'; it has: timestamp, input_length",
        ),
        ("mooncake", '{"timestamp": 1,', "is not JSON"),
        ("mooncake", "[1]", "is not a JSON object"),
        ("openai", '{"timestamp": 1700000000}', "no usage"),
        ("openai", json.dumps({"usage": USAGE}), "no time"),
        ("openai", json.dumps({"timestamp": "soon", "usage": USAGE}), "can't be read"),
    ],
)
def test_a_broken_line_is_named_or_skipped_and_counted(tmp_path: Path, format: str, line: str, says: str) -> None:
    good = {
        "mooncake": MOONCAKE,
        "openai": {"timestamp": 1700000000, "usage": USAGE},
    }[format]
    file = jsonl(tmp_path / "t.jsonl", good, line + "\n", good)
    with pytest.raises(UserError, match=r"t\.jsonl, line 2: ") as error:
        load(spec(file, format))
    assert says in str(error.value)
    replay = load(spec(file, format, skip_bad_rows=True))
    assert len(replay.columns) == 2 and "1 broken rows skipped" in replay.notices[0]


# --- rate -------------------------------------------------------------------------------------------------------


def test_what_hardly_any_prompt_lacks_does_not_keep_requests_together(tmp_path: Path) -> None:
    rows = [
        {"timestamp": k, "input_length": 1536, "output_length": 1, "hash_ids": [0, 1 + k % 2, 10 + k % 400]}
        for k in range(2000)
    ]
    columns = load(spec(jsonl(tmp_path / "t.jsonl", *rows), "mooncake", rate=500)).columns
    lists = [tuple(ids) for ids in columns.prefix_blocks.to_pylist()]
    assert len(lists) == pytest.approx(1000, rel=0.2)
    assert {lists.count(ids) for ids in set(lists)} == {5}


def test_the_earliest_row_is_time_zero_where_the_clock_went_backwards(tmp_path: Path) -> None:
    names = {"columns": {"time": "at", "prompt_tokens": "in", "output_tokens": "out"}}
    file = tmp_path / "t.csv"
    file.write_text("at,in,out\n100,1,1\n94,2,1\n130,3,1\n")
    table = plan_of(file, "csv", **names).table
    assert table["at_ns"].to_pylist() == [0, 6 * 10**9, 36 * 10**9]
    assert table["prompt_tokens"].to_pylist() == [2, 1, 3]
    assert set(table["phase"].to_pylist()) == {"measure"}
    assert plan_of(file, "csv", **names, duration="31s").table.num_rows == 2


def test_a_header_with_blanks_is_read(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text('at, in,"out"\n1,2,3\n')
    named = {"time": "at", "prompt_tokens": "in", "output_tokens": "out"}
    assert plan_of(file, "csv", columns=named).table["output_tokens"].to_pylist() == [3]


@pytest.mark.parametrize("name", ["t.csv.gz", "t.jsonl.gz"])
def test_a_file_that_ends_too_early_is_said(tmp_path: Path, name: str) -> None:
    line = '{"timestamp": 1, "input_length": 5, "output_length": 5, "hash_ids": []}\n' if "json" in name else "1,2,3\n"
    rng = np.random.default_rng(1)
    text = ("" if "json" in name else "at,in,out\n") + "".join(line + " " * int(k) for k in rng.integers(0, 9, 5000))
    (tmp_path / name).write_bytes(gzip.compress(text.encode())[:-600])
    columns = {} if "json" in name else {"columns": {"time": "at", "prompt_tokens": "in", "output_tokens": "out"}}
    with pytest.raises(UserError, match=name):
        plan_of(tmp_path / name, "mooncake" if "json" in name else "csv", **columns, skip_bad_rows=True)


def test_more_block_ids_than_a_prompt_has_blocks_is_a_broken_row(tmp_path: Path) -> None:
    row = {"timestamp": 0, "input_length": 4, "output_length": 1, "hash_ids": [1, 2, 3]}
    with pytest.raises(UserError, match="3 hash_ids for 4 tokens"):
        plan_of(jsonl(tmp_path / "t.jsonl", row), "mooncake")


def test_broken_steps_of_several_files_are_counted_each(tmp_path: Path) -> None:
    step = {"t": 0, "in": 64, "out": 1, "hash_ids": [1]}
    for k in range(3):
        (tmp_path / f"trace_{k}.json").write_text(json.dumps({"requests": [step, {**step, "in": -1}]}))
    notices = load(spec(tmp_path, "kv-cache-tester", skip_bad_rows=True)).notices
    assert any("3 broken rows" in notice for notice in notices)


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_a_request_without_a_time_needs_one_of_its_session_before_it(tmp_path: Path, format: str) -> None:
    file = tmp_path / f"t.{format}"
    if format == "csv":
        file.write_text("at,pause,who,in,out\n0,,a,1,1\n,2,a,1,1\n,3,b,1,1\n")
    else:
        row = {"at": None, "pause": 2, "who": "a", "in": 1, "out": 1}
        jsonl(file, row | {"at": 0}, row, row | {"who": "b"})
    named = {"time": "at", "think": "pause", "session": "who", "prompt_tokens": "in", "output_tokens": "out"}
    with pytest.raises(UserError, match="has no time, and the request with one before it is of another") as error:
        load(spec(file, format, columns=named))
    assert ("line 4" if format == "csv" else "line 3") in error.value.where
    columns = load(spec(file, format, columns=named, skip_bad_rows=True)).columns
    assert columns.at_ns.tolist() == [0, NO_TIME] and columns.think_ns.tolist() == [0, 2_000_000_000]


def test_copies_beyond_any_memory_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("at,in,out\n" + "".join(f"{k},1,1\n" for k in range(50)))
    named = {"time": "at", "prompt_tokens": "in", "output_tokens": "out"}
    with pytest.raises(UserError, match="more than 50,000,000"):
        plan_of(file, "csv", columns=named, rate="10000000/s")


def test_a_plan_of_a_long_trace_takes_memory_for_what_differs_between_requests_only(tmp_path: Path) -> None:
    import tracemalloc

    n = 200_000
    file = tmp_path / "t.csv"
    file.write_text("at,in,out\n" + "".join(f"{k / 100},{1 + k % 997},{1 + k % 97}\n" for k in range(n)))
    columns = {"time": "at", "prompt_tokens": "in", "output_tokens": "out"}
    plan_of(file, "csv", columns=columns, duration="60s")  # what is imported on the way is not of the plan
    tracemalloc.start()
    made = plan_of(file, "csv", columns=columns)
    peak = tracemalloc.get_traced_memory()[1]  # NumPy's: twelve columns of 8 bytes, copied once, would be over 200
    tracemalloc.stop()
    assert made.table.num_rows == n and peak / n < 180
