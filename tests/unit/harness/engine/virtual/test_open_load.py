"""One replica in virtual time: skipping steps changes nothing, nothing is lost, and queues wait as they must."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailgate.harness.engine.config import Resolved, Settings, resolve
from tailgate.harness.engine.virtual.fleet import Fleet, FleetSettings
from tailgate.harness.engine.virtual.open_load import OpenLoad, OpenRequests, serve
from tailgate.harness.engine.virtual.outcome import Ending, ServedRequests


def engine(**given: object) -> Resolved:
    return resolve(Settings("h100-sxm/llama-3.1-8b", **{"max_model_len": 400, **given}))  # type: ignore[arg-type]


def same(one: ServedRequests, other: ServedRequests) -> None:
    for field in dataclasses.fields(one):
        if field.name != "series":
            assert np.array_equal(getattr(one, field.name), getattr(other, field.name), equal_nan=True), field.name
    for field in dataclasses.fields(one.series):
        assert np.array_equal(getattr(one.series, field.name), getattr(other.series, field.name)), field.name


@st.composite
def cases(draw: st.DrawFn) -> tuple[Resolved, OpenRequests]:
    count = draw(st.integers(1, 30))
    lists = {
        name: draw(st.lists(st.integers(low, high), min_size=count, max_size=count))
        for name, low, high in (
            ("gap_ms", 0, 60), ("prompt", 1, 250), ("output", 1, 150), ("patience_ms", 1, 4000), ("kind", 0, 3),
        )
    }  # fmt: skip
    impatient = draw(st.booleans())
    chains = None
    if draw(st.booleans()):  # requests of one kind share their blocks
        lengths = zip(lists["kind"], lists["prompt"], lists["output"], strict=True)
        chains = [[kind * 1000 + k + 1 for k in range((p + o) // 16)] for kind, p, o in lengths]
    whole = draw(st.booleans())
    resolved = engine(
        num_gpu_blocks_override=draw(st.integers(25, 60)),
        max_num_seqs=draw(st.sampled_from([1, 3, 16])),
        max_num_batched_tokens=draw(st.sampled_from([400, 2048])) if whole else draw(st.sampled_from([16, 64, 2048])),
        enable_chunked_prefill=not whole,
        long_prefill_token_threshold=draw(st.sampled_from([0, 50])),
        jitter=draw(st.sampled_from([0.0, 0.1])),
        drift=draw(st.sampled_from([0.0, 0.05])),
        stall_every=draw(st.sampled_from([0.0, 0.5])),
        stall_seconds=0.05,
        scheduling_policy=draw(st.sampled_from(["fcfs", "priority"])),
        max_num_queued_reqs=draw(st.sampled_from([None, 8])),
        seed=draw(st.integers(0, 3)),
    )
    requests = OpenRequests(
        np.cumsum(lists["gap_ms"]) / 1e3,
        np.array(lists["prompt"]),
        np.array(lists["output"]),
        np.array(lists["kind"]),
        np.array(lists["patience_ms"]) / 1e3 if impatient else None,
        chains,
    )
    return resolved, requests


@settings(max_examples=60, deadline=None)
@given(cases())
def test_skipping_steps_changes_no_bit(case: tuple[Resolved, OpenRequests]) -> None:
    resolved, requests = case
    skipped = serve(resolved, requests, keep_tokens=True, tick_s=0.25)
    same(skipped, serve(resolved, requests, keep_tokens=True, tick_s=0.25, skip=False))
    same(skipped, serve(resolved, requests, keep_tokens=True, tick_s=0.25))


@settings(max_examples=60, deadline=None)
@given(cases())
def test_no_request_token_or_block_is_lost(case: tuple[Resolved, OpenRequests]) -> None:
    resolved, requests = case
    fleet = Fleet(FleetSettings(resolved, keep_tokens=True), OpenLoad(requests))
    fleet.run()
    served = fleet.rows.served(fleet.series[0].series())
    done = served.complete
    assert len(done) == len(requests.arrival_s)
    assert set(served.ending.tolist()) <= {Ending.COMPLETE, Ending.ABANDONED, Ending.REJECTED}
    assert np.array_equal(served.generated[done], requests.output_tokens[done])
    assert served.token_at is not None and served.token_s is not None
    assert np.array_equal(np.diff(served.token_at), served.generated)
    assert served.generated.sum() == served.series.generation_tokens[-1]
    assert served.preemptions.sum() == served.series.preemptions[-1]
    assert (served.series.blocks_used >= 0).all() and (served.series.blocks_used <= resolved.num_gpu_blocks).all()
    assert served.series.running[-1] == served.series.waiting[-1] == served.series.blocks_used[-1] == 0
    begun = np.isfinite(served.first_token_s)
    assert (served.arrival_s[begun] <= served.scheduled_s[begun]).all()
    assert (served.scheduled_s[begun] < served.first_token_s[begun]).all()
    assert (served.first_token_s[begun] <= served.end_s[begun]).all()


class ConstantTime:
    """Every step takes as long."""

    def seconds(self, _step: object) -> float:
        return 0.02


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_seat_waits_as_an_md1_queue_does(load: float) -> None:
    """One seat, answers of five tokens in six steps' time: mean wait = rho s / 2 (1 - rho) (Pollaczek, Khinchine)."""
    resolved = dataclasses.replace(engine(max_num_seqs=1), step_time=ConstantTime())  # type: ignore[arg-type]
    service, count = 5 * 0.02, 12_000
    arrival_s = np.cumsum(np.random.default_rng(7).exponential(service / load, count))
    served = serve(resolved, OpenRequests(arrival_s, np.full(count, 10), np.full(count, 5)), tick_s=1e9)
    wait = served.scheduled_s - served.arrival_s
    expected = load * service / (2 * (1 - load))
    # Waits are correlated over about 1/(1-rho)^2 services: four standard errors of batch means.
    batches = wait.reshape(30, -1).mean(axis=1)
    assert abs(wait.mean() - expected) < 4 * batches.std(ddof=1) / math.sqrt(len(batches))
    assert np.allclose(served.end_s - served.scheduled_s, service)


def test_the_horizon_leaves_the_rest_unserved() -> None:
    requests = OpenRequests(np.zeros(3), np.full(3, 50), np.array([2, 100, 100]))
    served = serve(engine(), requests, until_s=0.2)
    assert served.ending.tolist() == [Ending.COMPLETE, Ending.UNSERVED, Ending.UNSERVED]
    assert served.end_s[1] == 0.2 and 0 < served.generated[1] < 100


def test_too_long_a_request_is_refused_and_the_next_one_served() -> None:
    served = serve(engine(), OpenRequests(np.array([0.0, 0.1]), np.array([390, 10]), np.array([20, 3])))
    assert served.ending.tolist() == [Ending.TOO_LONG, Ending.COMPLETE]


def test_a_last_request_that_comes_with_a_sample_is_served() -> None:
    served = serve(engine(), OpenRequests(np.array([0.5, 3.0]), np.full(2, 10), np.full(2, 5)), tick_s=1.0)
    assert served.complete.all()
