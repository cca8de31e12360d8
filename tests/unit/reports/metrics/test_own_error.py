"""The instrument's own error: the truth lies within every interval, and a verdict counts the side that hurts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kit.fabricate import Row, fabricate

from tailgate.loadgen.injector.api.openai_response import Reading
from tailgate.loadgen.injector.http.token_stream import TokenStream
from tailgate.loadgen.records import CENSORED
from tailgate.reports.metrics.analysis import Analysis, analyse
from tailgate.reports.metrics.arrival_bounds import Intervals, arrival_bounds
from tailgate.reports.metrics.own_error import certified
from tailgate.reports.rundir.collect import collect
from tailgate.reports.summary.summary import summarize

TOKEN = b'data: {"choices":[{"index":0,"text":"x","finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"text":"x","finish_reason":"stop"}]}\n\n'
US = 1_000
T0 = 10**15


def read_as_polled(
    truth_ns: list[int], polls_ns: list[int], tail: bytes, unstamped: set[int], room: int
) -> TokenStream:
    """A stream whose events came at these times, as a client has it that looked at these times (rising).

    The kernel left out the stamp of the reads of the `unstamped` looks. A read takes at most `room` events, and where
    it leaves some behind, its stamp is the last one's that was there: the kernel has merged them.
    """
    stream = TokenStream(Reading(chat=False, vllm=True), sent_ns=T0)
    taken, before_last, left_since = 0, T0, 0
    last_ns = max(truth_ns[-1], polls_ns[-1])
    looks = [*polls_ns, *(last_ns + US * k for k in range(1, len(truth_ns) + 2))]
    for number, look in enumerate(looks):
        there = sum(at <= look for at in truth_ns)
        if there > taken:
            takes = min(there - taken, room)
            body = TOKEN * takes
            if taken + takes == len(truth_ns):
                body = body[: -len(TOKEN)] + LAST + tail
            stream.pieces.append(body)
            stream.size += len(body)
            emptied, since = takes < room, left_since or before_last
            stamp = look if number in unstamped else truth_ns[there - 1]
            stream.received((stamp, look, since, emptied and number not in unstamped))
            taken, left_since = taken + takes, 0 if emptied else since
        before_last = look
    stream.digest(whole=True)
    return stream


@given(st.data())
@settings(max_examples=300)
def test_the_truth_lies_within_every_interval_under_any_reading(data: st.DataObject) -> None:
    gaps = data.draw(st.lists(st.integers(0, 50_000), min_size=1, max_size=25), "gaps, us")
    truth = (T0 + US * np.cumsum(gaps)).tolist()
    span = max(1, sum(gaps))
    looks = data.draw(st.lists(st.integers(0, 2 * span), min_size=1, max_size=30).map(sorted), "looks, us")
    tail = data.draw(st.sampled_from([b"", b"data: [DONE]\n\n"]))
    unstamped = data.draw(st.sets(st.integers(0, len(looks)), max_size=5), "looks without a stamp")
    room = data.draw(st.sampled_from([2, 5, 1000]), "events a read takes")
    stream = read_as_polled(truth, [T0 + US * at for at in looks], tail, unstamped, room)
    kept = np.frombuffer(stream.censored, CENSORED).astype(
        [("first", "i8"), ("count", "i8"), ("after_us", "i8"), ("last_exact", "?")]
    )
    flat = np.frombuffer(stream.arrivals_us, np.uint32).astype(np.int64)
    assert len(flat) == len(truth) and stream.first_ns is not None
    intervals = Intervals(kept["first"], kept["count"], kept["after_us"], kept["last_exact"])
    bounds = arrival_bounds(flat, np.array([0]), intervals)
    true_us = (np.array(truth) - stream.first_ns) / US
    assert (bounds.low_us <= true_us + 1).all() and (true_us <= bounds.high_us + 1).all()
    assert (bounds.low_us <= flat).all() and (flat <= bounds.high_us).all()
    true_gaps = np.diff(true_us)
    for x in {0.0, *true_gaps.tolist()}:  # of every length, no more gaps are longer than in the high multiset
        assert np.count_nonzero(true_gaps > x + 2) <= np.count_nonzero(bounds.gap_high_us[1:] > x)
        assert np.count_nonzero(bounds.gap_low_us[1:] > x + 2) <= np.count_nonzero(true_gaps > x)


def collected(folder: Path, rows: list[Row], **options: Any) -> Path:
    run_dir = fabricate(folder, rows, **options)
    collect(run_dir)
    return run_dir


ROWS = [Row(at=20.0 * i, ttft=50.0, gaps=[20.0] * 9) for i in range(400)]


def analysed(folder: Path, rows: list[Row], **options: object) -> Analysis:
    return analyse(collected(folder, rows, **options))


def test_exact_arrivals_have_no_error(tmp_path: Path) -> None:
    found = analysed(tmp_path / "run", ROWS)
    for name in ("ttft", "e2e", "tpot", "stall", "itl"):
        latency = found.latencies[name]
        value = latency.at(99).value
        assert value is not None and latency.errors["p99"] == pytest.approx((value, value), abs=1e-3)


def test_an_interval_widens_what_rests_on_it_and_nothing_else(tmp_path: Path) -> None:
    """Half of the answers' first tokens came up to 30 ms before the read that shows them."""
    wide = [replace(row, censored=[(0, 1, -30.0, False)]) if i % 2 else row for i, row in enumerate(ROWS)]
    found = analysed(tmp_path / "run", wide).latencies
    assert found["ttft"].errors["p99"] == pytest.approx((50.0, 50.0))
    assert found["ttft"].errors["p50"] == pytest.approx((20.0, 50.0))
    assert found["ttft"].errors["mean"] == pytest.approx((35.0, 50.0))
    assert found["tpot"].errors["p99"] == pytest.approx((20.0, 20.0 + 30 / 9))
    assert found["itl"].errors["p50"] == pytest.approx((20.0, 20.0))
    assert found["itl"].errors["p99"] == pytest.approx((20.0, 50.0))


def test_a_request_that_was_sent_late_lies_between_sending_and_plan(tmp_path: Path) -> None:
    late = [replace(row, late=12.0) if i == 7 else row for i, row in enumerate(ROWS)]
    figures = analysed(tmp_path / "run", late).figures
    assert figures.ms["ttft"][7] == pytest.approx(62.0)
    # What was due while it was late met another queue: by 12 ms and one step of 20 ms, either way.
    assert (figures.low["ttft"][7], figures.high["ttft"][7]) == (pytest.approx(18.0), pytest.approx(94.0))
    assert (figures.low["ttft"][8], figures.high["ttft"][8]) == (pytest.approx(18.0), pytest.approx(82.0))
    assert (figures.low["ttft"][9], figures.high["ttft"][9]) == (pytest.approx(50.0), pytest.approx(50.0))


@pytest.mark.parametrize(
    ("limit", "verdict"),
    [(100, "PASS"), (45, "INVALID"), (15, "FAIL")],
    ids=["worst holds", "can't tell", "best fails"],
)
def test_only_an_error_that_changes_the_answer_voids_it(tmp_path: Path, limit: int, verdict: str) -> None:
    wide = [replace(row, censored=[(0, 1, -30.0, False)]) for row in ROWS]
    found = summarize(collected(tmp_path / "run", wide, slo={"ttft": f"p90 < {limit}ms"}))
    assert found.verdict == verdict
    (objective,) = found.objectives
    assert objective.own_error == pytest.approx((20.0, 50.0))
    check = next(check for check in found.checks if check.name == "own_error")
    assert check.status == ("fail" if verdict == "INVALID" else "ok")
    if verdict == "INVALID":
        assert (check.value, check.bound) == (pytest.approx(15.0), pytest.approx(1.0))


def test_without_objectives_the_usual_figures_must_be_certified(tmp_path: Path) -> None:
    wide = [replace(row, censored=[(0, 1, -3.0, False)]) for row in ROWS]
    assert summarize(collected(tmp_path / "wide", wide)).verdict == "INVALID"
    narrow = [replace(row, censored=[(0, 1, -1.0, False)]) for row in ROWS]
    assert summarize(collected(tmp_path / "narrow", narrow)).verdict == "PASS"


def test_runs_of_before_are_judged_by_their_own_rules(tmp_path: Path) -> None:
    run = collected(tmp_path / "run", [replace(row, late=40.0) for row in ROWS], slo={"ttft": "p99 < 1s"})
    assert summarize(run).verdict == "PASS"
    path = run / "arrivals.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["censored"]), path)
    found = summarize(run)
    by_name = {check.name: check for check in found.checks}
    assert by_name["dispatch_lag"].status == "fail" and by_name["own_error"].status == "unchecked"
    assert "rules of its time" in by_name["own_error"].why
    assert not found.latency_ms["ttft"].errors


@pytest.mark.parametrize(("value", "half", "holds"), [(10.0, 0.9, True), (10.0, 1.1, False), (100.0, 1.9, True)])
def test_certified_is_a_millisecond_or_two_percent(value: float, half: float, holds: bool) -> None:
    assert certified(value, (value - half, value + half)) is holds


def test_what_a_new_connection_takes_is_no_lateness_of_ours(tmp_path: Path) -> None:
    slow = [replace(row, connect=90.0) for row in ROWS]
    figures = analysed(tmp_path / "run", slow).figures
    assert figures.low["ttft"][7] == pytest.approx(figures.ms["ttft"][7]) == pytest.approx(140.0)


def test_too_few_requests_for_the_percentile_are_judged_by_their_share_and_by_what_we_did(tmp_path: Path) -> None:
    """40 requests sent 900 ms late by us: that they took longer than 800 ms says nothing of the server."""
    late = [replace(row, late=900.0) for row in ROWS[:40]]
    found = summarize(collected(tmp_path / "run", late, slo={"ttft": "p99 < 800ms"}))
    assert (found.verdict, found.objectives[0].result) == ("INVALID", "can't tell")
    slow = [replace(row, ttft=900.0) for row in ROWS[:40]]
    assert summarize(collected(tmp_path / "slow", slow, slo={"ttft": "p99 < 800ms"})).verdict == "FAIL"


@pytest.mark.parametrize("objective", [{"attained": ">= 99%"}, {"goodput": "> 30/s"}])
def test_good_requests_count_at_both_ends(tmp_path: Path, objective: dict[str, str]) -> None:
    slo = {"good": "ttft < 100ms", **objective}
    late = [replace(row, late=150.0) for row in ROWS]
    assert summarize(collected(tmp_path / "late", late, slo=slo)).verdict == "INVALID"
    slow = [replace(row, ttft=200.0) for row in ROWS]
    assert summarize(collected(tmp_path / "slow", slow, slo=slo)).verdict == "FAIL"
