"""From a policy to the specs of its runs: one for each side, point and pair.

A side is laid over the policy's `spec`, a point over its workload; the seed is the pair's, the same on both sides.
At a saturated point users don't think: else their pauses, and not the target, would say what is carried.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from tailgate.harness.config import run_spec as specs
from tailgate.harness.config.run_spec import RunSpec
from tailgate.reports.verdicts.gate.comparability import as_spec
from tailgate.reports.verdicts.gate.policy import WHOLE, LoadPoint, Policy
from tailgate.reports.verdicts.gate.runs import SIDES, Side
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.config.classes import ClassSpec
from tailgate.workloads.config.profiles import with_rate_of_classes
from tailgate.workloads.config.workload import WorkloadSpec

# Just started servers are slow (compilation, empty caches): without a word of the policy this is left out.
WARMUP_S: Final = 10.0


@dataclass(frozen=True)
class Experiment:
    """A policy that can be run."""

    policy: Policy
    folder: Path  # file names in the policy are relative to it
    rates: Mapping[str, float]  # of arrivals per second, what points given as shares came to

    @property
    def points(self) -> list[str]:
        """Their names in the order in which they are run."""
        return [*self.policy.points] or [WHOLE]

    def with_rate(self, name: str, rate: float) -> "Experiment":
        return replace(self, rates={**self.rates, name: rate})

    def spec(self, side: Side, point: str, pair: int) -> RunSpec:
        """The spec of one run."""
        spec = self._as_written(side, point, pair)
        if point != WHOLE and self.policy.points[point].saturated:
            return spec.model_copy(update={"workload": _without_pauses(spec.workload)})
        return spec

    def _as_written(self, side: Side, point: str, pair: int) -> RunSpec:
        data = specs.merge(_base(self.policy, self.folder), _side(self.policy, side))
        workload = dict(data.get("workload") or {})
        where = f"policy ({side})"
        if point != WHOLE:
            workload = _loaded(workload, self.policy.points[point], self.rates.get(point), point)
            where = f"policy ({side}, points: {point} {self.policy.points[point].text})"
        declared = "warmup" in workload
        workload.setdefault("warmup", WARMUP_S)
        data |= {"workload": workload, "seed": self.policy.seed + pair, "name": f"{self.policy.name}-{side}"}
        data["target"] = _with_engine_seed(dict(data["target"]), side, pair)
        if not declared and data["target"].keys() & {"url", "urls"} and data["target"].get("kind", "url") == "url":
            data.setdefault("settle", "none")  # our own default asks a stranger's server for no further requests
        try:
            spec = specs.build(data, where, self.folder)
            if spec.injectors == "auto" and spec.workers is None:
                # What a busy moment makes of `auto` must not tell the sides apart.
                spec = spec.model_copy(update={"injectors": 1})
        except UserError as error:
            raise _at_point(error, where, point) from error
        if point != WHOLE:
            _require_one_rate(spec.workload, where)
        return spec

    def check(self) -> None:
        """Make the spec of every run once, so that what is missing in one is said."""
        for side in SIDES:
            for point in self.points:
                self.sample(side, point)

    def sample(self, side: Side, point: str | None = None) -> RunSpec:
        """The spec of the first pair's run, with 1/s where a share's rate isn't known yet."""
        point = point or self.points[0]
        return (self.with_rate(point, 1.0) if self.rate_unknown(point) else self).spec(side, point, 1)

    def rate_unknown(self, point: str) -> bool:
        """Whether a point is a share of what has not been measured yet."""
        return point != WHOLE and self.policy.points[point].share is not None and point not in self.rates

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the verdict must know of the loads."""
        saturated = [name for name, point in self.policy.points.items() if point.saturated]
        workloads = {name: self._as_written("baseline", name, 1).workload for name in saturated}
        return tuple(
            f"{name}: users ask again at once, the workload's think times are left out"
            for name, workload in workloads.items()
            if _has_pauses(workload)
        )


def experiment(policy: Policy, folder: Path) -> Experiment:
    """The experiment of a policy."""
    for side in SIDES:
        if getattr(policy, side) is None:
            raise UserError(
                f"`{side}` is missing: which deployment is it?", where="policy",
                remedy="Write a URL, sim:PRESET, or a target; or name stored runs (--baseline, --candidate).",
            )  # fmt: skip
    planned = Experiment(policy, folder, {})
    planned.check()
    return planned


def _base(policy: Policy, folder: Path) -> dict[str, Any]:
    match policy.spec:
        case None:
            return {}
        case str():
            return specs.load(folder / policy.spec)
        case dict():
            return dict(policy.spec)
    raise UserError("`spec` is a file's name, or what would stand in one", where="policy: spec")


def _side(policy: Policy, side: Side) -> dict[str, Any]:
    spec = as_spec(getattr(policy, side))
    if not spec:
        raise UserError("write a URL, sim:PRESET, or a target", where=f"policy: {side}")
    return dict(spec)


def _loaded(workload: dict[str, Any], point: LoadPoint, rate: float | None, name: str) -> dict[str, Any]:
    if point.users is not None:
        return {**_without(workload, "arrivals", "stages"), "users": point.users}
    chosen = point.rate if point.rate is not None else rate
    if chosen is None:
        raise UserError("its rate is not known yet", where=f"points.{name}")
    rest = _without(workload, "users", "stages")
    if _is_mix_of_its_own(workload):
        return with_rate_of_classes({**rest, "arrivals": {"rate": chosen}})
    arrivals = dict(workload.get("arrivals") or ({} if "profile" in workload else {"process": "poisson"}))
    arrivals.pop("stages", None)
    return {**rest, "arrivals": {**arrivals, "rate": chosen}}


def _without(workload: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in workload.items() if key not in keys}


def _is_mix_of_its_own(workload: dict[str, Any]) -> bool:
    """Whether all classes have arrivals with a rate, in a workload without a profile, which would see to them."""
    classes = workload.get("classes")
    if "profile" in workload or not isinstance(classes, dict) or not classes:
        return False
    try:
        parsed = [ClassSpec.model_validate(written) for written in classes.values()]
    except ValidationError:
        return False  # the whole spec's check says what is wrong
    return all(each.arrivals is not None and each.arrivals.mean_rate() for each in parsed)


def _without_pauses(workload: WorkloadSpec) -> WorkloadSpec:
    """The same with users who ask again as soon as they are answered; a trace's pauses stay."""
    update: dict[str, Any] = {}
    if workload.sessions is not None:
        update["sessions"] = workload.sessions.model_copy(update={"think": 0})
    classes = {
        name: kind.model_copy(update={"sessions": kind.sessions.model_copy(update={"think": 0})})
        for name, kind in workload.classes.items()
        if kind.sessions is not None
    }
    return workload.model_copy(update={**update, "classes": {**workload.classes, **classes}})


def _has_pauses(workload: WorkloadSpec) -> bool:
    return any(kind.sessions is not None and kind.sessions.think != 0 for kind in workload.class_specs().values())


def _require_one_rate(workload: WorkloadSpec, where: str) -> None:
    """Whether a point's rate is that of all that arrives."""
    own = [name for name, kind in workload.classes.items() if kind.arrivals is not None]
    if workload.arrivals is not None and own:
        raise UserError(
            f"the rate of a point is that of the common arrivals, and {', '.join(own)} have their own", where=where,
            remedy="Give all classes `arrivals`, or none, or judge this workload without `points`.",
        )  # fmt: skip


def _at_point(error: UserError, where: str, point: str) -> UserError:
    """What is wrong with a spec, with the point whose load may have made it so."""
    if point == WHOLE or error.remedy:
        return error
    remedy = f"It is so at the load of the point {point}: use a workload that can have it, or leave the point out."
    place = where if error.where in ("", where) else f"{where}, {error.where}"
    return UserError(error.what, where=place, remedy=remedy)


def _with_engine_seed(target: dict[str, Any], side: Side, pair: int) -> dict[str, Any]:
    """The embedded engine's jitter is drawn anew for every run: by default it would be the same on both sides."""
    if not target.get("sim") or "seed" in (target.get("args") or {}):
        return target
    digest = hashlib.blake2b(f"{side} {pair}".encode(), digest_size=4).digest()
    return {**target, "args": {**(target.get("args") or {}), "seed": int.from_bytes(digest, "big") >> 1}}
