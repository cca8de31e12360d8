"""One, two, three or seven injectors send the same rows, byte for byte, at the same times."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tailgate.loadgen.injector.api.openai_request import body_maker
from tailgate.loadgen.injector.schedule.plan_share import PlanShare
from tailgate.loadgen.job import Job
from tailgate.workloads.config.workload import WorkloadSpec
from tailgate.workloads.plan.plan import Plan, make_plan, write_plan
from tailgate.workloads.statistics import arrivals

SHARED_OUT = (2, 3, 7)
CONVERSATIONS: dict[str, Any] = {
    "prompt_tokens": "lognormal(4, 1)",
    "output_tokens": "uniform(1, 40)",
    "sessions": {"turns": "uniform(1, 4)", "think": "exponential(1)", "new_tokens": "uniform(5, 60)"},
    "prefix": {"system_tokens": 64},
    "arrivals": {"process": "gamma", "rate": "12/s", "shape": 0.5},
    "duration": "10s",
}


def job_of(plan: Plan, folder: Path) -> Job:
    write_plan(plan, folder / "plan.parquet")
    return Job(
        plan=str(folder / "plan.parquet"), spool="", injector=0, injectors=1, loop="open", urls=("http://x",),
        api="completions", model="m", dialect="vllm", content_options={"mode": "ids"},
    )  # fmt: skip


def rows_and_bodies(job: Job, injectors: int) -> dict[int, tuple[Any, ...]]:
    """By index: time, session, turn, lengths, and the body's bytes."""
    found: dict[int, tuple[Any, ...]] = {}
    for k in range(injectors):
        mine = replace(job, injector=k, injectors=injectors)
        share, make_body = PlanShare.read(mine), body_maker(mine)
        for position in range(len(share)):
            row = share.row(position)
            assert row.index not in found
            found[row.index] = (
                row.at_ns, row.session, row.turn, row.think_ns, row.prompt_tokens, row.output_tokens, make_body(row),
            )  # fmt: skip
    return found


def test_any_number_of_injectors_sends_the_same_bytes_at_the_same_times(tmp_path: Path) -> None:
    job = job_of(make_plan(WorkloadSpec.model_validate(CONVERSATIONS), 3), tmp_path)
    whole = rows_and_bodies(job, 1)
    assert len(whole) > 150 and len({body for *_, body in whole.values()}) > 150
    for injectors in SHARED_OUT:
        assert rows_and_bodies(job, injectors) == whole


@pytest.mark.parametrize("window_s", [1, 10, 60])
def test_the_merged_arrivals_keep_their_law(tmp_path: Path, window_s: int) -> None:
    workload = WorkloadSpec.model_validate({"profile": "chat-gateway", "duration": "40m"})
    plan = make_plan(workload, 5)
    job = job_of(plan, tmp_path)

    def merged(injectors: int) -> np.ndarray:
        shares = [PlanShare.read(replace(job, injector=k, injectors=injectors)) for k in range(injectors)]
        return np.sort(np.concatenate([np.array(share.timed_at_ns) for share in shares])) / 1e9

    single = arrivals.dispersion(merged(1), window_s, plan.span_s)
    assert single.value is not None
    for injectors in SHARED_OUT:
        assert arrivals.dispersion(merged(injectors), window_s, plan.span_s) == single
