"""Replicas come when the others are busy for long enough, serve after their cold start, and go when it is calm."""

import numpy as np
import pytest

from tailgate.harness.engine.config import Settings, resolve
from tailgate.harness.engine.virtual.autoscaler import ScalePolicy, parse_policy
from tailgate.harness.engine.virtual.fleet import Fleet, FleetSettings
from tailgate.harness.engine.virtual.open_load import OpenLoad, OpenRequests
from tailgate.harness.engine.virtual.outcome import Ending

ENGINE = resolve(Settings("h100-sxm/llama-3.1-8b", max_model_len=2000, max_num_seqs=8))


def surge(policy: str, calm_s: float = 200.0) -> Fleet:
    """60 s of more than one replica of eight seats can do, then as long as it takes of very little."""
    arrival_s = np.concatenate([np.arange(0, 60, 0.1), 60.3 + np.arange(0, calm_s, 5.0)])
    requests = OpenRequests(arrival_s, np.full(len(arrival_s), 100), np.full(len(arrival_s), 200))
    scaling = parse_policy(policy, 1, "test")
    fleet = Fleet(FleetSettings(ENGINE, router="least-in-flight", scaling=scaling), OpenLoad(requests))
    fleet.run()
    assert (fleet.rows.count("ending") == Ending.COMPLETE).all()
    return fleet


def times(fleet: Fleet, what: str) -> list[float]:
    return [at for at, kind, text in fleet.happened if kind == "scale" and text.endswith(what)]


def test_a_policy_says_when_replicas_come_and_go() -> None:
    parsed = parse_policy("kv-usage > 0.9 for 30s, most 6, cold 2m, warm 1, below 0.2 for 5m", 2, "test")
    assert parsed == ScalePolicy("kv-usage", 0.9, 30.0, 6, 120.0, 1, 0.2, 300.0)


def test_a_surge_brings_replicas_after_their_cold_start_up_to_the_most() -> None:
    fleet = surge("waiting > 5 for 5s, most 3, cold 20s")
    started, serves = times(fleet, "is started"), times(fleet, "serves")
    assert len(started) == len(serves) == 2 and not times(fleet, "no more requests")
    assert np.allclose(np.array(serves) - started, 20.0)
    assert started[1] - started[0] >= 5.0
    replica, arrival = fleet.rows.count("replica"), fleet.rows.time("arrival_s")
    assert arrival[replica == 2].min() >= serves[0] and arrival[replica == 3].min() >= serves[1]


def test_a_warm_replica_serves_at_once_and_the_next_one_is_cold() -> None:
    fleet = surge("waiting > 5 for 5s, most 3, cold 30s, warm 1")
    delays = np.array(times(fleet, "serves")) - times(fleet, "is started")
    assert delays.tolist() == pytest.approx([0.0, 30.0])


def test_when_it_is_calm_replicas_go_but_for_the_first_ones() -> None:
    fleet = surge("waiting > 5 for 5s, most 3, cold 20s, below 0.5 for 30s")
    gone = times(fleet, "no more requests")
    assert len(gone) == 2 and gone[1] - gone[0] >= 30.0
    late = fleet.rows.time("arrival_s") > gone[1]
    assert late.any() and len(set(fleet.rows.count("replica")[late].tolist())) == 1
