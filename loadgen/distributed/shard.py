"""Makes a worker's shard ready: makes and checks the plan, and adds this machine's own key and locustfile.

Neither keys nor code come over the network. The person who starts a worker names the variable with the key and the
locustfile; the master only says that a key is wanted, in which header, and which digest the locustfile must have.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent.subprocess
import orjson
from locust import User

from tailgate.loadgen.control.locustfile import digest, user_classes
from tailgate.loadgen.distributed import protocol
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.import_paths import python_module


@dataclass(frozen=True)
class LocalInputs:
    """What this machine itself contributes to its shard."""

    folder: Path  # where plan, content and records are kept
    key_variable: str | None = None
    locustfile: Path | None = None


def make_job(shard: dict[str, Any], inputs: LocalInputs) -> dict[str, Any]:
    """The injectors' job on this machine, or a UserError if its plan is not the master's or a key is missing."""
    _make_plan(shard["plan"], inputs.folder)
    job = {**shard["job"], "plan": str(inputs.folder / "plan.parquet"), "spool": str(inputs.folder / "spool")}
    if job["content"] is not None:
        job["content"] = str(inputs.folder / "content.npz")
    if job["bodies"] is not None:
        job["bodies"] = str(inputs.folder / protocol.bodies_file(job))
    if protocol.trace_of(job) is not None:
        workload = job["extend_plan"]["workload"]
        here = {**workload["trace"], "file": str(inputs.folder / protocol.trace_file(job))}
        job["extend_plan"] = {**job["extend_plan"], "workload": {**workload, "trace": here}}
    job["headers"] = {**job["headers"], **_key(shard["key"], inputs)}
    return job


def _make_plan(order: dict[str, Any], folder: Path) -> None:
    if order["how"] == "none":
        return
    child = gevent.subprocess.run(
        [*python_module("tailgate.loadgen.distributed.rebuild_plan"), str(folder)],
        input=orjson.dumps(order), stdout=gevent.subprocess.PIPE, check=False,
    )  # fmt: skip
    if child.returncode:
        raise UserError("the plan could not be made; the reason stands above", where="plan")
    answer = orjson.loads(child.stdout)
    if "refused" in answer:
        raise UserError(**answer["refused"])


def _key(wanted: dict[str, str] | None, inputs: LocalInputs) -> dict[str, str]:
    """The header with the API key, which comes from this machine's environment."""
    if wanted is None:
        return {}
    variable = inputs.key_variable
    if variable is None:
        # The master must not choose: it would be sent whatever it names, at an address that it names as well.
        raise UserError(
            "the target asks for an API key, and this worker was not told which variable holds it",
            where="--api-key-env",
            remedy=f"Start it with `tailgate worker --api-key-env VARIABLE` (the master's is {wanted['variable']}).",
        )
    value = os.environ.get(variable, "")
    if not value:
        raise UserError(
            f"the environment variable {variable} is not set on this machine",
            where="--api-key-env",
            remedy="Set it for the worker, or name another with `tailgate worker --api-key-env`.",
        )
    return {wanted["header"]: f"{wanted['scheme']} {value}".strip()}


def load_classes(wanted: dict[str, Any] | None, inputs: LocalInputs) -> list[type[User]]:
    """The user classes of this machine's copy of the locustfile, or a UserError if that can't be used."""
    if wanted is None:
        return []
    if inputs.locustfile is None:
        raise UserError(
            f"the run uses a locustfile ({wanted['name']}), of which this worker has no copy",
            where="--locustfile",
            remedy="Copy it here and start `tailgate worker --locustfile FILE`.",
        )
    if digest(inputs.locustfile) != wanted["digest"]:
        raise UserError("is not the master's locustfile", where=str(inputs.locustfile), remedy="Copy it again.")
    return user_classes(inputs.locustfile, wanted["tags"], wanted["exclude_tags"])
