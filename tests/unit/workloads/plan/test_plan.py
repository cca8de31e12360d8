"""A plan is a function of (spec, seed): its laws, its phases, its hashes, its endless closed sequence."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.config.workload import WorkloadSpec
from tailgate.workloads.plan.plan import Plan, closed_rows, make_plan, open_columns, read_plan, write_plan
from tailgate.workloads.plan.request_classes import classes_of
from tailgate.workloads.plan.requests import longest
from tailgate.workloads.statistics.arrivals import spearman
from tailgate.workloads.table.columns import NO_TIME, PLAN_SCHEMA
from tailgate.workloads.table.hashing import plan_hash

OPEN: dict[str, Any] = {
    "prompt_tokens": "lognormal(6, 1)",
    "output_tokens": "uniform(1, 200)",
    "arrivals": {"process": "gamma", "rate": "20/s", "shape": 0.5},
    "duration": "60s",
}
MIXED: dict[str, Any] = {
    "classes": {
        "chat": {
            "weight": 0.7,
            "prompt_tokens": "lognormal(4, 1)",
            "output_tokens": "lognormal(5, 0.8)",
            "sessions": {"turns": "uniform(1, 5)", "think": "exponential(3)", "new_tokens": "uniform(5, 90)"},
            "prefix": {"system_tokens": 200},
        },
        "batch": {"weight": 0.3, "priority": 10, "prompt_tokens": 3000, "output_tokens": 100},
    },
    "tenants": {"a": {"weight": 3}, "b": {"weight": 1}},
}


def plan(seed: int = 1, **spec: Any) -> Plan:
    return make_plan(WorkloadSpec.model_validate(spec), seed)


def column(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy()


def test_a_plan_has_the_schema_and_ascending_times() -> None:
    table = plan(**OPEN).table
    assert table.schema.equals(PLAN_SCHEMA)
    assert (np.diff(column(table, "at_ns")) >= 0).all()
    assert column(table, "index").tolist() == list(range(table.num_rows))


def test_the_hash_of_a_plan_is_pinned() -> None:
    # The same on every machine and with every version of NumPy; if it must change, so must hashing.GENERATOR.
    assert plan(7, **OPEN).plan_hash == "661f3e50f3871fa251b85ba69325e549"
    assert plan(7, **MIXED, arrivals={"rate": "5/s"}, duration=60).plan_hash == "d2af4e805ea64851bd6b12045a107a6e"
    assert plan(7, profile="code-completion").plan_hash == "0d69bcf043e91c55346ed880a033680e"


def test_equal_seeds_give_equal_plans_and_others_dont() -> None:
    assert plan(7, **OPEN).plan_hash == plan(7, **OPEN).plan_hash != plan(8, **OPEN).plan_hash


def test_the_workloads_hash_leaves_out_seed_rate_and_users_but_nothing_else() -> None:
    base = plan(1, **OPEN).workload_hash
    assert plan(2, **OPEN | {"arrivals": OPEN["arrivals"] | {"rate": "30/s"}}).workload_hash == base
    assert plan(1, **OPEN | {"output_tokens": 7}).workload_hash != base
    closed = OPEN | {"arrivals": None}
    assert plan(1, **closed, users=2).workload_hash == plan(1, **closed, users=4).workload_hash != base


def test_a_traces_rate_is_no_part_of_its_workloads_hash(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("at,in,out\n" + "".join(f"{i}.0,8,8\n" for i in range(40)))
    columns = {"time": "at", "prompt_tokens": "in", "output_tokens": "out"}
    trace = {"file": str(tmp_path / "t.csv"), "format": "csv", "columns": columns}
    hashes = {
        plan(1, trace=trace | more).workload_hash for more in ({}, {"rate": "5/s"}, {"rate": "10/s"}, {"speed": 2})
    }
    assert len(hashes) == 1
    assert plan(1, trace=trace, length_scale=2).workload_hash not in hashes


@pytest.mark.parametrize("requests", [1, 2, 40])
def test_a_run_ended_by_number_offers_its_rate(requests: int) -> None:
    spec = {key: value for key, value in OPEN.items() if key != "duration"}
    made = plan(**spec | {"arrivals": {"process": "constant", "rate": "20/s"}}, requests=requests)
    assert requests / made.span_s == pytest.approx(20)


def test_the_plans_hash_is_of_values_not_of_how_they_are_stored(tmp_path: Path) -> None:
    made = plan(**MIXED, arrivals={"rate": "5/s"}, duration=60)
    write_plan(made, tmp_path / "plan.parquet")
    assert plan_hash(read_plan(tmp_path / "plan.parquet")) == made.plan_hash
    chunked = pa.concat_tables([made.table.slice(0, 10), made.table.slice(10)])
    assert plan_hash(chunked) == made.plan_hash
    changed = made.table.set_column(
        9, PLAN_SCHEMA.field("output_tokens"), pa.array(column(made.table, "output_tokens") + 1)
    )
    assert plan_hash(changed) != made.plan_hash


def test_a_file_that_is_no_plan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.parquet").write_text("no")
    with pytest.raises(UserError, match="not a plan"):
        read_plan(tmp_path / "plan.parquet")


def test_warm_up_comes_first_and_is_followed_by_the_duration() -> None:
    table = plan(**OPEN, warmup="10s").table
    at, phase = column(table, "at_ns") / 1e9, np.array(table["phase"].to_pylist())
    assert set(phase[at < 10]) == {"warmup"} and set(phase[at >= 10]) == {"measure"}
    assert 65 < at.max() < 70


def test_requests_are_counted_from_the_end_of_the_warm_up() -> None:
    spec = {key: value for key, value in OPEN.items() if key != "duration"}
    phases = plan(**spec, warmup="10s", requests=500).table["phase"].to_pylist()
    assert phases.count("measure") == 500 and phases.count("warmup") > 100


def test_what_ends_first_of_duration_and_requests_ends_the_run() -> None:
    assert plan(**OPEN, requests=5).table.num_rows == 5
    assert plan(**OPEN, requests=10**6).table.num_rows == pytest.approx(1200, rel=0.3)


def test_prompt_and_output_have_the_asked_rank_correlation() -> None:
    for rho in (-0.5, 0.0, 0.07, 0.8):
        table = plan(**OPEN | {"duration": "1000s"}, correlation=rho).table
        assert spearman(column(table, "prompt_tokens"), column(table, "output_tokens")) == pytest.approx(rho, abs=0.03)


def test_classes_come_by_weight_with_their_own_lengths_and_priorities() -> None:
    frame = plan(**MIXED, arrivals={"rate": "50/s"}, duration=100).table.to_pandas()
    starts = frame[frame.turn == 0]
    assert (starts["class"] == "chat").mean() == pytest.approx(0.7, abs=0.03)
    assert (starts.tenant == "a").mean() == pytest.approx(0.75, abs=0.03)
    batch = frame[frame["class"] == "batch"]
    assert set(batch.prompt_tokens) == {3000} and set(batch.priority) == {10}


def test_a_class_with_arrivals_of_its_own_keeps_them_apart() -> None:
    spec = MIXED | {
        "classes": MIXED["classes"]
        | {"own": {"arrivals": {"process": "constant", "rate": 2}, "prompt_tokens": 5, "output_tokens": 1}}
    }
    frame = plan(**spec, arrivals={"rate": "5/s"}, duration=60).table.to_pandas()
    own = frame[frame["class"] == "own"]
    assert np.diff(own.at_ns).tolist() == pytest.approx([0.5e9] * 119)


def test_a_tenant_that_turns_aggressor_does_so_in_its_window_of_the_measured_part() -> None:
    tenants = {"a": {"weight": 1}, "b": {"weight": 1, "surge": {"start": "60s", "end": "120s", "factor": 8}}}
    frame = plan(**OPEN | {"duration": "180s"}, warmup="30s", tenants=tenants).table.to_pandas()
    b = frame[frame.tenant == "b"].at_ns / 1e9
    inside, before = ((b >= 90) & (b < 150)).sum(), ((b >= 30) & (b < 90)).sum()
    assert inside / before == pytest.approx(8, rel=0.25)


def test_a_later_turn_has_no_time_but_a_pause_and_repeats_what_was_said() -> None:
    frame = plan(**MIXED, arrivals={"rate": "5/s"}, duration=60).table.to_pandas()
    chat = frame[frame["class"] == "chat"]
    later = chat[chat.turn > 0]
    assert later.at_ns.isna().all() and (later.think_ns > 0).all()
    assert chat[chat.turn == 0].at_ns.notna().all()
    assert (frame.groupby("session").turn.apply(list).map(lambda turns: turns == list(range(len(turns))))).all()
    for _, session in chat.groupby("session"):
        told = (session.prompt_tokens + session.output_tokens).to_numpy()[:-1]
        added = session.prompt_tokens.to_numpy()[1:] - told
        assert ((added >= 5) & (added <= 90)).all()


def test_turns_that_cant_begin_before_the_end_are_left_out() -> None:
    spec = {
        "prompt_tokens": 9,
        "output_tokens": 1,
        "sessions": {"turns": 10, "think": 7},
        "arrivals": {"process": "constant", "rate": 1},
    }
    frame = plan(**spec, duration=20).table.to_pandas()
    turns = frame.groupby("session").turn.max() + 1
    assert turns.iloc[0] == 3 and turns.iloc[-1] == 1  # 0, 7, 14 of 20 s; the one at 19 s once


def test_turns_by_the_clock_have_their_times() -> None:
    spec = {
        "prompt_tokens": 9,
        "output_tokens": 1,
        "sessions": {"turns": 3, "think": 7, "pace": "clock"},
        "arrivals": {"process": "constant", "rate": 0.1},
    }
    frame = plan(**spec, duration=30).table.to_pandas()
    assert (frame.at_ns / 1e9).tolist() == [0, 7, 10, 14, 17, 20, 24, 27]
    assert frame.turn.tolist() == [0, 1, 0, 2, 1, 0, 2, 1]


@pytest.mark.parametrize("profile", ["api-burst", "chat", "rag"])
def test_a_simulation_gets_the_rows_of_the_plan(profile: str) -> None:
    spec = WorkloadSpec.model_validate({"profile": profile, "duration": "3m"})
    table, columns = make_plan(spec, 5).table, open_columns(spec, 5)
    times = np.where(columns.at_ns == NO_TIME, -1, columns.at_ns)
    assert times.tolist() == table["at_ns"].fill_null(-1).to_pylist()
    for name in ("session", "turn", "think_ns", "prompt_tokens", "output_tokens"):
        assert getattr(columns, name).tolist() == table[name].to_pylist()


def test_a_closed_loop_has_no_rows_for_a_simulation() -> None:
    with pytest.raises(ValueError, match="open loop"):
        open_columns(WorkloadSpec.model_validate({"profile": "agentic-coding", "duration": "1m"}), 5)


def test_a_conversation_that_grows_too_long_is_compacted() -> None:
    spec = {
        "prompt_tokens": 100,
        "output_tokens": 10,
        "sessions": {"turns": 12, "new_tokens": 90, "compact_at": 450},
        "users": 1,
    }
    prompts = column(plan(**spec, requests=12).table, "prompt_tokens")
    assert prompts.tolist() == [100, 200, 300, 400, 100, 200, 300, 400, 100, 200, 300, 400]


@pytest.mark.parametrize(("rule", "longest"), [("clip", 1000), ("scale", 1000), ("drop", 1000)])
def test_lengths_are_made_to_fit_the_context_only_if_told_to(rule: str, longest: int) -> None:
    with pytest.raises(UserError, match=r"[\d,]+ of [\d,]+ requests exceed 1,000 tokens .*over_context"):
        plan(**OPEN, max_context=1000)
    made = plan(**OPEN, max_context=1000, over_context=rule)
    total = column(made.table, "prompt_tokens") + column(made.table, "output_tokens")
    assert total.max() <= longest and column(made.table, "prompt_tokens").min() >= 1
    assert "exceed 1,000 tokens" in made.notices[0]


def test_scaling_multiplies_all_lengths_alike() -> None:
    small, large = plan(**OPEN), plan(**OPEN, length_scale=3)
    assert (column(large.table, "prompt_tokens") == 3 * column(small.table, "prompt_tokens")).all()


def test_a_plan_too_large_for_any_memory_is_refused_before_it_is_made() -> None:
    with pytest.raises(UserError, match="more than 50,000,000"):
        plan(**OPEN | {"duration": "1000d"})


def test_an_empty_plan_is_refused() -> None:
    with pytest.raises(UserError, match="nothing arrives"):
        plan(1, **OPEN | {"arrivals": {"rate": "1/d"}, "duration": "1s"})


def test_a_random_rate_that_is_scaled_by_much_says_so() -> None:
    bursts = {"burst": "exponential(20)", "pause": "exponential(40)"}
    spec = OPEN | {"arrivals": {"rate": "20/s", "bursts": bursts}}
    scales = set()
    for seed in range(12):
        try:
            notices = plan(seed, **spec).notices
        except UserError:
            continue  # on for too little to be scaled at all
        found = [
            re.search(r"came to ([\d.]+) times its mean in 60 s and is multiplied by ([\d.]+)", n) for n in notices
        ]
        assert all(one and float(one[1]) * float(one[2]) == pytest.approx(1, abs=0.03) for one in found)
        scales |= {float(one[2]) > 1 if one else None for one in found}
    assert scales == {True, False}
    assert plan(1, **OPEN).notices == ()


@pytest.mark.parametrize("warmup", [0, 60])
def test_a_run_of_conversations_says_how_far_it_is_from_the_long_run(warmup: int) -> None:
    sessions = {"turns": 5, "think": 30, "new_tokens": 8, "pace": "clock"}
    spec = OPEN | {"sessions": sessions, "arrivals": {"process": "constant", "rate": "20/s"}, "warmup": warmup}
    made = plan(**spec)
    at = column(made.table, "at_ns") / 1e9
    reached = ((at >= warmup) & (at < warmup + 60)).sum() / (60 * 20 * 5)
    assert f"at most {reached:.0%} of the requests/s" in made.notices[0]
    assert plan(**spec | {"warmup": 130}).notices == ()


CLOSED = [
    {"prompt_tokens": "lognormal(6, 1)", "output_tokens": 5, "users": 4, "duration": 10},
    MIXED | {"users": 4, "duration": 10},
    MIXED | {"stages": [{"users": 2, "for": "10s"}], "max_context": 2000, "over_context": "clip"},
]


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(CLOSED),
    st.integers(0, 3),
    st.lists(st.integers(1, 700), min_size=1, max_size=5),
    st.integers(0, 3000),
)
def test_any_split_of_a_closed_sequence_gives_the_same_rows(
    spec: dict[str, Any], seed: int, counts: list[int], start: int
) -> None:
    workload = WorkloadSpec.model_validate(spec)
    parts, at = [], start
    for count in counts:
        parts.append(closed_rows(workload, seed, at, count))
        at += count
    whole = closed_rows(workload, seed, start, at - start)
    assert plan_hash(pa.concat_tables(parts)) == plan_hash(whole)
    assert whole["index"].to_pylist() == list(range(start, at))


def test_a_closed_plan_is_the_beginning_of_its_sequence() -> None:
    workload = WorkloadSpec.model_validate(MIXED | {"users": 4, "requests": 300})
    made = make_plan(workload, 5)
    assert made.loop == "closed" and made.table["at_ns"].null_count == 300
    assert plan_hash(closed_rows(workload, 5, 0, 300)) == made.plan_hash


CHATS: dict[str, Any] = {
    "prompt_tokens": "uniform(10, 100)",
    "output_tokens": 20,
    "sessions": {"turns": "mixture(0.998: 2, 0.002: 60)", "new_tokens": 80},
}
SINGLE: dict[str, Any] = {"prompt_tokens": "mixture(0.9999: 100, 0.0001: 5000)", "output_tokens": 20}


@pytest.mark.parametrize("spec", [CHATS, SINGLE])
def test_all_of_a_closed_loops_requests_are_held_against_the_context(spec: dict[str, Any]) -> None:
    # Rare enough that a sample of the first few hundred sessions may hold none.
    with pytest.raises(UserError, match=r"of 60,000 requests exceed 4,000 tokens"):
        plan(1, **spec, users=4, requests=60_000, max_context=4000)
    few = plan(1, **spec, users=4, requests=20, max_context=4000)
    assert few.notices == () and column(few.table, "prompt_tokens").max() <= 200


def test_an_endless_loop_says_what_becomes_of_requests_that_were_not_checked() -> None:
    endless = plan(1, **SINGLE, users=1, duration=10, max_context=4000)
    assert "the first 4,096 requests fit the context of 4,000 tokens; later ones" in endless.notices[0]
    bounded = plan(1, **SINGLE | {"prompt_tokens": "uniform(1, 3980)"}, users=1, duration=10, max_context=4000)
    assert bounded.notices == ()


@pytest.mark.parametrize(
    ("sessions", "bound"),
    [
        (None, 540),
        ({"turns": "uniform(1, 9)", "new_tokens": "uniform(5, 90)"}, 500 + 8 * 130 + 40),
        ({"turns": 9, "new_tokens": 90, "history": "none"}, 540),
        ({"turns": 30, "new_tokens": "uniform(5, 90)", "compact_at": 700}, 740),
        ({"turns": 1000, "new_tokens": 90, "max_turns": 12}, 500 + 11 * 130 + 40),
    ],
)
def test_no_request_of_a_class_is_longer_than_its_bound(sessions: dict[str, Any] | None, bound: int) -> None:
    spec = {"prompt_tokens": "uniform(50, 500)", "output_tokens": "uniform(1, 40)", "sessions": sessions}
    workload = WorkloadSpec.model_validate(spec | {"users": 1, "requests": 5000})
    table = make_plan(workload, 3).table
    total = int((column(table, "prompt_tokens") + column(table, "output_tokens")).max())
    assert longest(classes_of(workload)[0]) == bound >= total > 0.7 * bound
