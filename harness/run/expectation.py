"""Before the load: how well this machine will measure the plan, and how many injectors it takes."""

from typing import Final
from urllib.parse import urlsplit

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.host.expected_error import ExpectedError, PlannedLoad, expected_error, injectors_for
from tailgate.harness.host.load_probe import MachineState
from tailgate.harness.run.preflight import TOKENS_PER_S, busiest
from tailgate.loadgen.loopback import is_loopback
from tailgate.workloads.plan.plan import Plan

_FIRST_TOKEN_S: Final = 0.2


def planned_load(spec: RunSpec, plan: Plan) -> PlannedLoad | None:
    """The busiest second of a plan; None where other machines send it, or users' own code makes it.

    How fast a closed loop goes the server decides: its answers are taken to begin after 0.2 s and to go on at 50
    tokens/s.
    """
    if spec.workers is not None or not plan.table.num_rows:
        return None
    here = spec.target.kind != "url" or all(is_loopback(urlsplit(url).hostname or "") for url in spec.target.all_urls)
    if plan.loop == "open":
        requests, chunks = busiest(plan, 1)
        return PlannedLoad(requests, chunks if spec.streamed else requests, here)
    tokens, think_ns = (float(plan.table[name].to_numpy().mean()) for name in ("output_tokens", "think_ns"))
    requests = spec.workload.most_users / (_FIRST_TOKEN_S + tokens / TOKENS_PER_S + think_ns / 1e9)
    return PlannedLoad(requests, requests * (tokens if spec.streamed else 1.0), here)


def expectation(spec: RunSpec, plan: Plan, machine: MachineState) -> tuple[int, ExpectedError | None]:
    """(how many injectors, what is to be expected of them); None where nothing can be said."""
    load = planned_load(spec, plan)
    injectors = spec.injectors
    if injectors == "auto":
        injectors = 1 if load is None else injectors_for(load, machine)
    return injectors, None if load is None else expected_error(load, machine, injectors)
