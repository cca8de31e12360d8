"""Before the load: how well this machine will measure the plan, and how many injectors it takes."""

from urllib.parse import urlsplit

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.host.expected_error import ExpectedError, PlannedLoad, expected_error, injectors_for
from tailgate.harness.host.load_probe import MachineState
from tailgate.harness.run.preflight import TOKENS_PER_S, busiest
from tailgate.loadgen.loopback import is_loopback
from tailgate.workloads.plan.plan import Plan


def planned_load(spec: RunSpec, plan: Plan) -> PlannedLoad | None:
    """The busiest second of a plan; None where other machines send it, or users' own code makes it.

    How fast a closed loop goes the server decides: each user is taken for one answer after another at 50 tokens/s.
    """
    if spec.workers is not None or not plan.table.num_rows:
        return None
    here = spec.target.kind != "url" or all(is_loopback(urlsplit(url).hostname or "") for url in spec.target.all_urls)
    if plan.loop == "open":
        requests, chunks = busiest(plan, 1)
        return PlannedLoad(requests, chunks, here)
    tokens = plan.table["output_tokens"].to_numpy()
    chunks = spec.workload.most_users * TOKENS_PER_S
    return PlannedLoad(chunks / max(float(tokens.mean()), 1.0), chunks, here)


def expectation(spec: RunSpec, plan: Plan, machine: MachineState) -> tuple[int, ExpectedError | None]:
    """(how many injectors, what is to be expected of them); None where nothing can be said."""
    load = planned_load(spec, plan)
    injectors = spec.injectors
    if injectors == "auto":
        injectors = 1 if load is None else injectors_for(load, machine)
    return injectors, None if load is None else expected_error(load, machine, injectors)
