"""Makes a worker's plan, in a process of its own.

``python -m tailgate.loadgen.distributed.rebuild_plan FOLDER`` reads its order from stdin.

It is made again from spec and seed, or read from the file the master sent; either way its hash is compared with the
master's. Not in the Locust process: a heartbeat must not wait for a million rows.
"""

import sys
from pathlib import Path
from typing import Any

import orjson

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.config.workload import WorkloadSpec
from tailgate.workloads.plan.plan import Plan, make_plan, read_plan, write_plan
from tailgate.workloads.table.hashing import plan_hash


def rebuild(order: dict[str, Any], folder: Path) -> str:
    """Leave ``plan.parquet`` in the folder and return its hash. Raises a UserError if it is not the master's plan."""
    path = folder / "plan.parquet"
    if order["how"] == "spec":
        workload = WorkloadSpec.model_validate(order["workload"])
        if workload.trace is not None or workload.content.file is not None or workload.locustfile is not None:
            raise UserError("the master's plan names a file of this machine", where="plan")  # ours never does
        plan: Plan = make_plan(workload, order["seed"])
        plan_hash_here = plan.plan_hash
        write_plan(plan, path)
    else:
        plan_hash_here = plan_hash(read_plan(path))
    check(plan_hash_here, order["hash"])
    return plan_hash_here


def check(plan_hash_here: str, expected: str) -> None:
    if plan_hash_here != expected:
        raise UserError(
            f"the worker's plan is not the master's: its hash is {plan_hash_here}, the master's {expected}",
            where="plan",
            remedy="Install the same versions of tailgate and numpy on all machines.",
        )


def main() -> int:
    order = orjson.loads(sys.stdin.buffer.read())
    try:
        answer: dict[str, Any] = {"hash": rebuild(order, Path(sys.argv[1]))}
    except UserError as error:
        answer = {"refused": error.parts}
    sys.stdout.write(orjson.dumps(answer).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
