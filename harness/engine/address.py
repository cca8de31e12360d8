"""What stands behind `sim:`: `GPU/MODEL`, and after a `?` how it is deployed.

h100-sxm/llama-3.1-8b?replicas=4&router=least-in-flight&fault=kill 2 at 60s back 45s&jitter=0.05
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final
from urllib.parse import parse_qsl

from tailgate.harness.engine.config import Settings
from tailgate.harness.engine.virtual.autoscaler import ScalePolicy, parse_policy
from tailgate.harness.engine.virtual.faults import ReplicaFault, parse_faults
from tailgate.harness.engine.virtual.routers import ROUTERS
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.validation import meant

_OF_FLEET: Final = ("replicas", "router", "fault", "autoscale")
_OF_ENGINE: Final = tuple(f.name.replace("_", "-") for f in fields(Settings) if f.name not in ("preset", "seed"))
# Asked for often enough, and not there: said by name.
_NOT_THERE: Final = ("pipeline-parallel-size", "data-parallel-size", "enable-expert-parallel")
_MOST_REPLICAS: Final = 1024


@dataclass(frozen=True, slots=True)
class SimAddress:
    """`flags` are the engine's, as on its command line."""

    preset: str
    flags: tuple[str, ...] = ()
    replicas: int = 1
    router: str = "round-robin"
    faults: tuple[ReplicaFault, ...] = ()
    scaling: ScalePolicy | None = None

    @property
    def most_replicas(self) -> int:
        return self.replicas if self.scaling is None else self.scaling.most


def read_address(text: str, where: str = "sim") -> SimAddress:
    """Read an address. UserError for a key or a value that there isn't, with the nearest name."""
    preset, _, query = text.partition("?")
    given: dict[str, list[str]] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        given.setdefault(key.replace("_", "-"), []).append(value.strip())
    known = [*_OF_FLEET, *_OF_ENGINE]
    for key, values in given.items():
        if key in _NOT_THERE:
            raise UserError(f"the embedded engine does not simulate {key}", where=f"{where}: {key}")
        if key not in known:
            raise UserError(f"unknown key {key!r}: {meant(key, known)}", where=f"{where}: ?{query}")
        if len(values) > 1 and key != "fault":
            raise UserError(f"{key} is given {len(values)} times", where=f"{where}: ?{query}")
    replicas = _replicas(given.get("replicas", ["1"])[0], where)
    router = given.get("router", ["round-robin"])[0]
    if router not in ROUTERS:
        raise UserError(f"unknown router {router!r}: {meant(router, list(ROUTERS))}", where=f"{where}: router")
    scaling = None
    if "autoscale" in given:
        scaling = parse_policy(given["autoscale"][0], replicas, f"{where}: autoscale")
    if "router" in given and replicas == 1 and scaling is None:
        raise UserError(
            "a router needs several replicas, and there is one", where=f"{where}: router",
            remedy="Give replicas too, e.g. ?replicas=4&router=least-in-flight, or leave the router out.",
        )  # fmt: skip
    flags = [flag for key in _OF_ENGINE if key in given for flag in _flag(key, given[key][0])]
    faults = parse_faults(given.get("fault", []), replicas, f"{where}: fault")
    return SimAddress(preset, tuple(flags), replicas, router, faults, scaling)


def refuse_in_real_time(address: SimAddress, where: str = "sim") -> None:
    """UserError for what there is on a virtual clock only."""
    several = address.replicas > 1
    what: Sequence[str] = [
        *([f"{address.replicas} replicas (replicas, router)"] if several else []),
        *(["faults (fault)"] if address.faults else []),
        *(["an autoscaler (autoscale)"] if address.scaling is not None else []),
    ]
    if what:
        raise UserError(
            f"the embedded engine has {' and '.join(what)} on a virtual clock only", where=where,
            remedy="Use tailgate run --virtual (target.clock: virtual), or leave them out.",
        )  # fmt: skip


def _replicas(text: str, where: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_REPLICAS:
        raise UserError(f"{text!r} is not a whole number from 1 to {_MOST_REPLICAS}", where=f"{where}: replicas")
    return int(text)


def _flag(key: str, value: str) -> list[str]:
    if value.lower() in ("true", ""):
        return [f"--{key}"]
    return [f"--no-{key}"] if value.lower() == "false" else [f"--{key}", value]
