"""The kill switch: what trips it, what doesn't, and what a stopped run leaves."""

import time
from typing import Any

import pytest

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.load.kill_switch import KillSwitch
from tailgate.workloads.common.errors import UserError


def tick(
    ok: int = 0, failed: int = 0, ttft_ms: list[float] | None = None, waiting_ms: list[float] | None = None, **more: Any
) -> dict[str, Any]:
    """An injector's second: all that ended since the start, what ended now (just after its token), what still waits."""
    ended = [(ms, ms, True) for ms in ttft_ms or []]
    still = [(ms, None, None) for ms in waiting_ms or []]
    told = {"ended": ended, "ended_n": len(ended), "open": still, "in_flight": len(still), "itl_ms": []}
    return {"injector": 0, "statuses": {"ok": ok, "http_error": failed}, "abandoned": 0, **told, **more}


def test_an_error_share_beyond_the_limit_trips_it() -> None:
    switch = KillSwitch({"errors": "5%"}, None)
    assert switch.tick(tick(ok=95, failed=5), 1) is None
    why = switch.tick(tick(ok=94, failed=6), 2)
    assert why is not None and why.rule == "errors" and "6.0%" in why.text


def test_a_first_failure_does_not_trip_it() -> None:
    assert KillSwitch({"errors": "5%"}, None).tick(tick(ok=3, failed=1), 1) is None


def test_an_outage_after_a_good_hour_trips_it_within_seconds() -> None:
    switch = KillSwitch({"errors": "5%"}, None)
    assert not any(switch.tick(tick(ok=12 * second), second) for second in range(1, 3601))
    tripped = [switch.tick(tick(ok=12 * 3600, failed=12 * k), 3600 + k) for k in range(1, 11)]
    assert any(tripped), "ten seconds of nothing but errors"
    assert "in the last 30 s" in next(why.text for why in tripped if why)


def test_users_who_hung_up_on_an_answer_are_no_errors() -> None:
    switch = KillSwitch({"errors": "5%"}, None)
    hung_up = tick(statuses={"ok": 60, "cancelled": 40}, abandoned=40)
    assert switch.tick(hung_up, 1) is None
    switch = KillSwitch({"errors": "5%"}, None)
    assert switch.tick({**hung_up, "abandoned": 0}, 1) is not None, "they waited in vain for a first token"


def test_a_slow_server_trips_a_tail_at_twelve_requests_a_second() -> None:
    switch = KillSwitch({"ttft": "p99 > 10s"}, None)
    why = switch.tick(tick(ttft_ms=[60_000.0] * 12), 61)
    assert why is None, "the limit of these passed more than half a minute ago"
    switch = KillSwitch({"ttft": "p99 > 10s"}, None)
    why = switch.tick(tick(ttft_ms=[15_000.0] * 12), 16)
    assert why is not None and why.rule == "ttft" and "100.0%" in why.text


def test_a_hung_server_trips_it_although_nothing_ends() -> None:
    switch = KillSwitch({"ttft": "p99 > 10s"}, None)
    for second in range(1, 60):  # one request a second, none is ever answered
        why = switch.tick(tick(waiting_ms=[1000.0 * k for k in range(second, 0, -1)]), second)
        if why:
            break
    assert 13 <= second <= 17, why


def test_a_server_that_hangs_in_the_middle_of_its_answers_trips_the_gap() -> None:
    switch = KillSwitch({"itl": "p99 > 2s"}, None)
    moving = [(8_000.0, 100.0, 20.0)] * 50
    stuck = [(8_000.0, 100.0, 5_000.0)] * 50
    assert switch.tick(tick(open=moving, in_flight=50, itl_ms=[20.0] * 200), 1) is None
    assert switch.tick(tick(open=stuck, in_flight=50), 2) is not None


def test_a_few_stragglers_do_not_trip_a_tail() -> None:
    switch = KillSwitch({"ttft": "p99 > 1s"}, None)
    # The share is just what the percentile allows: 3.6 expected in half a minute, now and then twice as many.
    for second in range(1, 120):
        slow = [5_000.0] * (8 if second % 60 == 30 else 0)
        assert switch.tick(tick(ttft_ms=[100.0] * 12 + slow), second) is None


def test_long_requests_are_not_counted_twice() -> None:
    """Half a percent of the requests takes a minute: in flight they are many more than that."""
    switch = KillSwitch({"ttft": "p99 > 10s"}, None)
    for second in range(1, 300):
        old = [1000.0 * k for k in range(min(second, 60), 0, -1)]  # one of 200 a second
        done = [60_000.0] if second > 60 else []
        assert switch.tick(tick(ttft_ms=[100.0] * 199 + done, waiting_ms=old), second) is None


def test_what_was_picked_stands_for_all() -> None:
    switch = KillSwitch({"e2e": "p50 > 1s"}, None)
    picked = [(100.0, 50.0, True)] * 40
    slow = [(5_000.0, None, None)] * 200
    assert switch.tick(tick(ended=picked, ended_n=40, open=slow[:40], in_flight=40), 6) is None
    assert switch.tick(tick(ended=picked, ended_n=40, open=slow, in_flight=2_000), 7) is not None


def test_latencies_older_than_half_a_minute_are_forgotten() -> None:
    switch = KillSwitch({"ttft": "p50 > 1s"}, None)
    switch.tick(tick(ttft_ms=[5_000.0] * 19), 0)
    assert switch.tick(tick(ttft_ms=[10.0] * 200), 31) is None


def test_spend_is_elapsed_time_at_the_price() -> None:
    switch = KillSwitch({"spend": "$5"}, 3600.0)
    assert switch.tick(tick(), 4.9) is None
    why = switch.tick(tick(), 5.0)
    assert why is not None and why.rule == "spend"


def test_spend_counts_from_the_launch() -> None:
    switch = KillSwitch({"spend": "$5"}, 3600.0)
    switch.load_begins(time.time_ns() + 4_000_000_000)  # the server took four seconds to come up
    assert switch.tick(tick(), 0.5) is None
    assert switch.tick(tick(), 1.5) is not None


UNREACHABLE = [
    ({"errors": "> 100%"}, {}, "100 %"),
    ({"ttft": "p99 > 10s"}, {"timeout": "5s"}, "timeout"),
    ({"e2e": "p99 > 60s"}, {"drain": "5s"}, "whole run"),
    ({"ttft": "p99 > 1s"}, {"streamed": False}, "TTFT"),
    ({"errors": "5%"}, {"requests": 19}, "20 requests"),
]


@pytest.mark.parametrize(("rules", "spec", "word"), UNREACHABLE)
def test_a_rule_that_can_never_trip_is_refused(rules: dict[str, str], spec: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word):
        KillSwitch(rules, None).refuse_unreachable(planned(**spec))


def test_a_rule_that_can_trip_is_taken() -> None:
    KillSwitch({"ttft": "p99 > 2s", "errors": "50%"}, None).refuse_unreachable(planned(timeout="5s"))


def planned(requests: int = 100, **spec: Any) -> RunSpec:
    workload = {"prompt_tokens": 8, "output_tokens": 8, "arrivals": {"process": "poisson", "rate": 5}, "duration": 10}
    target = {"url": "http://x"}
    return RunSpec.model_validate({"target": target, "workload": {**workload, "requests": requests}, **spec})


NONSENSE = [
    ({"spend": "$5"}, "price"),
    ({"spend": "five"}, "five"),
    ({"spend": "nan"}, "nan"),
    ({"spend": "-5"}, "-5"),
    ({"spend": "$0"}, "0"),
    ({"ttft": "min > 1s"}, "ttft"),
    ({"ttft": "p99 < 1s"}, "ttft"),
    ({"attained": ">= 9%"}, "9%"),
]


@pytest.mark.parametrize(("rules", "word"), NONSENSE)
def test_a_condition_that_makes_no_sense_is_refused(rules: dict[str, str], word: str) -> None:
    with pytest.raises(UserError, match=word):
        KillSwitch(rules, 1.0 if word in rules.get("spend", "") else None)


def test_a_first_token_counts_when_it_came_and_not_when_the_answer_ended() -> None:
    switch = KillSwitch({"ttft": "p50 > 1s"}, None)
    answering = [(40_000.0 - 500 * k, 100.0, 20.0) for k in range(60)]
    assert (
        switch.tick(tick(open=answering, in_flight=60, ended=[(2_000.0, 1_500.0, True)] * 10, ended_n=10), 41) is None
    )
