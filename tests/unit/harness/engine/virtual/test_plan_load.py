"""Plans in virtual time: what a request's end brings comes when it must, with one replica and with several."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tailgate.harness.engine.config import Settings, resolve
from tailgate.harness.engine.virtual.faults import ReplicaFault
from tailgate.harness.engine.virtual.fleet import Fleet, FleetSettings
from tailgate.harness.engine.virtual.outcome import Ending
from tailgate.harness.engine.virtual.plan_load import ClosedPlan, Limits, OpenPlan, UserChange
from tailgate.harness.engine.virtual.plan_rows import PlanRows
from tailgate.harness.engine.virtual.routers import ROUTERS
from tailgate.workloads.config.workload import WorkloadSpec
from tailgate.workloads.plan.plan import make_plan

CLOSED = {"users": 4, "requests": 60, "prompt_tokens": "uniform(20, 400)", "output_tokens": "uniform(1, 90)"}
SESSIONS = {"turns": "uniform(1, 4)", "think": "uniform(0, 1)"}
OPEN = {**CLOSED, "arrivals": {"process": "poisson", "rate": "6/s"}, "duration": "5s"}
del OPEN["users"], OPEN["requests"]


def rows_of(workload: dict[str, Any], seed: int, **flags: Any) -> PlanRows:
    plan = make_plan(WorkloadSpec.model_validate(workload), seed)
    return PlanRows(
        plan.table, resolve(Settings("h100-sxm/llama-3.1-8b", max_model_len=2000, **flags)), plan.block_tokens
    )


def fleet_of(rows: PlanRows, closed: bool, **given: Any) -> Fleet:
    load = (
        ClosedPlan(rows, Limits(), [UserChange(0, 4), UserChange(10**9, 2)], close_ns=None, drain_ns=10**10, most=60)
        if closed
        else OpenPlan(rows, Limits(2 * 10**9), 60.0)
    )
    fleet = Fleet(FleetSettings(rows.resolved, **given), load)
    fleet.run()
    return fleet


@settings(max_examples=30, deadline=None)
@given(
    st.booleans(), st.integers(0, 50), st.integers(1, 3), st.sampled_from(list(ROUTERS)),
    st.sampled_from([{}, {"jitter": 0.1}, {"num_gpu_blocks_override": 130, "max_num_seqs": 2}]), st.booleans(),
)  # fmt: skip
def test_skipping_steps_changes_no_bit_of_what_ends_bring(
    closed: bool, seed: int, replicas: int, router: str, flags: dict[str, Any], faulty: bool
) -> None:
    workload = {**(CLOSED if closed else OPEN), "sessions": SESSIONS}
    faults = [ReplicaFault("slow", 1, 0.5, 1.0, 0.5), ReplicaFault("kill", replicas, 1.0, 0.7)] if faulty else []
    one, other = (
        fleet_of(
            rows_of(workload, seed, **flags), closed, replicas=replicas, router=router, faults=faults, skip=skip,
            keep_tokens=True,
        )
        for skip in (True, False)
    )  # fmt: skip
    for name in ("row", "replica", "generated", "cached_tokens", "preemptions", "ending"):
        assert np.array_equal(one.rows.count(name), other.rows.count(name)), name
    for name in ("arrival_s", "scheduled_s", "first_token_s", "last_token_s", "end_s"):
        assert np.array_equal(one.rows.time(name), other.rows.time(name), equal_nan=True), name


def test_equal_prefixes_have_equal_chains_and_nothing_else_has() -> None:
    workload = {**OPEN, "prompt_tokens": 400, "sessions": {"turns": 3, "think": 0}}
    rows = rows_of(workload, 1)
    first = next(k for k in range(len(rows)) if rows.begins(k) and rows.follower(k) is not None)
    follower = rows.follower(first)
    assert follower is not None
    one, two = (rows.sequence(k, 0.0).chain for k in (first, follower))
    shared = next((k for k, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), len(one))
    assert 0 < shared < len(two)
    stranger = next(k for k in range(len(rows)) if rows.begins(k) and k != first)
    assert not set(rows.sequence(stranger, 0.0).chain) & set(one)
    assert rows.sequence(first, 0.0).chain == rows_of(workload, 1).sequence(first, 0.0).chain


def test_nobody_asks_without_a_user() -> None:
    rows = rows_of(CLOSED, 0)
    load = ClosedPlan(rows, Limits(), [UserChange(0, 0)], close_ns=10**9, drain_ns=0)
    fleet = Fleet(FleetSettings(rows.resolved), load)
    fleet.run()
    assert len(fleet.rows) == 0 and load.closed_ns == 10**9


def test_who_leaves_gets_its_answer_and_asks_no_more() -> None:
    rows = rows_of({**CLOSED, "output_tokens": 300}, 0)
    load = ClosedPlan(rows, Limits(), [UserChange(0, 3), UserChange(10**8, 1)], close_ns=4 * 10**9, drain_ns=10**10)
    fleet = Fleet(FleetSettings(rows.resolved), load)
    fleet.run()
    arrival, end = fleet.rows.time("arrival_s"), fleet.rows.time("end_s")
    assert (fleet.rows.count("ending") == Ending.COMPLETE).all()
    assert (arrival[:3] == 0).all() and (np.diff(arrival[2:]) > 0).all()
    assert np.allclose(arrival[3:], [end[0], *end[3:-1]])
