"""What a gate refuses before any load, because this machine's own error would hide it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.kit.command import SIM
from tests.kit.gate_runs import policy

from tailgate.harness.experiments.gate.precision import require_precise
from tailgate.harness.experiments.gate.run_specs import experiment
from tailgate.harness.host.load_probe import MachineState
from tailgate.workloads.common.errors import UserError

QUIET = MachineState(cores=2.0, read_us=3.0, send_us=3.0, busy_cores=0.05, steal_share=0.0, priority=True)
STOLEN = replace(QUIET, steal_share=0.2)  # ± 20 ms of everything
BUSY = replace(QUIET, busy_cores=1.9)  # ± 20 ms of TTFT, ± 1 ms of ITL
WORKLOAD = {"prompt_tokens": 8, "output_tokens": 20, "arrivals": {"rate": "40/s"}, "duration": "30s", "warmup": "1s"}


def asked(machine: MachineState, slo: dict[str, str] | None = None, **keys: Any) -> list[str]:
    spec = {"workload": {**WORKLOAD, **keys.pop("load", {})}, "slo": slo or {}}
    return require_precise(experiment(policy(baseline=SIM, candidate=SIM, spec=spec, **keys), Path()), machine)


def test_a_quiet_machine_is_only_told_of() -> None:
    assert asked(QUIET, metrics={"itl.p99": "10%"}) == ["this machine will measure this load to about ± 0.3 ms at p99"]


def test_a_margin_that_drowns_in_the_own_error_is_refused_and_what_helps_is_said() -> None:
    with pytest.raises(UserError) as caught:
        asked(STOLEN, slo={"itl": "p99 < 40ms"}, metrics={"itl.p99": "10%"})
    assert "10 % of 40 ms, its limit, is 4 ms" in caught.value.what and "± 20 ms" in caught.value.what
    assert caught.value.where == "policy: metrics.itl.p99"
    assert "whose cores are its own" in caught.value.remedy and "--anyway" in caught.value.remedy


def test_without_a_limit_a_figure_is_taken_for_a_large_one() -> None:
    for slo in ({}, {"itl": "p50 < 20ms"}):  # a median's limit is none of a tail
        with pytest.raises(UserError, match="10 % of 100 ms, a large one, is 10 ms"):
            asked(STOLEN, slo=slo, metrics={"itl.p99": "10%"})
    assert asked(STOLEN, metrics={"itl.p99": "15%", "ttft.p99": "5%"})


@pytest.mark.parametrize("key", ["ttft.p50", "ttft.p90", "tpot.mean", "itl.mean"])
def test_means_and_medians_have_a_small_part_of_a_tail_s_error(key: str) -> None:
    assert asked(STOLEN, slo={"itl": "p99 < 20ms", "ttft": "p99 < 20ms"}, metrics={key: "5%"})


def test_gaps_between_tokens_are_told_where_sends_are_late() -> None:
    slo = {"itl": "p99 < 40ms", "ttft": "p99 < 90ms"}
    assert asked(BUSY, slo=slo, metrics={"itl.p99": "10%"})
    with pytest.raises(UserError, match="10 % of 90 ms"):
        asked(BUSY, slo=slo, metrics={"ttft.p99": "10%"})


def test_a_limit_far_below_the_own_error_is_refused() -> None:
    with pytest.raises(UserError, match="the limit is itl: p99 < 10ms") as caught:
        asked(STOLEN, metrics={}, thresholds={"itl": "p99 < 10ms"})
    assert caught.value.where == "policy: thresholds.itl"
    assert asked(STOLEN, metrics={}, thresholds={"itl": "p99 < 11ms"})


def test_a_load_of_several_times_what_an_injector_carries_is_refused_whatever_is_judged() -> None:
    load = {"arrivals": {"rate": "5000/s"}, "duration": "1s"}
    with pytest.raises(UserError, match=r"3\.0 times what the injectors here can carry"):
        asked(QUIET, load=load, metrics={"ttft.p50": "20%"})


def test_points_whose_rate_is_not_known_yet_are_left_to_their_runs() -> None:
    assert len(asked(QUIET, points={"calm": "0.4x", "full": "closed 4"}, metrics={"ttft.p50": "20%"})) == 1
