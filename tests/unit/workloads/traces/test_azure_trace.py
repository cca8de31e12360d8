import json
from pathlib import Path

import numpy as np
import pytest

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.config.workload import TraceSpec, WorkloadSpec
from tailgate.workloads.plan.plan import make_plan
from tailgate.workloads.table.columns import Columns
from tailgate.workloads.traces.formats import azure
from tailgate.workloads.traces.replay import load
from tailgate.workloads.traces.rows import Faults

HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens"
ROWS = [
    "2023-11-16 18:15:46.6805900,374,44",
    "2023-11-16 18:15:50.9951690,396,109",
    "2023-11-16 18:15:51.2225670,879,55",
]


def written(path: Path, *lines: str, end: str = "\n", last: str = "") -> Path:
    path.write_bytes((end.join([HEAD, *lines]) + last).encode())
    return path


def spec(file: Path, **more: object) -> TraceSpec:
    return TraceSpec.model_validate({"file": file, "format": "azure", **more})


def loaded(trace: TraceSpec) -> tuple[Columns, list[str]]:
    replay = load(trace)
    return replay.columns, replay.notices


@pytest.mark.parametrize("file", ["code.csv", "conv.csv"])
def test_the_real_files_have_all_their_records_and_tokens(traces: Path, file: str) -> None:
    path = traces / "azure-2023" / f"AzureLLMInferenceTrace_{file}"
    manifest = {entry["path"]: entry["records"] for entry in json.loads((traces / "MANIFEST.json").read_text())}
    stats = json.loads((traces / "stats.json").read_text())[f"azure_2023_{file.removesuffix('.csv')}"]
    pieces = list(azure.read(path, Faults(path)))
    assert sum(map(len, pieces)) == manifest[f"azure-2023/{path.name}"]
    total = sum(int(piece.prompt_tokens.sum()) for piece in pieces)
    assert total == pytest.approx(stats["input"]["mean"] * stats["input"]["n"], abs=0.001 * stats["input"]["n"])
    total = sum(int(piece.output_tokens.sum()) for piece in pieces)
    assert total == pytest.approx(stats["output"]["mean"] * stats["output"]["n"], abs=0.001 * stats["output"]["n"])


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "\n", "\r\n", "\n\n"])
def test_line_ends_and_a_missing_final_newline_change_nothing(tmp_path: Path, end: str, last: str) -> None:
    columns, notices = loaded(spec(written(tmp_path / "t.csv", *ROWS, end=end, last=last)))
    assert columns.at_ns.tolist() == [0, 4_314_579_000, 4_541_977_000]
    assert columns.prompt_tokens.tolist() == [374, 396, 879]
    assert notices == []


def test_times_of_2024_with_a_zone_and_with_or_without_a_fraction_are_read(tmp_path: Path) -> None:
    file = written(tmp_path / "t.csv", "2024-05-12 00:00:00+00:00,5,1", "2024-05-12 00:00:00.003948+00:00,5,1")
    assert loaded(spec(file))[0].at_ns.tolist() == [0, 3_948_000]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("2023-11-16 18:15:52,abc,1", "ContextTokens 'abc' is not a number"),
        ("2023-11-16 18:15:52,-5,1", "ContextTokens '-5' is negative"),
        ("2023-11-16 18:15:52,0,1", "ContextTokens '0' is below 1"),
        ("2023-11-16 18:15:52,999999999,1", "is above 100,000,000"),
        ("yesterday,5,1", "TIMESTAMP 'yesterday' can't be read"),
        ("2023-11-16 18:15:52,5", "2 columns where the header has 3"),
        ("2023-11-16 18:15:52,5,1,9", "4 columns where the header has 3"),
        ("2023-11-16 18:15:52,5,", "GeneratedTokens '' is empty"),
    ],
)
def test_a_broken_row_is_named_by_file_and_line_or_skipped_and_counted(tmp_path: Path, row: str, says: str) -> None:
    file = written(tmp_path / "t.csv", *ROWS[:2], "", row, ROWS[2])
    with pytest.raises(UserError, match=r"t\.csv, line 5: ") as error:
        load(spec(file))
    assert says in str(error.value) and "--skip-bad-rows" in str(error.value)
    columns, notices = loaded(spec(file, skip_bad_rows=True))
    assert columns.prompt_tokens.tolist() == [374, 396, 879]
    assert notices == [f"t.csv: 1 broken rows skipped (the first: line 5: {notices[0].split('line 5: ')[1]}"]


def test_a_missing_column_lists_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("TIMESTAMP,Tokens\n1,2\n")
    with pytest.raises(UserError, match=r"no column 'ContextTokens', 'GeneratedTokens'.* It has: TIMESTAMP, Tokens"):
        load(spec(tmp_path / "t.csv"))


def test_a_missing_an_empty_and_a_binary_file_say_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.csv: No such file or directory$"):
        load(spec(tmp_path / "absent.csv"))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(UserError, match="empty"):
        load(spec(tmp_path / "empty.csv"))
    (tmp_path / "binary.csv").write_bytes(b"PK\x03\x04\x00\x00\x00")
    with pytest.raises(UserError, match="binary"):
        load(spec(tmp_path / "binary.csv"))


def test_a_slice_starts_at_its_start_and_speed_compresses_it(tmp_path: Path) -> None:
    file = written(tmp_path / "t.csv", *ROWS)
    assert loaded(spec(file, start="4s", duration="500ms"))[0].at_ns.tolist() == [314_579_000]
    assert loaded(spec(file, start="4s", speed=2))[0].at_ns.tolist() == [157_289_500, 270_988_500]


def test_an_empty_slice_says_how_long_the_trace_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"slice from 600 s for 10 s is empty.*holds 4\.5 s"):
        load(spec(written(tmp_path / "t.csv", *ROWS), start="10m", duration="10s"))


def test_a_clock_that_goes_backwards_is_sorted_counted_and_said(tmp_path: Path) -> None:
    columns, notices = loaded(spec(written(tmp_path / "t.csv", ROWS[0], ROWS[2], ROWS[1])))
    assert columns.prompt_tokens.tolist() == [374, 396, 879]
    assert "backwards 1 times" in notices[0]


def test_a_replayed_trace_is_the_trace(tmp_path: Path) -> None:
    workload = WorkloadSpec(trace=spec(written(tmp_path / "t.csv", *ROWS)))
    table = make_plan(workload, 7).table
    assert table["at_ns"].to_pylist() == [0, 4_314_579_000, 4_541_977_000]
    assert table["output_tokens"].to_pylist() == [44, 109, 55]
    assert np.unique(table["content_seed"].to_numpy()).size == 3
