"""Whatever a file holds, it is read or refused in words (UserError): nothing about an input is unforeseen."""

import gzip
import json
import math
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from tests.kit.traces import plan_of

from tailgate.workloads.common.errors import UserError

COLUMNS = {
    "time": "t", "prompt_tokens": "in", "output_tokens": "out", "session": "s", "think": "p", "class": "c",
    "tenant": "n", "blocks": "b",
}  # fmt: skip
NAMED = {"columns": COLUMNS, "block_tokens": 64}
USAGE = {"prompt_tokens": 5, "completion_tokens": 2}
RECORDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mooncake": ({"timestamp": 1, "input_length": 5, "output_length": 2, "hash_ids": [1]}, {}),
    "ragpulse": (
        {
            "timestamp": "1.5", "input_length": 5, "output_length": 2, "session_id": "s",
            "hash_ids": {"sys_prompt": [1], "history": [2]},
        },
        {},
    ),
    "openai": (
        {"timestamp": 1700000000, "usage": USAGE, "session_id": "s", "model": "m", "user": "u", "status": 200,
         "request": {"messages": []}, "response": {"usage": USAGE}, "error": None},
        {},
    ),
    "jsonl": ({"t": 1.0, "in": 5, "out": 2, "s": "a", "p": 1.0, "c": "x", "n": "y", "b": [1]}, NAMED),
}  # fmt: skip
VALUES = [
    None, True, -1, 0, 2**31, 2**63, 2**64, 10**30, 1.5, -0.0, 1e300, math.nan, math.inf, "", " ", "7", "1,024",
    "374.0",
    "1_000", "1e400", "nan", "inf", "0x10", "12:00", "9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00+23:59",
    "\u0663", "\u00b2", "\ud800", [], [1, "a"], [[1]], [2**64], [-1], [1.5], [None], {},
    {"a": {"b": 1}}, {"sys_prompt": 7},
    {"prompt_tokens": None}, {"input_tokens": 2, "output_tokens": 1, "cache_read_input_tokens": "x"},
]  # fmt: skip


def _refused_or_read(file: Path, format: str, **more: Any) -> None:
    for skip in (False, True):
        try:
            plan_of(file, format, skip_bad_rows=skip, **more)
        except UserError:
            continue


def _changed() -> Iterator[tuple[str, str]]:
    for format, (record, _) in RECORDS.items():
        yield from ((format, key) for key in record)


@pytest.mark.parametrize(("format", "key"), list(_changed()))
def test_any_value_in_a_record_is_read_or_refused(tmp_path: Path, format: str, key: str) -> None:
    record, more = RECORDS[format]
    for k, value in enumerate(VALUES):
        file = tmp_path / f"{k}.jsonl"
        lines = [record, record | {key: value}, {name: kept for name, kept in record.items() if name != key}]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        _refused_or_read(file, format, **more)


@pytest.mark.parametrize("key", ["t", "in", "out", "s", "p", "c", "n", "extra"])
@pytest.mark.parametrize("unit", ["s", "calendar"])
def test_any_text_in_a_csv_file_is_read_or_refused(tmp_path: Path, key: str, unit: str) -> None:
    named = {name: column for name, column in COLUMNS.items() if column != "b"}
    row = {
        "t": "1" if unit == "s" else "2023-11-16 18:15:46",
        "in": "5",
        "out": "2",
        "s": "a",
        "p": "1",
        "c": "",
        "n": "",
    }
    texts = [str(value).encode("utf-8", "replace").decode() for value in VALUES] + ['"', '"a', 'a"b', "a,b", "\r", "\0"]
    for k, text in enumerate(texts):
        file = tmp_path / f"{k}.csv"
        rows = [row, row | {key: f'"{text}"' if "," in text else text}]
        lines = [",".join(str(one[name]) for name in row) for one in rows]
        file.write_text(",".join(row) + "\n" + "\n".join(lines), encoding="utf-8")
        _refused_or_read(file, "csv", columns=named, time_unit=unit)


@pytest.mark.parametrize("key", ["t", "in", "out", "s", "b"])
@pytest.mark.parametrize(
    "values",
    [
        pa.array([None, None]), pa.array([1, None]), pa.array([1.0, math.nan]), pa.array(["1", "x"]),
        pa.array([Decimal("1.5"), Decimal(2)]), pa.array([[1], [2]]), pa.array([{"a": 1}, {"a": None}]),
        pa.array([1, 2], pa.timestamp("ns")), pa.array([1, 2**40], pa.timestamp("s", "Europe/Berlin")),
        pa.array([1, 2], pa.date32()), pa.array([1, 2], pa.time32("s")), pa.array([1, 2], pa.duration("ns")),
        pa.array([b"a", b"\xff"]), pa.array(["a", "b"]).dictionary_encode(), pa.array([True, False]),
        pa.array([1, 2**64 - 1], pa.uint64()), pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
    ],
)  # fmt: skip
def test_any_column_of_a_parquet_file_is_read_or_refused(tmp_path: Path, key: str, values: pa.Array) -> None:
    table = {"t": pa.array([1.0, 2.0]), "in": pa.array([5, 6]), "out": pa.array([1, 2]), "s": pa.array(["a", "b"]),
             "b": pa.array([[1], [2]])} | {key: values}  # fmt: skip
    parquet.write_table(pa.table(table), tmp_path / "t.parquet")
    named = {name: column for name, column in COLUMNS.items() if column in table}
    for unit in (None, "ns", "calendar"):
        _refused_or_read(tmp_path / "t.parquet", "parquet", columns=named, block_tokens=64, time_unit=unit)


NAMES = ["t.jsonl", "t.csv", "t.parquet", "t.jsonl.gz", "t.json", "t.json.gz", "t.csv.gz", "t.bin", "t"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "data",
    [
        b"", b"\n", b"\xef\xbb\xbf", b"\xff\xfe{\0}\0",
        b"[]", b"{}", b"null", b"[\n{}\n]", b"{" * 3000, b"[" * 200_000,
        b"\xff\xff\xff", b"PAR1PAR1", b"PAR1" + b"\0" * 50 + b"PAR1", b"a,b\n1,2\n", b"a,a\n1,2\n", b",\n,\n",
        b"\"a\nb\",c\n1,2",
        b"t;in;out\n1;2;3\n", b"\x1f\x8b", gzip.compress(b"t,in\n1,2\n", mtime=0)[:-6], b'{"input_length": 5}\n',
        b'{"requests": [7], "block_size": 64}',
        b'{"requests": [{"type": "subagent", "t": 0, "requests": 7}], "block_size": 64}',
        b'{"requests": [{"t": 1e300, "in": 5, "out": 1, "hash_ids": [9223372036854775808]}], "block_size": 64}',
        b'{"requests": [{"t": 0, "in": 5, "out": 1, "hash_ids": [[1], [2]], "think_time": 1e300}], "block_size": 64}',
        b'{"timestamp": NaN, "usage": {"prompt_tokens": Infinity, "completion_tokens": 1}}', b"NaN" + b"[" * 100_000,
    ],
)  # fmt: skip
def test_any_bytes_under_any_name_are_read_or_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    named = {"prompt_tokens": "in", "output_tokens": "out"}
    for format in ("auto", "azure", "burstgpt", "mooncake", "ragpulse", "openai", "kv-cache-tester", "servegen"):
        _refused_or_read(tmp_path / name, format)
    for format in ("auto", "csv", "jsonl", "parquet"):
        _refused_or_read(tmp_path / name, format, columns=named)


@pytest.mark.parametrize(
    "trace", [b"0,nan,1,Gamma,1,1", b"0,inf,1,Gamma,1,1", b"0,1e30,1,Gamma,1,1", b"nan,1,1,,1,1", b"0,1,1,Gamma,0,1",
              b"0,1,1,Gamma,-1,1", b"0,1,1,Weibull,nan,1", b"0,1,1", b"0,1,1,Pareto,1,1", b"\xff\xfe", b""]
)  # fmt: skip
def test_any_client_of_servegen_is_read_or_refused(tmp_path: Path, trace: bytes) -> None:
    (tmp_path / "chunk-0-trace.csv").write_bytes(trace)
    (tmp_path / "chunk-0-dataset.json").write_text('{"0": {"input_tokens": "{5: 1.0}", "output_tokens": "{2: 1.0}"}}')
    _refused_or_read(tmp_path, "servegen", duration="60s")


@pytest.mark.parametrize(
    "lengths", ["[1, 2]", "{1: 'a'}", "{'a': 1}", "{1.5: 1}", "{-5: 1}", "{5: -1}", "{5: 0}", "{5: 1e999}", "7", "{",
                "f()", "{5: None}", "{10**30: 1}", "{1000000000000000000000: 1}", "(" * 500, "{2000000000: 1.0}",
                None, 7]
)  # fmt: skip
def test_any_lengths_of_servegen_are_read_or_refused(tmp_path: Path, lengths: Any) -> None:
    (tmp_path / "chunk-0-trace.csv").write_text("0,1,1,Gamma,1,1\n")
    content = {"0": {"input_tokens": lengths, "output_tokens": "{2: 1.0}"}}
    (tmp_path / "chunk-0-dataset.json").write_text(json.dumps(content))
    _refused_or_read(tmp_path, "servegen", duration="60s")
