"""Plan and spool become one record per planned row, however the spool was cut."""

import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.kit.fabricate import MS, Row, S, client_rows, fabricate, spool_rows, write_stream

from tailgate.loadgen.records import ARRIVALS_SCHEMA, CLIENT_SCHEMA, REQUESTS_SCHEMA, SPOOL_SCHEMA
from tailgate.reports.rundir.collect import collect
from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.rundir.spool import is_closed, whole_batches
from tailgate.workloads.common.errors import UserError

ROWS = [Row(at=100.0 * i, gaps=[10.0, 20.0]) for i in range(20)]


def collected(run_dir):
    collect(run_dir)
    return pq.read_table(run_dir / "requests.parquet").to_pylist()


def test_every_file_has_the_schema_that_was_agreed(tmp_path):
    run_dir = fabricate(tmp_path / "run", ROWS)
    collect(run_dir)
    assert pq.read_schema(run_dir / "requests.parquet").equals(REQUESTS_SCHEMA)
    assert pq.read_schema(run_dir / "arrivals.parquet").equals(ARRIVALS_SCHEMA)
    assert pq.read_schema(run_dir / "client.parquet").equals(CLIENT_SCHEMA)


def test_a_record_joins_what_was_planned_and_what_was_reported(tmp_path):
    row = Row(at=250.0, ttft=40.0, gaps=[10.0], prompt_tokens=33, klass="rag", tenant="b", session=7)
    (record,) = collected(fabricate(tmp_path / "run", [row]))
    assert (record["class"], record["tenant"], record["session"]) == ("rag", "b", 7)
    assert (record["prompt_tokens_planned"], record["prompt_tokens"]) == (33, 33)
    assert (record["scheduled_ns"], record["first_token_ns"]) == (250 * MS, 290 * MS)
    arrivals = pq.read_table(tmp_path / "run" / "arrivals.parquet").to_pylist()
    assert arrivals == [{"index": 0, "arrivals_us": [0, 10_000], "censored": []}]


def test_a_row_reported_twice_counts_once_and_the_first_report_wins(tmp_path):
    run_dir = fabricate(tmp_path / "run", ROWS)
    records = spool_rows(ROWS)
    again = {**records[3], "status": "timeout", "arrivals_us": [0, 1, 2, 3]}
    write_stream(run_dir / "spool" / "injector-0.arrows", [*records, again, again], SPOOL_SCHEMA, batch=7)
    found = collected(run_dir)
    assert [r["index"] for r in found] == list(range(20))
    assert found[3]["status"] == "ok"
    assert len(pq.read_table(run_dir / "arrivals.parquet")) == 20


def test_rows_nobody_reported_are_not_sent_if_every_injector_came_to_its_end(tmp_path):
    rows = [Row(at=0.0), Row(at=500.0, reported=False)]
    found = collected(fabricate(tmp_path / "run", rows))
    assert [r["status"] for r in found] == ["ok", "not_sent"]
    assert found[1]["scheduled_ns"] == 500 * MS


def test_rows_of_an_injector_that_died_are_lost_up_to_the_end_of_the_load(tmp_path):
    rows = [Row(at=1000.0 * i, session=i, reported=i != 3) for i in range(8)]
    run_dir = fabricate(tmp_path / "run", rows, state="failed", ended_ns=5 * S, client=client_rows([], 4))
    stream = run_dir / "spool" / "injector-0.arrows"
    stream.write_bytes(stream.read_bytes()[:-8])  # its end marker: the process was killed
    records = spool_rows([Row(at=1000.0 * i, reported=i < 3) for i in range(8)])
    write_stream(stream, records, SPOOL_SCHEMA)
    stream.write_bytes(stream.read_bytes()[:-8])
    assert [r["status"] for r in collected(run_dir)] == ["ok"] * 3 + ["lost"] * 3 + ["not_sent"] * 2


def test_only_the_dead_injectors_rows_are_lost(tmp_path):
    rows = [Row(at=100.0 * i, session=i, reported=i % 2 == 1) for i in range(6)]
    run_dir = fabricate(tmp_path / "run", rows, injectors=2, ended_ns=10 * S)
    (run_dir / "spool" / "injector-0.arrows").rename(run_dir / "spool" / "injector-1.arrows")
    found = collected(run_dir)
    assert [r["status"] for r in found] == ["lost", "ok"] * 3


def test_later_turns_of_a_lost_session_are_lost_with_it(tmp_path):
    rows = [Row(at=0.0, session=0, reported=False), Row(at=None, session=0, turn=1, reported=False)]
    run_dir = fabricate(tmp_path / "run", rows, ended_ns=10 * S)
    (run_dir / "spool" / "injector-0.arrows").unlink()
    assert [r["status"] for r in collected(run_dir)] == ["lost", "lost"]


def test_later_turns_that_never_got_a_time_are_not_sent(tmp_path):
    rows = [Row(at=0.0, session=0, status="reset"), Row(at=None, session=0, turn=1, reported=False)]
    assert [r["status"] for r in collected(fabricate(tmp_path / "run", rows))] == ["reset", "not_sent"]


def test_a_closed_loop_has_records_only_of_the_rows_that_were_started(tmp_path):
    rows = [Row(at=0.0), Row(at=100.0), Row(at=None, reported=False)]
    found = collected(fabricate(tmp_path / "run", rows, loop="closed"))
    assert [r["index"] for r in found] == [0, 1]


def test_a_row_without_a_planned_time_belongs_to_the_phase_in_which_it_began(tmp_path):
    rows = [Row(at=100.0), Row(at=2500.0), Row(at=99_000.0)]
    run_dir = fabricate(tmp_path / "run", rows, loop="closed", warmup=2.0, seconds=5.0)
    assert [r["phase"] for r in collected(run_dir)] == ["warmup", "measure", "cooldown"]


def test_records_of_another_plan_are_refused(tmp_path):
    run_dir = fabricate(tmp_path / "run", ROWS)
    stray = [{**record, "index": 10_000 + record["index"]} for record in spool_rows(ROWS)]
    write_stream(run_dir / "spool" / "injector-0.arrows", stray, SPOOL_SCHEMA)
    with pytest.raises(UserError, match="20 records belong to no planned row"):
        collect(run_dir)


def test_a_missing_plan_is_said(tmp_path):
    run_dir = fabricate(tmp_path / "run", ROWS)
    (run_dir / "plan.parquet").unlink()
    with pytest.raises(UserError, match=r"plan\.parquet: the plan is missing"):
        collect(run_dir)


def test_the_spool_goes_when_its_contents_are_safe_and_checksums_stay(tmp_path):
    run_dir = fabricate(tmp_path / "run", ROWS)
    collect(run_dir)
    assert not (run_dir / "spool").exists()
    assert sorted(Manifest.load(run_dir).checksums) == [
        "arrivals.parquet",
        "client.parquet",
        "plan.parquet",
        "requests.parquet",
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_a_stream_cut_at_any_byte_gives_every_whole_batch_before_the_cut(tmp_path, share):
    path = tmp_path / "injector-0.arrows"
    records = spool_rows(ROWS)
    ends = []
    for batches in range(1, 5):
        write_stream(path, records[: 5 * batches], SPOOL_SCHEMA, batch=5)
        ends.append(path.stat().st_size - 8)  # without the end marker
    whole = path.read_bytes()
    cut = round(share * len(whole))
    path.write_bytes(whole[:cut])
    indices = [i for batch in whole_batches(path) for i in batch["index"].to_pylist()]
    assert indices == list(range(5 * sum(end <= cut for end in ends)))
    assert is_closed(path) == (cut == len(whole))


def test_an_arrival_list_survives_the_way_through_the_files_bit_by_bit(tmp_path):
    rng = np.random.default_rng(1)
    rows = [Row(at=10.0 * i, gaps=list(rng.integers(0, 5000, rng.integers(0, 40)) / 8)) for i in range(300)]
    run_dir = fabricate(tmp_path / "run", rows)
    collect(run_dir)
    table = pq.read_table(run_dir / "arrivals.parquet")
    assert table["arrivals_us"].to_pylist() == [r["arrivals_us"] for r in spool_rows(rows)]


def test_temporary_files_do_not_stay(tmp_path):
    run_dir = fabricate(tmp_path / "run", ROWS)
    collect(run_dir)
    assert not [name for name in os.listdir(run_dir) if name.startswith(".")]
