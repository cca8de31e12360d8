"""`summary.json`: its shape, its verdicts, its exit codes."""

import json
from dataclasses import replace

import pytest
from tests.kit.fabricate import Row, S, fabricate

from tailgate.reports.build import build
from tailgate.reports.metrics.analysis import analyse
from tailgate.reports.rundir.collect import collect
from tailgate.reports.rundir.manifest import Manifest, TargetRecord
from tailgate.reports.summary.summary import read_summary, summarize, write_summary
from tailgate.workloads.common.errors import UserError

GOOD = [Row(at=10.0 * i, ttft=100.0 + 37 * i % 60, gaps=[20.0] * 4) for i in range(900)]


def summary(run_dir, rows=GOOD, **options):
    collect(fabricate(run_dir, rows, **options))
    return summarize(run_dir).to_json()


def test_the_shape_is_the_one_that_scripts_were_promised(tmp_path):
    found = summary(tmp_path / "run", slo={"ttft": "p99 < 800ms"})
    assert found["schema"] == "tailgate.summary/1"
    assert set(found) >= {
        "run", "valid", "invalid_reasons", "simulated", "load", "latency_ms", "latency_failed_as_inf_ms", "checks",
        "throughput", "slo", "cost", "energy", "server", "gpu", "client",
    }  # fmt: skip
    assert set(found["load"]) >= {"loop", "offered_rps", "sent_rps", "duration_s", "requests"}
    assert set(found["latency_ms"]) >= {"ttft", "ttft_from_send", "itl", "tpot", "stall", "e2e", "normalized_e2e"}
    ttft = found["latency_ms"]["ttft"]
    assert set(ttft) >= {"n", "mean", "min", "p50", "p90", "p95", "p99", "p99.9", "max", "p99_ci"}
    assert set(found["latency_failed_as_inf_ms"]) >= {"ttft", "e2e"}
    assert set(found["throughput"]) >= {
        "requests_per_s",
        "input_tokens_per_s",
        "output_tokens_per_s",
        "total_tokens_per_s",
    }
    assert set(found["slo"]) >= {"attained", "goodput_rps", "good_output_tokens_per_s"}
    for lag in ("dispatch_lag_ms", "send_lag_ms", "receive_lag_ms"):
        assert set(found["client"][lag]) == {"p50", "p99", "max"}
    assert {"cpu_fraction_max", "stamp"} <= set(found["client"])
    assert all({"name", "status", "value", "bound", "unit"} <= set(check) for check in found["checks"])


def test_rates_are_over_the_steady_window(tmp_path):
    load = summary(tmp_path / "run", seconds=10.0)["load"]
    assert (load["duration_s"], load["offered_rps"], load["sent_rps"]) == (10.0, 90.0, 90.0)


def test_it_is_json_that_every_parser_reads(tmp_path):
    rows = [*GOOD, Row(at=9100.0, status="timeout", ttft=None)]
    collect(fabricate(tmp_path / "run", rows))
    written = write_summary(tmp_path / "run").to_json()

    def refuse(constant):
        raise AssertionError(constant)

    read = json.loads((tmp_path / "run" / "summary.json").read_text(), parse_constant=refuse)
    assert read == json.loads(json.dumps(written))
    assert read["latency_failed_as_inf_ms"]["ttft"]["max"] == "inf"


def test_a_percentile_that_is_null_says_what_it_needs(tmp_path):
    found = summary(tmp_path / "run")
    assert found["latency_ms"]["ttft"]["p99.9"] is None
    assert found["percentile_needs"]["ttft"] == {"p99.9": 2995}


@pytest.mark.parametrize(
    ("rows", "slo", "verdict", "code"),
    [
        (GOOD, None, "PASS", 0),
        ([replace(row, status="reset", ttft=None) for row in GOOD], None, "FAIL", 1),
        (GOOD, {"ttft": "p99 < 800ms"}, "PASS", 0),
        (GOOD, {"ttft": "p99 < 120ms"}, "FAIL", 1),
        (GOOD, {"ttft": "p99.9 < 800ms"}, "INCONCLUSIVE", 3),
        (GOOD, {"ttft": "p50 < 129.5ms"}, "INCONCLUSIVE", 3),
        (GOOD, {"errors": "< 1%"}, "PASS", 0),
        (GOOD, {"errors": "< 0.1%"}, "INCONCLUSIVE", 3),  # 900 without an error bound it at 0.33 %
        (GOOD, {"attained": ">= 99%", "good": "ttft < 800ms"}, "PASS", 0),
        (GOOD, {"attained": ">= 99%", "good": "ttft < 130ms"}, "FAIL", 1),
        (GOOD, {"output_tokens_per_s": "> 380/s"}, "PASS", 0),
        (GOOD, {"output_tokens_per_s": "> 440/s"}, "INCONCLUSIVE", 3),  # the last second is empty
        (GOOD, {"output_tokens_per_s": "> 520/s"}, "FAIL", 1),
        (GOOD, {"ttft": "p99 < 800ms", "e2e": "p95 < 1ms"}, "FAIL", 1),
        (GOOD, {"itl": "p99 < 21ms", "tpot": "mean <= 20ms", "stall": "max < 21ms"}, "PASS", 0),
    ],
)
def test_verdict_and_exit_code_follow_the_confidence_bound(tmp_path, rows, slo, verdict, code):
    found = summary(tmp_path / "run", rows, slo=slo)
    assert (found["verdict"], found["exit_code"]) == (verdict, code), found["why"]


def test_failures_break_a_latency_objective_that_the_survivors_meet(tmp_path):
    rows = [replace(row, status="timeout", ttft=None) if i % 20 == 7 else row for i, row in enumerate(GOOD)]
    found = summary(tmp_path / "run", rows, slo={"ttft": "p99 < 800ms"})
    assert found["latency_ms"]["ttft"]["p99"] < 800
    assert found["slo"]["thresholds"][0]["value"] == "inf"
    assert found["verdict"] == "FAIL"


def test_invalid_comes_before_any_result(tmp_path):
    # Read a second late, in one piece: whether p99 is under 600 ms nobody can tell.
    wide = [replace(row, ttft=500.0, censored=[(0, 1, -1000.0, False)]) for row in GOOD]
    found = summary(tmp_path / "run", wide, slo={"ttft": "p99 < 400ms"})
    assert (found["verdict"], found["exit_code"], found["valid"]) == ("INVALID", 4, False)


def test_an_interrupted_run_is_invalid_and_exits_130(tmp_path):
    found = summary(tmp_path / "run", state="interrupted", ended_ns=9 * S)
    assert (found["verdict"], found["exit_code"]) == ("INVALID", 130)
    assert found["invalid_reasons"][0].startswith("interrupted:")


def test_rows_after_an_interruption_are_no_misses(tmp_path):
    rows = [replace(row, reported=row.at < 5000) for row in GOOD]
    found = summary(tmp_path / "run", rows, state="interrupted", ended_ns=5 * S, slo={"good": "ttft < 800ms"})
    assert found["slo"]["attained"] == 1.0
    assert found["load"]["requests"] == {"planned": 900, "ok": 500, "not_sent": 400}
    assert found["load"]["offered_rps"] == 100.0


def test_a_run_that_stopped_itself_fails(tmp_path):
    rule = {"aborted_by": "errors", "state_reason": "errors 7 % > 5 %"}
    found = summary(tmp_path / "run", state="aborted", ended_ns=9 * S, **rule)
    assert (found["verdict"], found["exit_code"]) == ("FAIL", 1)
    assert "errors 7 % > 5 %" in found["why"]


CUT_OFF = [Row(at=8990.0, status="cancelled", ttft=ttft, hung_up="stopped") for ttft in [None] * 40 + [5.0] * 20]


def test_what_the_budgets_end_cut_off_is_not_the_servers_failure(tmp_path):
    rule = {"aborted_by": "spend", "state_reason": "spend reached $3 (abort_if)"}
    slo = {"errors": "< 1%", "ttft": "p99 < 800ms"}
    found = summary(tmp_path / "run", [*GOOD, *CUT_OFF], slo=slo, state="aborted", ended_ns=9 * S, **rule)
    assert (found["errors"]["share"], found["slo"]["attained"]) == (0.0, 1.0)
    assert found["latency_failed_as_inf_ms"]["ttft"]["n"] == len(GOOD)
    assert {one["result"] for one in found["slo"]["thresholds"]} == {"met"}
    assert (found["verdict"], found["exit_code"]) == ("INCONCLUSIVE", 3)
    assert "$3" in found["why"]


def test_a_budgets_end_does_not_hide_a_broken_objective(tmp_path):
    bad = [Row(at=10.0 * i + 5, status="http_error", ttft=None) for i in range(400)]
    rule = {"aborted_by": "spend", "state_reason": "spend reached $3 (abort_if)"}
    found = summary(tmp_path / "run", [*GOOD, *bad], slo={"errors": "< 1%"}, state="aborted", ended_ns=9 * S, **rule)
    assert (found["verdict"], found["exit_code"]) == ("FAIL", 1)


def test_users_who_gave_up_before_a_first_token_are_failures_still(tmp_path):
    gave_up = [Row(at=8990.0, status="cancelled", ttft=None, hung_up="patience")] * 100
    found = summary(tmp_path / "run", [*GOOD, *gave_up])
    assert found["errors"]["share"] == pytest.approx(0.1)


def test_a_target_that_died_makes_the_run_invalid_by_name(tmp_path):
    found = summary(
        tmp_path / "run", state="failed", failed_side="target", state_reason="exit code 137", ended_ns=9 * S
    )
    assert found["exit_code"] == 4
    assert found["invalid_reasons"][0].startswith("target: the run failed (exit code 137)")


def test_where_an_injector_died_what_needs_every_row_is_not_checked(tmp_path):
    rows = [replace(row, reported=row.at < 5000) for row in GOOD]
    run = fabricate(tmp_path / "run", rows, state="failed", state_reason="injector 0: was killed", ended_ns=6 * S)
    spool = run / "spool" / "injector-0.arrows"
    spool.write_bytes(spool.read_bytes()[:-8])  # as a killed writer leaves it
    collect(run)
    found = summarize(run).to_json()
    first, *others = found["invalid_reasons"]
    assert "400 of 900 requests were not sent or not recorded" in first
    assert [reason.partition(":")[0] for reason in others] == ["lost_rows"]
    unchecked = {check["name"]: check["why"] for check in found["checks"] if check["status"] == "unchecked"}
    assert "101 requests were lost" in unchecked["offered_load"]


def test_a_run_that_was_killed_before_its_load_began_sent_nothing(tmp_path):
    run = fabricate(tmp_path / "run", [replace(row, reported=False) for row in GOOD], client=[], state="running")
    (run / "spool" / "injector-0.arrows").write_bytes(b"")
    found = build(run).to_json()
    assert found["load"]["requests"] == {"planned": 900, "ok": 0, "not_sent": 900}
    assert "before its load began" in found["why"]
    assert len(found["invalid_reasons"]) == 1


def test_a_simulation_says_so(tmp_path):
    found = summary(tmp_path / "run", target=TargetRecord(kind="sim", simulated=True))
    assert found["simulated"] is True


class TestOverload:
    def rows(self, growth):
        # 100 requests/s; each stays a second, and `growth` ms longer than the one before it
        return [Row(at=10.0 * i, ttft=1000.0 + growth * i + 37 * i % 60) for i in range(2000)]

    def test_in_flight_that_grows_all_along_is_overload(self, tmp_path):
        found = summary(tmp_path / "run", self.rows(5.0), seconds=20.0, slo={"ttft": "p99 < 90s", "errors": "< 1%"})
        assert found["load"]["overloaded"] is True
        by_name = {one["objective"]: one for one in found["slo"]["thresholds"]}
        assert by_name["ttft: p99 < 90s"]["result"] == "can't tell"
        assert by_name["errors: < 1%"]["result"] == "met"
        assert found["exit_code"] == 3

    def test_growth_counts_however_many_were_in_flight_before(self, tmp_path):
        # about 2,000 in flight from the start, and 340 more by the end of 10 s: straight up
        rows = [
            Row(at=1.0 * i, ttft=2000.0 + 0.045 * i, phase="warmup" if i < 4000 else "measure") for i in range(14000)
        ]
        found = summary(tmp_path / "run", rows, warmup=4.0, client=[], slo={"ttft": "p99 < 90s"})
        flight = found["load"]["in_flight"]
        assert 0.15 < flight["growth"] / flight["mean"] < 0.25
        assert (found["load"]["overloaded"], found["verdict"]) == (True, "INCONCLUSIVE")

    def test_growth_of_the_load_itself_is_not(self, tmp_path):
        # from 20 to 180 requests/s, each answer a second: the number in flight is ninefold
        at = [1000.0 * (-2.5 + (6.25 + 0.25 * i) ** 0.5) for i in range(2000)]
        rows = [Row(at=t, ttft=1000.0 + 37 * i % 60) for i, t in enumerate(at)]
        found = summary(tmp_path / "run", rows, seconds=20.0)
        assert found["load"]["in_flight"]["growth"] > 50
        assert found["load"]["overloaded"] is False

    def test_a_load_that_grows_until_it_is_too_much_is(self, tmp_path):
        at = [1000.0 * (-2.5 + (6.25 + 0.25 * i) ** 0.5) for i in range(2000)]
        rows, ends = [], 0.0
        for t in at:  # at most 100 requests/s
            ends = max(t + 1000.0, ends + 10.0)
            rows.append(Row(at=t, ttft=ends - t))
        assert summary(tmp_path / "run", rows, seconds=20.0)["load"]["overloaded"] is True

    def test_requests_that_hang_while_the_others_are_answered_as_ever_are_not(self, tmp_path):
        rows = [
            replace(row, status="timeout", ttft=None, end_after=60_000.0) if i % 4 == 0 else row
            for i, row in enumerate(self.rows(0.0))
        ]
        found = summary(tmp_path / "run", rows, seconds=20.0)
        assert found["load"]["in_flight"]["growth"] > 100
        assert found["load"]["overloaded"] is False

    def test_streams_that_stay_open_when_their_answers_are_there_are_not(self, tmp_path):
        rows = [replace(row, end_after=30_000.0) for row in self.rows(0.0)]
        found = summary(tmp_path / "run", rows, seconds=20.0)
        assert found["load"]["overloaded"] is False
        assert any("stayed open" in notice for notice in found["notices"])

    @pytest.mark.parametrize("status", ["ok", "timeout"])
    def test_two_dozen_requests_or_none_that_was_answered_do_not_tell(self, tmp_path, status):
        rows = [Row(at=83.0 * i, ttft=3000.0, status=status) for i in range(24)]
        if status == "timeout":
            rows = [Row(at=10.0 * i, ttft=None, end_after=60_000.0, status=status) for i in range(200)]
        found = summary(tmp_path / "run", rows, seconds=2.0)
        assert "overloaded" not in found["load"]
        assert not any(finding["kind"] == "overloaded" for finding in found["findings"])

    def test_a_steady_queue_is_not(self, tmp_path):
        assert summary(tmp_path / "run", self.rows(0.0), seconds=20.0)["load"]["overloaded"] is False


class TestLoopsThatEndByCount:
    """Users who ask for a number of requests in all; the first to find none left ends the measure phase."""

    def run(self, run_dir, rows, asked_ms, users=8, **options):
        spec = {"workload": {"users": users, "requests": len(rows)}}
        options = {"loop": "closed", "seconds": asked_ms / 1000, "drain": 60.0, "spec": spec} | options
        return summary(run_dir, rows, **options)

    def test_the_window_runs_from_the_first_start_to_the_last_end(self, tmp_path):
        # Eight users, one request each: the shortest ends after 0.3 s, the longest after 2 s.
        rows = [Row(at=100.0 + i, ttft=50.0, gaps=[50.0] * 4 if i < 7 else [50.0] * 37) for i in range(8)]
        found = self.run(tmp_path / "run", rows, asked_ms=352.0)
        assert found["load"]["duration_s"] == pytest.approx((107 + 1900 - 100) / 1000)
        assert found["throughput"]["requests_per_s"] == pytest.approx(8 / 1.907)
        assert found["throughput"]["output_tokens_per_s"] == pytest.approx((7 * 5 + 38) / 1.907)
        assert found["load"]["users_run_out_s"] == pytest.approx(2.007 - 0.352)
        assert any("users ran out of requests in the last 87 % of the window of 1.91 s" in n for n in found["notices"])

    def test_fewer_requests_than_users_are_measured_and_said_to_be_so(self, tmp_path):
        found = self.run(tmp_path / "run", [Row(at=2.0, gaps=[10.0] * 10)] * 5, asked_ms=6.0)
        assert found["throughput"]["requests_per_s"] == pytest.approx(25.0)
        assert any("5 requests are fewer than 8 users" in notice for notice in found["notices"])

    def test_a_long_loop_has_a_short_end_that_is_not_worth_a_word(self, tmp_path):
        rows = [Row(at=100.0 * (i // 8), gaps=[10.0] * 9, ttft=10.0) for i in range(800)]
        found = self.run(tmp_path / "run", rows, asked_ms=9_990.0)
        assert found["load"]["duration_s"] == pytest.approx(10.0)
        assert not any("users" in notice for notice in found["notices"])

    def test_after_a_warm_up_the_window_begins_with_its_end(self, tmp_path):
        rows = [Row(at=100.0 * i, gaps=[10.0] * 9, ttft=10.0) for i in range(40)]
        found = self.run(tmp_path / "run", rows, asked_ms=3_000.0, users=1, warmup=1.0)
        assert found["load"]["requests"]["planned"] == 30
        assert found["load"]["duration_s"] == pytest.approx(3.0)

    def test_a_duration_that_ended_first_keeps_its_window(self, tmp_path):
        rows = [Row(at=100.0 * i, gaps=[10.0] * 9, ttft=10.0) for i in range(40)]
        spec = {"workload": {"users": 1, "requests": 50}}
        assert self.run(tmp_path / "run", rows, asked_ms=4_000.0, spec=spec)["load"]["duration_s"] == 4.0

    def test_a_page_marks_from_when_users_had_none_left(self, tmp_path):
        from tailgate.reports.documents.run.write import report

        run_dir = tmp_path / "run"
        self.run(run_dir, [Row(at=2.0, gaps=[10.0] * 10)] * 5, asked_ms=6.0)
        assert "users run out of requests" in report(build(run_dir), analyse(run_dir))


def test_a_window_hardly_longer_than_an_answer_is_said_to_be_so(tmp_path):
    rows = [Row(at=100.0 * i, ttft=3_000.0) for i in range(20)]
    found = summary(tmp_path / "run", rows, seconds=2.0)
    assert any("20 of 20 answers ended after it" in notice for notice in found["notices"])
    rows = [Row(at=100.0 * i, ttft=300.0) for i in range(20)]
    assert summary(tmp_path / "other", rows, seconds=2.0)["notices"] == []


class TestRecovery:
    def killed(self, run_dir, **options):
        rows = [replace(row, reported=row.at < 5000) for row in GOOD]
        run_dir = fabricate(run_dir, rows, state="running", **options)
        for stream in (run_dir / "spool").iterdir():
            stream.write_bytes(stream.read_bytes()[:-8])
        return run_dir

    def test_a_killed_run_is_reported_with_all_that_was_spooled(self, tmp_path):
        found = build(self.killed(tmp_path / "run")).to_json()
        assert found["load"]["requests"]["ok"] == 500
        assert (found["verdict"], found["exit_code"]) == ("INVALID", 4)
        assert ": 400 of 900 requests were not sent" in found["invalid_reasons"][0]
        assert (tmp_path / "run" / "report.html").exists()

    def test_it_stays_marked_when_reported_again(self, tmp_path):
        first = build(self.killed(tmp_path / "run")).to_json()
        assert build(tmp_path / "run").to_json() == first
        assert Manifest.load(tmp_path / "run").state == "interrupted"

    def test_a_run_that_goes_on_is_left_alone(self, tmp_path):
        import os
        import time

        parent = os.getppid()
        run_dir = self.killed(tmp_path / "run", pid=parent, t0_unix_ns=time.time_ns())
        with pytest.raises(UserError, match="still going on"):
            build(run_dir)
        assert (run_dir / "spool").exists()


@pytest.mark.parametrize("name", ["manifest.json", "requests.parquet"])
def test_a_damaged_file_is_named(tmp_path, name):
    collect(fabricate(tmp_path / "run", GOOD))
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=name):
        summarize(tmp_path / "run").to_json()


def test_a_manifest_of_a_newer_major_schema_says_to_upgrade(tmp_path):
    run_dir = fabricate(tmp_path / "run", GOOD)
    data = json.loads((run_dir / "manifest.json").read_text())
    (run_dir / "manifest.json").write_text(json.dumps(data | {"schema": "tailgate.manifest/2"}))
    with pytest.raises(UserError, match="newer tailgate"):
        Manifest.load(run_dir)


def test_unknown_fields_of_a_newer_minor_writer_are_kept(tmp_path):
    run_dir = fabricate(tmp_path / "run", GOOD)
    data = json.loads((run_dir / "manifest.json").read_text())
    (run_dir / "manifest.json").write_text(json.dumps(data | {"schema": "tailgate.manifest/1.3", "mood": "good"}))
    Manifest.load(run_dir).save(run_dir)
    assert json.loads((run_dir / "manifest.json").read_text())["mood"] == "good"


def test_requests_in_flight_that_come_and_go_are_seldom_called_overload(tmp_path):
    """150 runs of a steady Poisson load, each request there for a quarter of the window: at most one in twenty."""
    import numpy as np

    from tailgate.reports.metrics import in_flight

    rng = np.random.default_rng(4)
    collect(fabricate(tmp_path / "run", [Row(at=1000.0)], seconds=60.0, warmup=60.0))
    run = analyse(tmp_path / "run").run

    class Steady:
        manifest, ok, window_ns = run.manifest, np.ones(1, np.bool_), run.window_ns

        def __init__(self):
            begin = np.sort(rng.uniform(-150e9, 120e9, rng.poisson(20 * 270)))
            end = begin + rng.exponential(15e9, len(begin))
            several = np.full(len(begin), 9.0)
            self.columns = {"dispatched_ns": begin, "end_ns": end, "last_token_ns": end, "chunks": several}
            self.columns["output_tokens"] = several
            self.ok = np.ones(len(begin), np.bool_)

        def __len__(self):
            return len(self.ok)

        def column(self, name):
            return self.columns[name]

    flagged = sum(bool(in_flight.in_flight(Steady())[1]) for _ in range(150))
    assert flagged <= 7


def test_a_summary_that_was_read_back_is_the_one_that_was_written(tmp_path):
    collect(fabricate(tmp_path / "run", [*GOOD, Row(at=9000.0, status="timeout")], slo={"ttft": "p99 < 800ms"}))
    written = write_summary(tmp_path / "run")
    read = read_summary(tmp_path / "run")
    assert json.dumps(read.to_json()) == json.dumps(written.to_json())
    assert (read.latency_ms["ttft"].statistic("p99"), read.slo.thresholds[0].result) == (
        written.latency_ms["ttft"].statistic("p99"),
        "met",
    )


@pytest.mark.parametrize("damage", [{"load": None}, {"checks": [{"name": 3}]}, {"valid": "yes"}])
def test_a_damaged_summary_is_said_to_be_so(tmp_path, damage):
    collect(fabricate(tmp_path / "run", GOOD))
    write_summary(tmp_path / "run")
    path = tmp_path / "run" / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(UserError, match="damaged"):
        read_summary(path)
