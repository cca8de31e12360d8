"""What is expected of a machine: coarse classes, by the load's work and by what is left of the cores."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailgate.harness.host.expected_error import (
    CLASSES_MS,
    FULL,
    PlannedLoad,
    expected_error,
    injectors_for,
    use_of,
)
from tailgate.harness.host.load_probe import MachineState

QUIET = MachineState(cores=2.0, read_us=3.0, send_us=3.0, busy_cores=0.05, steal_share=0.0, priority=True)
SMALL = PlannedLoad(requests_per_s=50, chunks_per_s=1_000, served_here=True)


def test_the_work_is_two_and_a_half_reads_a_chunk_and_150_a_request() -> None:
    load = PlannedLoad(100, 20_000, served_here=False)
    assert use_of(load, QUIET, 1) == pytest.approx((2.5 * 20_000 + 150 * 100) * 3e-6)
    assert use_of(load, QUIET, 2) == pytest.approx(use_of(load, QUIET, 1) / 2)
    assert use_of(load, QUIET, 8) == use_of(load, QUIET, 2)  # there are two cores


def test_a_small_load_on_a_quiet_machine_is_measured_well() -> None:
    found = expected_error(SMALL, QUIET, 1)
    assert (found.ttft_ms, found.itl_ms) == (0.3, 0.3)
    assert found.text == "this machine will measure this load to about ± 0.3 ms at p99"


def test_others_on_the_cores_delay_sends_more_than_reads() -> None:
    found = expected_error(SMALL, replace(QUIET, busy_cores=1.9), 1)
    assert (found.ttft_ms, found.itl_ms) == (20, 1)
    assert found.text == (
        "expect about ± 20 ms at p99 of TTFT, ± 1 ms of ITL, from this machine, since other processes keep 1.9 of its 2"
        " cores busy: free a core, or measure from another machine"
    )
    alone = expected_error(SMALL, replace(QUIET, busy_cores=1.9, priority=False), 1)
    assert (alone.ttft_ms, alone.itl_ms) == (100, 5)
    large = replace(QUIET, cores=64.0, busy_cores=32.0)  # as busy a share, but there are cores left
    assert expected_error(SMALL, large, 1).ttft_ms == 0.3


def test_more_than_one_core_of_work_is_named_with_the_injectors_that_it_takes() -> None:
    load = PlannedLoad(500, 100_000, served_here=False)
    found = expected_error(load, replace(QUIET, cores=8.0), 1)
    assert found.ttft_ms == found.itl_ms == 20
    assert "98% of an injector's core: use --injectors 2, or lower the rate" in found.text


def test_stolen_time_is_named() -> None:
    found = expected_error(SMALL, replace(QUIET, steal_share=0.2), 1)
    assert found.ttft_ms == found.itl_ms == 20 and "a hypervisor takes 20% of its time" in found.text


def test_what_can_not_be_seen_is_said_once_and_nothing_is_made_of_it() -> None:
    found = expected_error(SMALL, replace(QUIET, busy_cores=None, steal_share=None), 1)
    assert found.ttft_ms == 0.3 and found.idle_cores is None and found.text.count("no /proc/stat") == 1
    blind = expected_error(SMALL, MachineState(2.0, None, None, None, None, priority=False), 1)
    assert "isn't known" in blind.text and blind.use is None


def test_one_injector_while_it_carries_the_load() -> None:
    machine = replace(QUIET, cores=16.0)
    heavy = PlannedLoad(500, 100_000, served_here=False)
    assert injectors_for(SMALL, machine) == 1
    assert injectors_for(heavy, machine) == 2
    assert injectors_for(replace(heavy, served_here=True), QUIET) == 1  # the server has the other core
    assert injectors_for(heavy, replace(machine, busy_cores=15.0)) == 1
    assert injectors_for(heavy, replace(machine, read_us=None)) == 1


loads = st.builds(PlannedLoad, st.floats(0, 1e4), st.floats(0, 1e6), st.booleans())
machines = st.builds(
    MachineState, st.floats(1, 64), st.floats(0.5, 20), st.just(3.0), st.floats(0, 64), st.floats(0, 1), st.booleans()
)


@given(loads, machines, st.floats(1, 4))
def test_more_load_or_a_busier_machine_is_never_expected_to_measure_better(
    load: PlannedLoad, machine: MachineState, factor: float
) -> None:
    base = expected_error(load, machine, 1)
    more = replace(load, chunks_per_s=factor * load.chunks_per_s, requests_per_s=factor * load.requests_per_s)
    busier = replace(machine, busy_cores=(machine.busy_cores or 0.0) * factor, read_us=(machine.read_us or 0) * factor)
    for worse in (expected_error(more, machine, 1), expected_error(load, busier, 1)):
        assert worse.ttft_ms >= base.ttft_ms and worse.itl_ms >= base.itl_ms
    assert base.itl_ms <= base.ttft_ms and {base.itl_ms, base.ttft_ms} <= set(CLASSES_MS)


@given(loads, machines)
def test_no_injector_is_started_that_has_no_core_or_nothing_to_do(load: PlannedLoad, machine: MachineState) -> None:
    count = injectors_for(load, machine)
    assert 1 <= count <= math.ceil(machine.cores)
    assert count == 1 or (use_of(load, machine, 1) or 0.0) > FULL * (count - 1)
