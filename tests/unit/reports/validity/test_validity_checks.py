"""Each validity check fails on its own fault, holds without it, and says so when it can't be made."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.kit.fabricate import MS, Row, S, client_rows, fabricate, spool_rows

from tailgate.loadgen.records import lag_histogram
from tailgate.reports.metrics.analysis import analyse
from tailgate.reports.rundir.collect import collect
from tailgate.reports.summary.summary import summarize
from tailgate.reports.validity.client import client_checks
from tailgate.reports.validity.lateness import lateness_checks
from tailgate.reports.validity.server import server_checks
from tailgate.reports.validity.state import state_checks

ROWS = [Row(at=10.0 * i, gaps=[20.0] * 4) for i in range(400)]
PROMPT, OUTPUT = 10 * 400, 5 * 400


def scrapes(prompt=PROMPT, output=OUTPUT, finished=400, first=-0.1, last=9.0):
    names = {
        "vllm:prompt_tokens_total": prompt,
        "vllm:generation_tokens_total": output,
        "vllm:request_success_total": finished,
    }
    ends = ((first, 0), (last, 1))
    return [(t, name, '{"engine":"0"}', 7.0 + share * v) for name, v in names.items() for t, share in ends]


def checks(run_dir, rows=ROWS, **options):
    collect(fabricate(run_dir, rows, **options))
    analysis = analyse(run_dir)
    found = (
        *client_checks(analysis),
        *lateness_checks(analysis),
        *server_checks(analysis),
        *state_checks(analysis, []),
    )
    return {check.name: check for check in found}


def books(rows=ROWS, **changes):
    return [{**row, **changes} for row in client_rows(spool_rows(rows), 70)]


def test_a_sound_run_passes_every_check(tmp_path):
    found = checks(tmp_path / "run", server=scrapes(), isolation="exclusive")
    assert {name: check.status for name, check in found.items() if check.status != "ok"} == {}
    assert len(found) == 17


class TestDispatchLag:
    def test_p99_beyond_5_ms_is_noted(self, tmp_path):
        late = [replace(row, late=6.0) if i % 20 == 0 else row for i, row in enumerate(ROWS)]
        check = checks(tmp_path / "run", late)["dispatch_lag"]
        assert (check.status, check.value, check.bound) == ("noted", 6.0, 5.0)
        assert "add --injectors" in check.remedy

    def test_a_few_late_ones_are_within_p99(self, tmp_path):
        late = [replace(row, late=600.0) if i < 4 else row for i, row in enumerate(ROWS)]
        assert checks(tmp_path / "run", late)["dispatch_lag"].status == "ok"

    def test_a_loose_ttft_objective_loosens_the_bound_to_its_hundredth(self, tmp_path):
        late = [replace(row, late=6.0) for row in ROWS]
        check = checks(tmp_path / "run", late, slo={"ttft": "p99 < 800ms"})["dispatch_lag"]
        assert (check.status, check.bound) == ("ok", 8.0)

    def test_a_closed_loop_counts_from_the_hand_over(self, tmp_path):
        late = [replace(row, late=6.0) for row in ROWS]
        assert checks(tmp_path / "run", late, loop="closed")["dispatch_lag"].value == pytest.approx(6.0)


class TestOfferedLoad:
    def test_due_rows_that_were_skipped_fail(self, tmp_path):
        skipped = [replace(row, status="not_sent", ttft=None) if i < 5 else row for i, row in enumerate(ROWS)]
        check = checks(tmp_path / "run", skipped)["offered_load"]
        assert (check.status, check.value) == ("fail", 1.25)

    def test_a_refused_connection_was_attempted(self, tmp_path):
        refused = [replace(row, status="connect_error", http_status=None, ttft=None) for row in ROWS]
        assert checks(tmp_path / "run", refused)["offered_load"].status == "ok"

    def test_turns_whose_session_broke_before_them_were_never_due(self, tmp_path):
        broken = [Row(at=float(i), session=i, status="reset", ttft=None) for i in range(50)]
        later = [Row(at=None, session=i, turn=1, reported=False) for i in range(50)]
        check = checks(tmp_path / "run", [*broken, *later])["offered_load"]
        assert (check.status, check.value) == ("ok", 0.0)


def with_ways_back(lags_ms, rows=ROWS, second=3):
    """A closed loop's books: these ways back of users, all in one second."""
    found = client_rows(spool_rows(rows, closed=True), 70)
    found[second]["turnaround_lag"] = lag_histogram(np.array([ms * MS for ms in lags_ms], np.int64))
    return found


class TestWaysBack:
    """Closed loop: users who could have asked and had not. ROWS are 400 requests, 0.18 s each: 72 s in flight."""

    def test_users_who_are_away_for_more_than_a_hundredth_of_their_time_fail(self, tmp_path):
        away = with_ways_back([2.0] * 380 + [400.0] * 20)
        found = checks(tmp_path / "run", loop="closed", client=away)
        assert found["offered_load"].status == "fail"
        assert found["offered_load"].value == pytest.approx(100 * 8.76 / (72 + 8.76), rel=0.03)
        assert found["offered_load"].bound == pytest.approx(1.0, rel=0.05)
        assert found["turnaround_lag"].status == "noted"

    def test_a_few_milliseconds_after_a_long_answer_are_nothing(self, tmp_path):
        found = checks(tmp_path / "run", loop="closed", client=with_ways_back([1.2] * 400))
        assert (found["offered_load"].status, found["turnaround_lag"].status) == ("ok", "ok")

    def test_who_had_not_come_back_by_the_end_is_booked_behind_it_and_counts(self, tmp_path):
        rows = [*ROWS, Row(at=9_900.0, gaps=[20.0] * 4)]
        away = with_ways_back([2_000.0] * 64, rows, second=12)
        assert checks(tmp_path / "run", rows, loop="closed", client=away)["offered_load"].status == "fail"

    def test_after_short_answers_two_milliseconds_are_allowed_whatever_their_share(self, tmp_path):
        short = [Row(at=10.0 * i, ttft=8.0) for i in range(400)]
        assert (
            checks(tmp_path / "a", short, loop="closed", client=with_ways_back([1.8] * 400, short))[
                "offered_load"
            ].status
            == "ok"
        )
        assert (
            checks(tmp_path / "b", short, loop="closed", client=with_ways_back([2.5] * 400, short))[
                "offered_load"
            ].status
            == "fail"
        )

    def test_where_nobody_came_back_it_can_not_be_told(self, tmp_path):
        found = checks(tmp_path / "run", loop="closed")
        assert found["offered_load"].status == found["turnaround_lag"].status == "unchecked"

    def test_a_run_of_an_older_version_is_unchecked(self, tmp_path):
        run_dir = fabricate(tmp_path / "run", ROWS, loop="closed")
        collect(run_dir)
        path = run_dir / "client.parquet"
        pq.write_table(pq.read_table(path).drop_columns(["turnaround_lag", "clock_jump_ns"]), path)
        found = {check.name: check for check in (*client_checks(analyse(run_dir)), *lateness_checks(analyse(run_dir)))}
        assert found["offered_load"].status == "unchecked"
        assert found["clock"].status == "ok"


class TestClientResources:
    def test_one_request_without_a_descriptor_fails_and_is_told_by_injector(self, tmp_path):
        short = "no socket: Too many open files"
        rows = [replace(r, status="client_error", ttft=None, error=short) if i == 7 else r for i, r in enumerate(ROWS)]
        check = checks(tmp_path / "run", rows)["client_resources"]
        assert (check.status, check.value, check.bound) == ("fail", 1.0, 0.0)
        assert "Too many open files; injector 0: 1" in check.why and "ulimit -n" in check.remedy

    def test_a_target_that_refuses_is_not_short_of_anything_of_ours(self, tmp_path):
        rows = [replace(row, status="connect_error", ttft=None) for row in ROWS]
        assert checks(tmp_path / "run", rows)["client_resources"].status == "ok"


class TestReceiveLag:
    def test_beyond_the_bound_of_kernel_stamps_is_noted(self, tmp_path):
        late = client_rows(spool_rows(ROWS), 70, receive_lag_ns=6 * MS)
        check = checks(tmp_path / "run", client=late)["receive_lag"]
        assert check.status == "noted"
        assert check.value == pytest.approx(6.0, rel=0.05)

    def test_user_stamps_are_held_to_1_ms(self, tmp_path):
        late = client_rows(spool_rows(ROWS), 70, receive_lag_ns=2 * MS)
        assert checks(tmp_path / "kernel", client=late)["receive_lag"].status == "ok"
        assert checks(tmp_path / "user", client=late, stamp="user")["receive_lag"].status == "noted"

    def test_kernel_stamps_that_were_often_missing_are_noted_whatever_lags_were_seen(self, tmp_path):
        check = checks(tmp_path / "run", stamp="mixed")["receive_lag"]
        assert check.status == "noted" and "did not stamp" in check.why


def test_tokens_in_late_reads_are_noted_beyond_half_a_percent(tmp_path):
    merged = [replace(row, client_coalesced=4) if i < 4 else row for i, row in enumerate(ROWS)]
    found = checks(tmp_path / "run", merged)
    assert (found["coalesced_arrivals"].status, found["coalesced_arrivals"].value) == ("noted", 0.8)
    assert found["coalesced_first_tokens"].status == "ok"


def test_first_tokens_in_late_reads_fail_by_themselves(tmp_path):
    merged = [replace(row, first_token_coalesced=True) if i < 3 else row for i, row in enumerate(ROWS)]
    assert checks(tmp_path / "run", merged)["coalesced_first_tokens"].value == 0.75


def test_an_injector_that_computes_all_the_time_is_noted(tmp_path):
    rows = client_rows(spool_rows(ROWS), 70)
    rows[3]["cpu_fraction"] = 0.91
    check = checks(tmp_path / "run", client=rows)["injector_busy"]
    assert (check.status, check.value) == ("noted", 91.0)


def test_a_short_last_interval_is_not_a_second(tmp_path):
    rows = client_rows(spool_rows(ROWS), 10)
    rows[9] |= {"dur_ns": 40 * MS, "cpu_fraction": 1.0, "in_flight_ns": 0}
    assert checks(tmp_path / "run", client=rows)["injector_busy"].status == "ok"
    assert summarize(tmp_path / "run").to_json()["client"]["cpu_fraction_max"] == 0.25


class TestBookkeeping:
    def test_records_that_are_missing_fail(self, tmp_path):
        rows = [replace(row, reported=i >= 8) for i, row in enumerate(ROWS)]
        check = checks(tmp_path / "run", rows, client=books())["bookkeeping"]
        assert check.status == "fail"
        assert check.value == pytest.approx(2.0)

    def test_only_what_fell_into_the_sampled_intervals_is_compared(self, tmp_path):
        kept = [row for row in books() if row["t_ns"] not in (1 * S, 2 * S)]
        assert checks(tmp_path / "run", client=kept)["bookkeeping"].value == pytest.approx(0.0, abs=1e-9)

    def test_ends_that_are_wrong_in_the_records_fail(self, tmp_path):
        early = [replace(row, end_after=-2.0) for row in ROWS]
        check = checks(tmp_path / "run", early, client=books())["bookkeeping"]
        assert check.status == "fail"
        assert check.value == pytest.approx(100 * 2 / 180)

    def test_records_of_requests_that_failed_at_once_are_missed_by_their_number(self, tmp_path):
        failed = [Row(at=10.0 * i, ttft=None, status="connect_error", http_status=None) for i in range(400)]
        assert checks(tmp_path / "all", failed)["bookkeeping"].value == 0.0
        fewer = [replace(row, reported=i >= 8) for i, row in enumerate(failed)]
        check = checks(tmp_path / "fewer", fewer, client=books(failed))["bookkeeping"]
        assert (check.status, check.value) == ("fail", pytest.approx(2.0))

    def test_a_killed_injector_s_last_requests_are_nobody_s_fault(self, tmp_path):
        # It had written 40 records more than it had counted by its last full second.
        check = checks(tmp_path / "run", client=books()[:4], recovered=True)["bookkeeping"]
        assert check.status == "ok"


class TestClock:
    def test_a_step_fails(self, tmp_path):
        rows = books()
        for row in rows[4:]:
            row["clock_step_ns"] = 150_000
        check = checks(tmp_path / "run", client=rows)["clock"]
        assert (check.status, check.value) == ("fail", 0.15)

    def test_a_step_that_was_taken_back_within_the_second_fails(self, tmp_path):
        rows = books()
        rows[4]["clock_jump_ns"] = 2 * MS
        check = checks(tmp_path / "run", client=rows)["clock"]
        assert (check.status, check.value) == ("fail", 2.0)

    def test_slow_drift_is_no_step(self, tmp_path):
        rows = books()
        for second, row in enumerate(rows):
            row["clock_step_ns"] = 20_000 * second
        assert checks(tmp_path / "run", client=rows)["clock"].status == "ok"


class TestTokenCounts:
    def test_one_token_off_fails_on_a_server_of_our_own(self, tmp_path):
        check = checks(tmp_path / "run", server=scrapes(output=OUTPUT + 1), isolation="exclusive")["token_counts"]
        assert (check.status, check.value) == ("fail", 1.0)

    def test_on_a_shared_server_more_is_expected_but_less_is_not(self, tmp_path):
        more = checks(tmp_path / "more", server=scrapes(output=OUTPUT + 50), isolation="shared")
        less = checks(tmp_path / "less", server=scrapes(output=OUTPUT - 1), isolation="shared")
        assert (more["token_counts"].status, less["token_counts"].status) == ("ok", "fail")

    def test_cut_off_requests_make_it_a_bound(self, tmp_path):
        rows = [*ROWS, Row(at=5000.0, status="timeout", gaps=[20.0])]
        found = checks(tmp_path / "run", rows, server=scrapes(PROMPT + 10, OUTPUT + 7, 401), isolation="exclusive")
        assert found["token_counts"].status == "ok"
        assert found["foreign_traffic"].status == "ok"

    def test_all_phases_count(self, tmp_path):
        rows = [replace(row, phase="warmup") if i < 100 else row for i, row in enumerate(ROWS)]
        assert checks(tmp_path / "run", rows, server=scrapes(), isolation="exclusive")["token_counts"].status == "ok"

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ({}, "not sampled"),
            ({"server": [(0.0, "other_metric", "{}", 1.0)]}, "no token counters"),
            ({"server": scrapes(first=1.0)}, "first scrape of /metrics came after the first request"),
            ({"server": scrapes(last=2.0)}, "last scrape of /metrics came before"),
        ],
    )
    def test_what_can_not_be_checked_says_why(self, tmp_path, options, why):
        found = checks(tmp_path / "run", isolation="exclusive", **options)
        for name in ("token_counts", "foreign_traffic"):
            assert found[name].status == "unchecked"
            assert why in found[name].why


class TestForeignTraffic:
    def test_one_request_of_somebody_else_fails_on_a_server_of_our_own(self, tmp_path):
        check = checks(tmp_path / "run", server=scrapes(finished=401), isolation="exclusive")["foreign_traffic"]
        assert (check.status, check.value, check.unit) == ("fail", 1.0, "requests")

    def test_on_a_shared_server_2_percent_of_the_tokens_may_be_others(self, tmp_path):
        little = checks(tmp_path / "little", server=scrapes(PROMPT + 100), isolation="shared")["foreign_traffic"]
        much = checks(tmp_path / "much", server=scrapes(PROMPT + 200), isolation="shared")["foreign_traffic"]
        assert little.status == "ok"
        assert little.value == pytest.approx(100 * 100 / 6100)
        assert (much.status, much.unit) == ("fail", "%")

    def test_what_a_cut_off_request_asked_for_may_have_been_made(self, tmp_path):
        """The server notices a closed connection late, or only when it is done."""
        cut = [Row(at=5.0 * i, status="cancelled", gaps=[20.0] * 49) for i in range(100)]
        rows = [*ROWS, *cut]
        # Of the 50 tokens that each asked for, 10 had come.
        run_dir = fabricate(tmp_path / "run", rows, server=scrapes(PROMPT + 1000, OUTPUT + 5000), isolation="shared")
        collect(run_dir)
        path = run_dir / "requests.parquet"
        table = pq.read_table(path)
        chunks = pa.array([min(n, 10) for n in table["chunks"].to_pylist()], pa.int32())
        pq.write_table(table.set_column(table.column_names.index("chunks"), "chunks", chunks), path)
        found = {check.name: check for check in server_checks(analyse(run_dir))}["foreign_traffic"]
        assert (found.status, found.value) == ("ok", 0.0)
        assert "100 requests that were cut off" in found.why

    def test_beyond_all_they_asked_for_it_is_somebody_else_s(self, tmp_path):
        rows = [*ROWS, *(Row(at=5.0 * i, status="cancelled", gaps=[20.0] * 9) for i in range(100))]
        told = scrapes(PROMPT + 1000, OUTPUT + 1000 + 400)
        found = checks(tmp_path / "run", rows, server=told, isolation="shared")["foreign_traffic"]
        assert found.status == "fail"
        assert found.value == pytest.approx(100 * 400 / (4000 + 1000 + 2000 + 1000 + 400))

    def test_cut_off_requests_of_unknown_length_leave_it_unchecked(self, tmp_path):
        rows = [*ROWS, Row(at=5.0, status="cancelled", prompt_tokens=0)]
        found = checks(tmp_path / "run", rows, server=scrapes(PROMPT + 500), isolation="shared")["foreign_traffic"]
        assert found.status == "unchecked"


def test_lost_rows_beyond_a_thousandth_make_the_run_invalid(tmp_path):
    rows = [replace(row, reported=i != 7) for i, row in enumerate(ROWS)]
    run_dir = fabricate(tmp_path / "run", rows, ended_ns=9 * S)
    stream = run_dir / "spool" / "injector-0.arrows"
    stream.write_bytes(stream.read_bytes()[:-8])
    collect(run_dir)
    summary = summarize(run_dir).to_json()
    assert summary["valid"] is False
    assert summary["load"]["requests"]["lost"] == 1
    assert any(
        reason.startswith("lost_rows: 0.25 %, at most 0.1 % is allowed") for reason in summary["invalid_reasons"]
    )
    assert summary["exit_code"] == 4


def test_a_reason_names_the_check_its_figure_its_bound_and_the_remedy(tmp_path):
    late = [replace(row, late=6.0) for row in ROWS]
    reason = checks(tmp_path / "run", late)["dispatch_lag"].reason()
    assert reason == (
        "dispatch_lag: 6 ms, at most 5 ms is allowed; p99 of the dispatch lag. "
        "Lower the rate, add --injectors, or free a core for the load generator."
    )


class TestFiles:
    """A run directory that is not what it was when the run ended."""

    def run(self, run_dir, **options):
        collect(fabricate(run_dir, ROWS, **options))
        return run_dir

    def test_a_hand_edited_file_makes_the_run_invalid_by_name(self, tmp_path):
        run_dir = self.run(tmp_path / "run")
        table = pq.read_table(run_dir / "requests.parquet")
        pq.write_table(table.slice(0, 300), run_dir / "requests.parquet")
        summary = summarize(run_dir).to_json()
        assert summary["exit_code"] == 4
        assert any(
            "files: after the run" in reason and "requests.parquet" in reason for reason in summary["invalid_reasons"]
        )

    @pytest.mark.parametrize(
        ("name", "lacks"),
        [("arrivals.parquet", "no ITL"), ("client.parquet", "kept up can't be checked"), ("plan.parquet", "no reuse")],
    )
    def test_without_an_optional_file_the_rest_is_reported(self, tmp_path, name, lacks):
        run_dir = self.run(tmp_path / "run")
        (run_dir / name).unlink()
        summary = summarize(run_dir).to_json()
        assert summary["latency_ms"]["ttft"]["n"] == 400
        assert any(name in notice and lacks in notice for notice in summary["notices"])

    def test_a_half_written_telemetry_file_is_said_and_left_out(self, tmp_path):
        run_dir = self.run(tmp_path / "run", server=scrapes())
        path = run_dir / "server.parquet"
        path.write_bytes(path.read_bytes()[:-20])
        summary = summarize(run_dir).to_json()
        assert summary["server"] == {}
        assert any("server.parquet is damaged" in notice for notice in summary["notices"])

    def test_telemetry_that_was_never_sampled_is_no_news(self, tmp_path):
        assert summarize(self.run(tmp_path / "run")).to_json()["notices"] == []


class TestWarmth:
    """The first tenth of the answers against the rest."""

    def rows(self, early=2.0, pause=50.0):
        return [Row(at=pause * i, gaps=[20.0 * (early if i < 20 else 1.0)] * 9) for i in range(200)]

    def test_slower_first_answers_fail(self, tmp_path):
        check = checks(tmp_path / "run", self.rows())["warmth"]
        assert (check.status, check.value) == ("fail", 2.0)
        assert "warm-up" in check.remedy

    def test_a_little_slower_is_within_the_bound(self, tmp_path):
        assert checks(tmp_path / "run", self.rows(early=1.2))["warmth"].status == "ok"

    def test_faster_arrivals_at_the_start_explain_slower_answers(self, tmp_path):
        rows = [
            Row(at=10.0 * i if i < 20 else 200 + 50.0 * (i - 20), gaps=row.gaps) for i, row in enumerate(self.rows())
        ]
        assert checks(tmp_path / "run", rows)["warmth"].status == "ok"

    def test_a_warm_up_that_never_became_steady_fails(self, tmp_path):
        told = {"settle": {"steady": False, "seconds": 180.4, "requests": 400}}
        check = checks(tmp_path / "run", self.rows(early=1.0), telemetry=told)["warmth"]
        assert check.status == "fail" and "not steady after 180 s of warm-up" in check.why

    def test_too_few_requests_are_not_judged(self, tmp_path):
        assert checks(tmp_path / "run", self.rows()[:150])["warmth"].status == "unchecked"


class TestCache:
    """Cached prompt tokens against what the plan repeats."""

    def rows(self, cached):
        return [Row(at=20.0 * i, prompt_tokens=1000, cached_tokens=cached, gaps=[5.0]) for i in range(100)]

    def test_tokens_cached_beyond_the_plan_fail_where_the_cache_was_declared_isolated(self, tmp_path):
        check = checks(tmp_path / "run", self.rows(200), cache="isolated")["cache"]
        assert (check.status, check.value) == ("fail", pytest.approx(20.0 - 6.4))

    def test_a_chat_templates_worth_is_allowed(self, tmp_path):
        assert checks(tmp_path / "run", self.rows(64), cache="isolated")["cache"].status == "ok"

    def test_as_is_is_only_reported(self, tmp_path):
        check = checks(tmp_path / "run", self.rows(900), cache="as-is")["cache"]
        assert check.status == "ok"
        assert "90.0 %" in check.why

    def test_a_server_that_does_not_tell_is_not_checked(self, tmp_path):
        assert checks(tmp_path / "run", self.rows(None), cache="isolated")["cache"].status == "unchecked"


class TestSeveralServersBehindOneUrl:
    def test_counters_of_replicas_in_turn_check_nothing_and_the_reason_is_said(self, tmp_path):
        one, other = scrapes(PROMPT / 2, OUTPUT / 2, 200), scrapes(PROMPT, OUTPUT, 90, first=0.4, last=9.5)
        run = tmp_path / "run"
        births = [(t, "process_start_time_seconds", "{}", 5.0 + (t in (0.4, 9.5))) for t in (-0.1, 0.4, 9.0, 9.5)]
        found = checks(run, server=[*one, *other, *births], isolation="exclusive")
        for name in ("token_counts", "foreign_traffic"):
            assert found[name].status == "unchecked"
            assert found[name].why.startswith("several servers answer behind http://127.0.0.1:8000: name them")
        summary = summarize(run)
        assert summary.valid and summary.server is None
        assert sum("several servers answer behind" in notice for notice in summary.notices) == 1

    def test_so_it_is_where_they_were_found_before_the_load(self, tmp_path):
        manifest = {"telemetry": {"several_behind": ["http://127.0.0.1:8000"]}}
        found = checks(tmp_path / "run", server=scrapes(PROMPT / 2, OUTPUT / 2, 200), **manifest)
        assert found["token_counts"].status == "unchecked"

    def test_one_server_with_half_the_tokens_still_fails(self, tmp_path):
        found = checks(tmp_path / "run", server=scrapes(PROMPT / 2, OUTPUT / 2, 200))
        assert found["token_counts"].status == "fail"


class TestBursts:
    """Late sending that makes other bursts than planned makes another load: 20 requests a second over 20 s."""

    STEADY = tuple(Row(at=50.0 * k, ttft=5.0) for k in range(400))

    def test_a_second_s_requests_that_are_sent_together_fail(self, tmp_path):
        stopped = [
            replace(row, late=2000.0 - (row.at - 4000.0)) if 4000 <= row.at < 6000 else row for row in self.STEADY
        ]
        check = checks(tmp_path / "run", stopped, seconds=20.0)["bursts"]
        assert check.status == "fail" and check.value > 100

    def test_a_handful_beside_a_second_s_edge_is_nothing(self, tmp_path):
        late = [replace(row, late=60.0) if row.at in (3950.0, 8950.0) else row for row in self.STEADY]
        assert "bursts" not in checks(tmp_path / "run", late, seconds=20.0)

    def test_a_closed_loop_has_no_planned_bursts(self, tmp_path):
        assert "bursts" not in checks(tmp_path / "run", self.STEADY, seconds=20.0, loop="closed")
