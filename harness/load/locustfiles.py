"""Users' own locustfiles, the harness's side: loaded before anything is started, and known by their digest."""

import sys
from typing import Any

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.load.listener import until_loaded
from tailgate.harness.load.locust_process import LocustProcess
from tailgate.workloads.table.hashing import file_digest


def order(spec: RunSpec) -> dict[str, Any] | None:
    """What Locust's process is told of the locustfile; None without one."""
    workload = spec.workload
    if workload.locustfile is None:
        return None
    return {
        "path": str(workload.locustfile),
        "name": workload.locustfile.name,
        "tags": list(workload.tags),
        "exclude_tags": list(workload.exclude_tags),
    }


def order_for_workers(spec: RunSpec) -> dict[str, Any] | None:
    """The same for workers, who have a copy of their own: code doesn't go over the network."""
    ours = order(spec)
    if ours is None or spec.workload.locustfile is None:
        return None
    return {**ours, "digest": file_digest(spec.workload.locustfile)}


async def load(locust: LocustProcess, spec: RunSpec) -> None:
    """Have the locustfile imported, so that its mistakes show before a server is started.

    Raises:
        UserError: it can't be used.
    """
    wanted = order(spec)
    if wanted is not None:
        locust.send({"op": "load", **wanted})
        for text in await until_loaded(locust):
            print(f"tailgate: {wanted['path']}: {text}", file=sys.stderr, flush=True)
