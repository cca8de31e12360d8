"""Where a slower side is looked at first: by what its server says."""

from tests.kit.gate_runs import campaign, gpus, noisy, pairs, phase, policy, run, summary

from tailgate.reports.verdicts.gate.causes import causes
from tailgate.reports.verdicts.gate.verdict import judge


def server(queue=1.0, prefill=50.0, decode=400.0, **more):
    phases = {"queue": phase(queue), "prefill": phase(prefill), "decode": phase(decode)}
    return {"phases": phases, "waiting": {"mean": queue / 10}, "running": {"mean": 5.0}, "max_num_seqs": 16} | more


def places(base, other):
    sides = [
        [run(side, k, summary(server=found)) for k in (1, 2)]
        for side, found in (("baseline", base), ("candidate", other))
    ]
    return causes(*sides)


def test_nothing_different_is_no_cause():
    assert places(server(), server()) == []


def test_a_server_that_tells_nothing_is_not_guessed_about():
    assert places({}, {}) == []


def test_queueing_is_named_with_the_batch_that_became_smaller():
    (first,) = places(server(), server(queue=900.0, max_num_seqs=1))
    assert first.place == "queue" and "1 instead of 16 sequences" in first.says
    assert first.figures["queue_mean_ms"] == (1.0, 900.0)


def test_the_part_that_explains_most_comes_first():
    found = places(server(), server(queue=30.0, prefill=60.0, decode=900.0))
    assert [one.place for one in found] == ["decode", "queue", "prefill"]


def test_a_cold_cache_goes_before_the_prefill_that_it_lengthens():
    found = places(server(prefix_hit_share=0.8), server(prefill=200.0, prefix_hit_share=0.1))
    assert [one.place for one in found] == ["cache", "prefill"]


def test_lower_clocks_and_more_preemptions_are_seen():
    base = [run("baseline", 1, summary(server=server(preemptions=0), gpu=gpus(clock_mhz=1980.0)))]
    other = [run("candidate", 1, summary(server=server(preemptions=40), gpu=gpus(clock_mhz=1400.0)))]
    assert {one.place for one in causes(base, other)} == {"throttle", "preemption"}


def test_a_fail_says_where_to_look_first():
    runs = pairs(noisy(0.5, 0.01, 5))
    for one in runs:
        one.figures["server"] = server(queue=1.0 if one.label == "baseline" else 400.0)
    found = judge(runs, policy(pairs=5, extension=None), campaign(5))
    assert found.causes[0].place == "queue"
    assert found.advice[0].startswith("Look first at the queue: Requests wait longer")
