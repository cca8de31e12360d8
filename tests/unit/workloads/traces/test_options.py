"""An option that a trace's format doesn't heed is refused, whether the format was said or seen from the file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from pydantic import ValidationError
from tests.kit.traces import jsonl, plan_of, spec

from tailgate.harness.cli import main
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.config.workload import WorkloadSpec
from tailgate.workloads.plan.plan import make_plan, read_plan
from tailgate.workloads.traces.replay import load

MOONCAKE = {"timestamp": 1, "input_length": 5, "output_length": 2, "hash_ids": [1]}
LENGTHS = {"prompt_tokens": "in", "output_tokens": "out"}


@pytest.mark.parametrize("format", ["mooncake", "auto"])
@pytest.mark.parametrize("option", [{"time_unit": "s"}, {"time_unit": "calendar"}, {"block_tokens": 64}])
def test_what_describes_columns_is_refused_for_a_format_of_its_own(
    tmp_path: Path, format: str, option: dict[str, Any]
) -> None:
    file = jsonl(tmp_path / "t.jsonl", MOONCAKE)
    with pytest.raises((UserError, ValidationError), match=f"`{next(iter(option))}` can't be used with mooncake"):
        load(spec(file, format, **option))


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"time_unit": "ms"}, "`time_unit` can't be used without times"),
        ({"speed": 2}, "`speed` can't be used without times"),
        ({"start": "5s", "duration": "5s"}, "`start` and `duration` can't be used without times"),
        ({"block_tokens": 64}, "doesn't name"),
        ({"rate_by": "thin"}, "give a `rate`"),
    ],
)
def test_what_a_file_of_lengths_cannot_heed_is_refused(option: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        spec(Path("t.csv"), "csv", columns=LENGTHS, **option)


@pytest.mark.parametrize("name", ["correlation", "sessions", "prefix", "priority"])
def test_what_would_change_a_traces_requests_is_refused(name: str) -> None:
    value: Any = {"correlation": 0.5, "sessions": {"turns": 3}, "prefix": {"system_tokens": 64}, "priority": 1}[name]
    with pytest.raises(ValidationError, match=f"`trace` and `{name}` exclude each other"):
        WorkloadSpec.model_validate({"trace": {"file": "t.jsonl"}, name: value})


def test_lengths_alone_come_at_random_at_the_rate_asked_for_each_once(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "t.jsonl", *({"in": k + 1, "out": 1} for k in range(400)))
    plan = plan_of(file, "jsonl", columns=LENGTHS, rate="5/s")
    assert plan.table["prompt_tokens"].to_pylist() == list(range(1, 401))
    assert plan.span_s == pytest.approx(80, rel=0.2)


def test_bodies_are_replayed_from_a_log_only_and_that_is_said(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"in": [5], "out": [1], "t": [0]}), tmp_path / "t.parquet")
    jsonl(tmp_path / "t.jsonl", MOONCAKE)
    for file, more in (("t.parquet", {"columns": {**LENGTHS, "time": "t"}}), ("t.jsonl", {})):
        data = {"trace": {"file": tmp_path / file, **more}, "content": "replay"}
        with pytest.raises((UserError, ValidationError), match="in OpenAI's shape"):
            make_plan(WorkloadSpec.model_validate(data), 1)


def test_parquet_without_named_columns_lists_them(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"a": [5], "u": [{"in": 1}]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"it has: a, u\.in\. Name them \(--columns\)"):
        plan_of(tmp_path / "t.parquet", "auto")


def test_a_rate_is_that_of_the_arrivals_where_they_replace_a_traces_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = jsonl(tmp_path / "t.jsonl", *(MOONCAKE | {"timestamp": 100 * k} for k in range(200)))
    workload: dict[str, Any] = {"trace": {"file": str(file)}, "arrivals": {"rate": 2, "process": "constant"}}
    (tmp_path / "s.yaml").write_text(json.dumps({"workload": workload}))
    assert (
        main(["workload", "plan", str(tmp_path / "s.yaml"), "--rate", "5/s", "-o", str(tmp_path / "p"), "--quiet"]) == 0
    )
    assert np.diff(read_plan(tmp_path / "p")["at_ns"].to_numpy()) == pytest.approx(2e8, abs=10)
    with pytest.raises(ValidationError, match=r"`trace\.rate` and `arrivals` exclude each other"):
        WorkloadSpec.model_validate(workload | {"trace": {"file": file, "rate": 3}})
