"""From a plan to the load of its busiest second, and to the injectors that it takes."""

from typing import Any

import pytest

from tailgate.harness.config.run_spec import RunSpec, WorkersSpec
from tailgate.harness.host.load_probe import MachineState
from tailgate.harness.run.expectation import expectation, planned_load
from tailgate.workloads.plan.plan import make_plan

MACHINE = MachineState(cores=16.0, read_us=3.0, send_us=3.0, busy_cores=0.1, steal_share=0.0, priority=True)
OPEN = {"arrivals": {"process": "constant", "rate": 40.0}, "duration": 10.0}


def spec(target: str = "http://10.0.0.1", *, load: dict[str, Any] | None = None, **keys: Any) -> RunSpec:
    workload = {"prompt_tokens": 8, "output_tokens": 100, **(load or OPEN)}
    return RunSpec.model_validate({"target": {"url": target}, "workload": workload, **keys})


def load_of(made: RunSpec) -> Any:
    return planned_load(made, make_plan(made.workload, 0))


def test_an_open_loop_is_its_busiest_second() -> None:
    load = load_of(spec())
    assert (load.requests_per_s, load.served_here) == (40, False)
    assert load.chunks_per_s == pytest.approx(4_000, rel=0.1)
    assert load_of(spec(streamed=False)).chunks_per_s == 40  # an answer is one chunk then


def test_a_server_on_loopback_shares_this_machine() -> None:
    assert load_of(spec("http://127.0.0.1:8000")).served_here
    assert load_of(spec("http://localhost:8000")).served_here


def test_users_ask_again_when_they_are_answered() -> None:
    load = load_of(spec(load={"users": 110, "duration": 10.0}))  # an answer takes 2.2 s
    assert load.requests_per_s == pytest.approx(50) and load.chunks_per_s == pytest.approx(5_000)


def test_of_load_that_others_send_nothing_is_said() -> None:
    made = spec().model_copy(update={"workers": WorkersSpec(expect=2)})
    assert load_of(made) is None
    assert expectation(made, make_plan(made.workload, 0), MACHINE) == (1, None)


def test_auto_takes_more_injectors_for_more_load_and_a_number_stays() -> None:
    heavy = {"arrivals": {"process": "constant", "rate": 1200.0}, "duration": 5.0}
    numbers = [
        expectation(made, make_plan(made.workload, 0), MACHINE)[0]
        for made in (spec(), spec(load=heavy), spec(load=heavy, injectors=1), spec(injectors=5))
    ]
    assert numbers[0] == 1 and numbers[1] > 1 and numbers[2:] == [1, 5]
