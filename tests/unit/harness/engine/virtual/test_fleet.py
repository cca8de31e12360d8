"""Several replicas: routers spread requests as they say, faults lose and delay what they must, nothing else."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailgate.harness.engine.config import Settings, resolve
from tailgate.harness.engine.virtual.faults import ReplicaFault, parse_fault, parse_faults
from tailgate.harness.engine.virtual.fleet import Fleet, FleetSettings
from tailgate.harness.engine.virtual.open_load import OpenLoad, OpenRequests
from tailgate.harness.engine.virtual.outcome import Ending
from tailgate.harness.engine.virtual.routers import ROUTERS
from tailgate.workloads.common.errors import UserError

ENGINE = resolve(Settings("h100-sxm/llama-3.1-8b", max_model_len=2000))


def served(requests: OpenRequests, until_s: float = math.inf, **given: Any) -> Fleet:
    fleet = Fleet(FleetSettings(ENGINE, **given), OpenLoad(requests, until_s))
    fleet.run()
    return fleet


def steady(count: int, rate: float, output: int = 50) -> OpenRequests:
    return OpenRequests(np.arange(count) / rate, np.full(count, 100), np.full(count, output))


@pytest.mark.parametrize("router", ROUTERS)
def test_every_router_serves_all_and_evenly(router: str) -> None:
    fleet = served(steady(400, 20), replicas=4, router=router)
    counts = np.bincount(fleet.rows.count("replica"), minlength=5)
    assert counts[0] == 0 and counts.sum() == 400
    assert counts[1:].min() > (60 if router == "random" else 95)
    assert (fleet.rows.count("ending") == Ending.COMPLETE).all()


def test_prefix_aware_keeps_what_shares_a_prefix_together() -> None:
    chains = [[group * 100 + k for k in range(1, 9)] for group in np.random.default_rng(3).integers(0, 6, 300)]
    requests = OpenRequests(np.arange(300) / 20, np.full(300, 128), np.full(300, 10), chains=chains)
    cached = {
        name: served(requests, replicas=4, router=name).rows.count("cached_tokens").sum()
        for name in ("prefix-aware", "round-robin")
    }
    # All but each group's first request find seven of their eight blocks (one token is always computed).
    assert cached["prefix-aware"] == (300 - 6) * 7 * 16 > cached["round-robin"]


def test_a_kill_loses_what_is_in_flight_and_no_more() -> None:
    fleet = served(steady(400, 40), replicas=2, faults=parse_faults(["kill 2 at 3s back 4s"], 2, "faults"))
    ending, replica, arrival = fleet.rows.count("ending"), fleet.rows.count("replica"), fleet.rows.time("arrival_s")
    lost = ending == Ending.LOST
    assert lost.any() and (replica[lost] == 2).all() and (arrival[lost] <= 3).all()
    assert (fleet.rows.time("end_s")[lost] == 3).all()
    assert (ending[~lost] == Ending.COMPLETE).all()
    down = (arrival > 3) & (arrival < 7)
    assert (replica[down] == 1).all() and (replica[arrival > 7] == 2).any()


def test_without_a_replica_nothing_can_be_reached() -> None:
    fleet = served(steady(100, 20), faults=parse_faults(["kill 1 at 1s back 2s"], 1, "faults"))
    ending, arrival = fleet.rows.count("ending"), fleet.rows.time("arrival_s")
    assert (ending[(arrival > 1) & (arrival < 3)] == Ending.UNREACHABLE).all()
    assert (ending[arrival >= 3] == Ending.COMPLETE).all()


def test_a_stop_delays_by_its_length() -> None:
    one = OpenRequests(np.array([0.0]), np.array([100]), np.array([100]))
    plain = served(one).rows.time("end_s")[0]
    stopped = served(one, faults=parse_faults(["stop 1 at 0.1s for 5s"], 1, "faults")).rows.time("end_s")[0]
    assert math.isclose(stopped, plain + 5)


def test_a_stop_without_an_end_ends_the_run_with_the_request_unserved() -> None:
    one = OpenRequests(np.array([0.0]), np.array([100]), np.array([100]))
    fleet = served(one, faults=parse_faults(["stop 1 at 0.1s"], 1, "faults"), until_s=60.0)
    assert fleet.rows.count("ending").tolist() == [Ending.UNSERVED] and fleet.rows.time("end_s")[0] == 60


def test_half_the_speed_takes_twice_as_long() -> None:
    one = OpenRequests(np.array([0.0]), np.array([100]), np.array([100]))
    plain = served(one).rows.time("end_s")[0]
    assert math.isclose(served(one, faults=[ReplicaFault("slow", 1, 0.0, None, 0.5)]).rows.time("end_s")[0], 2 * plain)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.builds(
            ReplicaFault,
            st.sampled_from(["kill", "stop", "slow"]),
            st.integers(1, 3),
            st.floats(0, 5),
            st.floats(0.01, 3),
            st.just(0.5),
        ),
        max_size=6,
    ),
    st.sampled_from(list(ROUTERS)),
    st.booleans(),
)
def test_faults_lose_no_request_and_skipping_changes_no_bit(faults: Any, router: str, patient: bool) -> None:
    rng = np.random.default_rng(len(faults))
    requests = OpenRequests(
        np.sort(rng.uniform(0, 5, 120)), rng.integers(1, 800, 120), rng.integers(1, 200, 120),
        patience_s=None if patient else rng.uniform(0.01, 3, 120),
    )  # fmt: skip
    runs = [
        served(requests, replicas=3, router=router, faults=faults, keep_tokens=True, skip=skip, until_s=60.0)
        for skip in (True, False)
    ]
    first, second = (run.rows for run in runs)
    assert len(first) == 120
    complete = first.count("ending") == Ending.COMPLETE
    assert (first.count("generated")[complete] == requests.output_tokens[first.count("row")[complete]]).all()
    assert sum(run.series().generation_tokens[-1] for run in runs[0].series) == first.count("generated").sum()
    for name in ("scheduled_s", "first_token_s", "last_token_s", "end_s"):
        assert np.array_equal(first.time(name), second.time(name), equal_nan=True)
    for name in ("row", "replica", "generated", "ending"):
        assert np.array_equal(first.count(name), second.count(name))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("kill 5 at 60s", "there are 4 replicas"),
        ("kill 0 at 60s", "there are 4 replicas"),
        ("burn 1 at 60s", "is no fault"),
        ("kill 1 at soon", "kill 1 at soon"),
        ("slow 1 at 60s", "is no fault"),
        ("kill 1 to 0.5 at 60s", "is no fault"),
        ("kill 1 at 60s for 5s", "is no fault"),
        ("slow 1 to 0 at 60s", "more than 0"),
    ],
)
def test_what_is_no_fault_is_refused(line: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse_fault(line, 4, "target.faults")
