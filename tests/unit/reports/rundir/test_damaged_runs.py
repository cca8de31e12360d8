"""A run directory that is not what it was: said, never repaired by destroying, and what can be read is read."""

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.kit.fabricate import Row, fabricate

from tailgate.reports.build import build
from tailgate.reports.documents.run.write import export
from tailgate.reports.rundir.collect import collect
from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.summary.summary import stored_summary, summarize
from tailgate.workloads.common.errors import UserError

ROWS = [Row(at=10.0 * i, gaps=[20.0] * 4) for i in range(400)]
PRICE = {"gpus": {"type": "l4", "price_per_hour": 36.0}}


def contents(run_dir):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in run_dir.iterdir() if path.is_file()}


def rewrite(run_dir, name, change):
    """Write a changed table in a file's place, and its checksum with it: as a run of another version would be."""
    path = run_dir / name
    pq.write_table(change(pq.read_table(path)), path)
    manifest = Manifest.load(run_dir)
    sums = manifest.checksums | {name: hashlib.sha256(path.read_bytes()).hexdigest()}
    manifest.model_copy(update={"checksums": sums}).save(run_dir)


def flip(path, share=0.5):
    """Damage some bytes of the pages, not of the footer."""
    data = bytearray(path.read_bytes())
    at = 4 + round(share * (len(data) // 2))
    data[at : at + 24] = bytes(b ^ 0xA5 for b in data[at : at + 24])
    path.write_bytes(bytes(data))


class TestRecordsThatAreGone:
    def test_nothing_is_written_where_neither_records_nor_spool_are_left(self, tmp_path):
        run_dir = fabricate(tmp_path / "run", ROWS)
        build(run_dir)
        (run_dir / "requests.parquet").unlink()
        before = contents(run_dir)
        with pytest.raises(UserError, match=r"requests\.parquet: is missing, and the injectors' own records"):
            build(run_dir)
        assert contents(run_dir) == before

    def test_a_killed_run_without_records_keeps_its_state(self, tmp_path):
        run_dir = fabricate(tmp_path / "run", ROWS, state="running")
        (run_dir / "spool").rename(tmp_path / "elsewhere")
        with pytest.raises(UserError, match="spool"):
            build(run_dir)
        assert Manifest.load(run_dir).state == "running"

    def test_what_has_checksums_is_not_made_again_from_what_is_left_of_a_spool(self, tmp_path):
        run_dir = fabricate(tmp_path / "run", ROWS)
        first = build(run_dir).to_json()
        fabricate(tmp_path / "other", ROWS[:3])
        (tmp_path / "other" / "spool").rename(run_dir / "spool")
        assert build(run_dir).to_json() == first


class TestWithoutArrivals:
    """Token times are gone: what rests on them is unknown, never zero and never good."""

    SLOW = [Row(at=10.0 * i, gaps=[10.0] * 4 + [5000.0] + [10.0] * 4) for i in range(900)]
    SLO = {"good": "stall < 1s", "attained": ">= 99%"}

    def run(self, tmp_path, keep_sums=True):
        run_dir = fabricate(tmp_path / "run", self.SLOW, slo=None, spec=PRICE | {"slo": self.SLO})
        assert build(run_dir).to_json()["verdict"] == "FAIL"
        (run_dir / "arrivals.parquet").unlink()
        if not keep_sums:
            Manifest.load(run_dir).model_copy(update={"checksums": {}}).save(run_dir)
        return build(run_dir).to_json()

    @pytest.mark.parametrize("keep_sums", [True, False])
    def test_a_file_that_was_taken_away_makes_the_run_invalid_by_name(self, tmp_path, keep_sums):
        found = self.run(tmp_path, keep_sums)
        assert (found["verdict"], found["exit_code"]) == ("INVALID", 4)
        assert any("arrivals.parquet is missing" in reason for reason in found["invalid_reasons"])

    def test_a_condition_on_what_is_not_known_is_neither_met_nor_broken(self, tmp_path):
        found = self.run(tmp_path)
        (one,) = found["slo"]["thresholds"]
        assert (one["result"], one["value"], one["lower_bound"], one["upper_bound"]) == ("can't tell", None, 0.0, 1.0)
        assert (found["slo"]["attained"], found["slo"]["goodput_rps"], found["slo"]["good"]) == (None, None, None)

    def test_rates_costs_and_shares_of_tokens_are_null(self, tmp_path):
        found = self.run(tmp_path)
        rates, money = found["throughput"], found["cost"]
        assert (rates["output_tokens_per_s"], rates["total_tokens_per_s"], rates["estimated_share"]) == (None,) * 3
        assert rates["requests_per_s"] > 0
        assert (money["per_million_output"], money["per_million_output_at_slo"], money["split_output"]) == (None,) * 3
        assert money["wasted"]["late"] is None
        assert money["usd"] == pytest.approx(0.1)

    def test_a_single_chunk_answer_still_can_not_stall(self, tmp_path):
        run_dir = fabricate(tmp_path / "run", [Row(at=10.0 * i) for i in range(900)], slo=self.SLO)
        build(run_dir)
        (run_dir / "arrivals.parquet").unlink()
        assert summarize(run_dir).to_json()["slo"]["attained"] == 1.0


class TestDamage:
    def test_bytes_that_were_flipped_in_the_arrivals_are_said_and_the_rest_is_reported(self, tmp_path):
        run_dir = fabricate(tmp_path / "run", ROWS)
        build(run_dir)
        flip(run_dir / "arrivals.parquet")
        found = build(run_dir).to_json()
        assert found["exit_code"] == 4
        assert found["latency_ms"]["ttft"]["n"] == 400
        assert any("arrivals.parquet" in reason for reason in found["invalid_reasons"])

    def test_bytes_that_were_flipped_in_the_requests_are_the_users_to_mend(self, tmp_path):
        run_dir = fabricate(tmp_path / "run", ROWS)
        build(run_dir)
        for share in (0.1, 0.3, 0.5):
            flip(run_dir / "requests.parquet", share)
        with pytest.raises(UserError, match=r"requests\.parquet: "):
            build(run_dir)

    @pytest.mark.parametrize("column", ["status", "chunks", "first_token_ns", "output_tokens", "index"])
    def test_a_column_that_figures_rest_on_is_named_where_it_lacks(self, tmp_path, column):
        run_dir = fabricate(tmp_path / "run", ROWS)
        collect(run_dir)
        rewrite(run_dir, "requests.parquet", lambda table: table.drop_columns([column]))
        with pytest.raises(UserError, match=rf"requests\.parquet: has no column {column}"):
            summarize(run_dir).to_json()

    def test_a_column_that_can_be_done_without_is_null_and_said(self, tmp_path):
        run_dir = fabricate(tmp_path / "run", ROWS)
        collect(run_dir)
        rewrite(run_dir, "requests.parquet", lambda table: table.drop_columns(["error", "multi_token_chunks"]))
        found = summarize(run_dir).to_json()
        assert found["verdict"] == "PASS"
        assert any("has no column error, multi_token_chunks" in notice for notice in found["notices"]) or any(
            "has no column multi_token_chunks, error" in notice for notice in found["notices"]
        )

    def test_values_of_another_type_are_named(self, tmp_path):
        run_dir = fabricate(tmp_path / "run", ROWS)
        collect(run_dir)
        texts = pa.array(["x"] * len(ROWS))
        rewrite(run_dir, "requests.parquet", lambda t: t.set_column(t.column_names.index("sent_ns"), "sent_ns", texts))
        with pytest.raises(UserError, match="column sent_ns holds string, not int64"):
            summarize(run_dir).to_json()

    def test_rows_out_of_order_are_refused(self, tmp_path):
        run_dir = fabricate(tmp_path / "run", ROWS)
        collect(run_dir)
        rewrite(run_dir, "requests.parquet", lambda table: table.take(list(reversed(range(len(ROWS))))))
        with pytest.raises(UserError, match="order of index"):
            summarize(run_dir).to_json()

    @pytest.mark.parametrize(
        ("name", "column"), [("server.parquet", "labels"), ("client.parquet", "receive_lag"), ("plan.parquet", "index")]
    )
    def test_an_optional_file_without_a_column_is_left_out_and_said(self, tmp_path, name, column):
        run_dir = fabricate(tmp_path / "run", ROWS, server=[(0.0, "other", "{}", 1.0)])
        collect(run_dir)
        rewrite(run_dir, name, lambda table: table.drop_columns([column]))
        assert any(f"{name} has no column {column}" in notice for notice in summarize(run_dir).to_json()["notices"])

    def test_empty_lists_of_arrivals_are_no_arrivals(self, tmp_path):
        run_dir = fabricate(tmp_path / "run", ROWS)
        collect(run_dir)

        def emptied(table):
            lists = table["arrivals_us"].to_pylist()
            lists[-1] = []
            return table.set_column(1, table.schema.field(1), pa.array(lists, table.schema.field(1).type))

        rewrite(run_dir, "arrivals.parquet", emptied)
        assert summarize(run_dir).to_json()["latency_ms"]["itl"]["n"] == 399

    def test_events_that_can_not_be_read_are_counted(self, tmp_path):
        run_dir = fabricate(tmp_path / "run", ROWS)
        (run_dir / "events.jsonl").write_text('{"t_ns": 5, "kind": "mark", "text": "x"}\n{"t_ns": \n[]\n')
        found = build(run_dir)
        said = "events.jsonl: 2 lines can't be read and are left out"
        assert said in found.notices
        assert "2 lines can&#39;t be read" in (run_dir / "report.html").read_text()
        assert "2 lines can't be read" in export(run_dir, found, "md")


class TestChecksums:
    def test_all_that_was_measured_has_one(self, tmp_path):
        run_dir = fabricate(tmp_path / "run", ROWS, server=[(0.0, "other", "{}", 1.0)])
        (run_dir / "events.jsonl").write_text(json.dumps({"t_ns": 5, "kind": "mark", "text": "x"}) + "\n")
        build(run_dir)
        assert {"server.parquet", "events.jsonl"} <= set(Manifest.load(run_dir).checksums)
        (run_dir / "events.jsonl").write_text("")
        assert any("events.jsonl is changed" in reason for reason in build(run_dir).to_json()["invalid_reasons"])

    def test_files_without_one_are_unchecked_by_name(self, tmp_path):
        run_dir = fabricate(tmp_path / "run", ROWS)
        collect(run_dir)
        Manifest.load(run_dir).model_copy(update={"checksums": {}}).save(run_dir)
        (check,) = [one for one in summarize(run_dir).to_json()["checks"] if one["name"] == "files"]
        assert check["status"] == "unchecked"
        assert "plan.parquet, requests.parquet, arrivals.parquet, client.parquet" in check["why"]


class TestStoredSummary:
    def built(self, tmp_path):
        run_dir = fabricate(tmp_path / "run", ROWS)
        return run_dir, build(run_dir).to_json()

    def test_the_one_that_was_written_is_relied_on(self, tmp_path):
        run_dir, summary = self.built(tmp_path)
        stored = stored_summary(run_dir)
        assert stored is not None
        assert json.dumps(stored.to_json()) == json.dumps(summary)

    def test_an_edited_one_is_not(self, tmp_path):
        run_dir, summary = self.built(tmp_path)
        summary["latency_ms"]["ttft"]["p50"] /= 2
        (run_dir / "summary.json").write_text(json.dumps(summary))
        assert stored_summary(run_dir) is None

    @pytest.mark.parametrize("name", ["requests.parquet", "arrivals.parquet", "summary.json"])
    def test_nor_one_of_files_that_are_no_longer_there(self, tmp_path, name):
        run_dir, _ = self.built(tmp_path)
        (run_dir / name).unlink()
        assert stored_summary(run_dir) is None
