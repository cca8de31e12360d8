"""Which of a policy's points a stored run was made at: by the load that its spec asked for.

Runs that a gate made itself know their point (`gate.json`); stored ones only know their load.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from tailgate.reports.verdicts.gate.policy import Policy
from tailgate.reports.verdicts.gate.runs import SIDES, GateRun
from tailgate.workloads.common.errors import UserError


def placed(runs: Sequence[GateRun], policy: Policy) -> list[GateRun]:
    """Stored runs at the points of a policy; as they are if it names none.

    A share (0.85x) is whatever open-loop rate no other point has, which needs it to be the only share.

    Raises:
        UserError: a run fits no point, or a side has no run at one of them.
    """
    if not policy.points:
        return list(runs)
    found = [replace(run, point=_point(run, policy)) for run in runs]
    there = {(run.side, run.point) for run in found}
    if len({run.side for run in runs}) == len(SIDES):  # else only thresholds are judged
        for side, point in product(SIDES, dict.fromkeys(point for point, _ in policy.tests())):
            if (side, point) not in there:
                raise UserError(
                    f"no run of the {side} was made at the policy's point {point} ({policy.points[point].text})",
                    where=f"--{side}", remedy="Give such runs too, or judge by a policy without this point.",
                )  # fmt: skip
    return found


def newest(runs: Sequence[GateRun], window: int | None) -> list[GateRun]:
    """The newest `window` runs at each point, oldest first; all of them without a window."""
    points = dict.fromkeys(run.point for run in runs)
    each = [[run for run in runs if run.point == point] for point in points]
    return [run for mine in each for run in (mine if window is None else mine[-window:])]


def _point(run: GateRun, policy: Policy) -> str:
    workload = run.manifest.spec.get("workload") or {}
    users, rate = workload.get("users"), (workload.get("arrivals") or {}).get("rate")
    for name, point in policy.points.items():
        if (users is not None and point.users == users) or (users is None and rate is not None and point.rate == rate):
            return name
    shares = [name for name, point in policy.points.items() if point.share is not None]
    if len(shares) == 1 and users is None and rate is not None:
        return shares[0]
    load = f"closed {users}" if users is not None else f"{rate:g}/s" if rate is not None else "an unknown load"
    points = ", ".join(f"{name} {point.text}" for name, point in policy.points.items())
    raise UserError(
        f"{run.path.name} was made at {load}, which is none of the policy's points ({points})", where=f"--{run.side}",
        remedy="Name runs made at these loads, or write the points as those runs had them.",
    )  # fmt: skip
