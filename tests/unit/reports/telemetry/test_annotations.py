"""Events read off the samples, on series whose story is known."""

import json
from collections.abc import Sequence

import pyarrow as pa

from tailgate.reports.rundir.telemetry import GPU_SCHEMA, SERVER_SCHEMA, Telemetry
from tailgate.reports.telemetry.annotations import annotations

S = 1_000_000_000


def server(*series: tuple[str, str, Sequence[float]], engine: str = "0") -> Telemetry:
    """Series (endpoint, name, one value a second; None: not sampled)."""
    rows = [
        (t * S, endpoint, name, json.dumps({"engine": engine}), value)
        for endpoint, name, values in series
        for t, value in enumerate(values)
    ]
    columns = [list(c) for c in zip(*rows, strict=True)]
    return Telemetry(pa.table(columns, schema=SERVER_SCHEMA), ("endpoint", "labels"))


def gpu(values: Sequence[float]) -> Telemetry:
    count = len(values)
    columns = [[t * S for t in range(count)], ["GPU-a"] * count, ["throttle_reasons"] * count, list(values)]
    return Telemetry(pa.table(columns, schema=GPU_SCHEMA), ("gpu",))


def told(events: list[dict[str, object]]) -> list[tuple[float, str, str]]:
    return [(int(str(e["t_ns"])) / S, str(e["kind"]), str(e["text"])) for e in events]


def test_endpoints_that_go_and_come_are_scale_events_with_their_number():
    found = annotations(server(("a", "up", [1, 1, 0, 0, 1]), ("b", "up", [1, 1, 1, 1, 1])), None)
    assert told(found) == [
        (2, "scale", "a no longer answers /metrics: 1 of 2 endpoints do"),
        (4, "scale", "a answers /metrics again: 2 of 2 endpoints do"),
    ]


def test_a_new_process_behind_an_address_is_a_restart():
    found = annotations(server(("a", "process_start_time_seconds", [100, 100, 130, 130])), None)
    assert told(found) == [(2, "restart", "a was restarted: its counters began anew")]


def test_replicas_that_answer_in_turn_were_not_restarted():
    samples = server(
        ("a", "up", [1, 1, 0, 1]),
        ("a", "process_start_time_seconds", [100, 130, 100, 130]),
        ("a", "vllm:num_preemptions_total", [0, 50, 0, 60]),
    )
    assert told(annotations(samples, None)) == [
        (2, "scale", "a no longer answers /metrics: 0 of 1 endpoints do"),
        (3, "scale", "a answers /metrics again: 1 of 1 endpoints do"),
    ]


def test_replicas_that_were_seen_before_the_load_were_not_restarted():
    later = server(("a", "process_start_time_seconds", [100, 100, 130]))
    assert annotations(later, None, ["a"]) == []


def test_preemptions_are_told_as_bursts_not_one_by_one():
    counter = [0, 0, 4, 9, 9, 9, 9, 9, 10, 10, 10, 10, 30]
    found = annotations(server(("a", "vllm:num_preemptions_total", counter)), None)
    assert told(found) == [
        (1, "preemption", "a: 9 preemptions in 2.0 s"),
        (11, "preemption", "a: 20 preemptions in 1.0 s"),
    ]


def test_preemptions_from_before_the_run_are_no_event():
    assert annotations(server(("a", "vllm:num_preemptions_total", [500, 500, 500])), None) == []


def test_an_engine_that_appears_or_vanishes_is_a_scale_event():
    base = server(("a", "vllm:num_requests_running", [1, 1, 1, 1]))
    extra = server(("a", "vllm:num_requests_running", [0, 0, 0, 0]), engine="1").table.slice(1, 2)
    both = Telemetry(pa.concat_tables([base.table, extra]), ("endpoint", "labels"))
    assert told(annotations(both, None)) == [(1, "scale", "a: engine 1 appeared"), (2, "scale", "a: engine 1 is gone")]


def test_throttling_is_told_when_it_begins_changes_and_ends_but_a_power_cap_is_not_throttling():
    found = annotations(None, gpu([0, 0x04, 0x44, 0x40, 0xC0, 0x04]))
    assert told(found) == [
        (2, "throttle", "GPU-a throttled: hardware thermal slowdown"),
        (4, "throttle", "GPU-a throttled: hardware thermal slowdown, hardware power brake"),
        (5, "throttle", "GPU-a no longer throttled"),
    ]


def test_nothing_sampled_is_nothing_told():
    assert annotations(None, None) == []


def test_an_endpoint_that_comes_up_as_a_new_process_had_a_cold_start():
    found = annotations(
        server(("a", "up", [1, 0, 0, 0, 1, 1]), ("a", "process_start_time_seconds", [100, 100, 100, 100, 103, 103])),
        None,
    )
    assert (
        4,
        "cold-start",
        "a answers /metrics as a new process, after 3.0 s without an answer: 1 of 1 endpoints do",
    ) in (told(found))
