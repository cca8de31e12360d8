"""Can these runs be compared at all? Decided before anyone looks at the result.

Each run's own checks, equal plans within a pair, deployments that differ only in what is under test. A target
that dies or refuses is no fault of the measuring: what becomes of it is for `reports.verdicts.gate.verdict`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

from tailgate.reports.compare.runs import StoredRun
from tailgate.reports.rundir.fingerprint import differences
from tailgate.reports.validity.own_error import OWN_ERROR
from tailgate.reports.verdicts.gate.policy import Policy
from tailgate.reports.verdicts.gate.runs import SIDES, mean_of_known, sides_of

SLOWDOWN_SHARE: Final = 0.01
FOREIGN_POINTS: Final = 1.0
# What a launch with other arguments, of another model or by another program resolves to.
_LAUNCHES: Final = ("args", "model", "sim", "kind", "command", "python")
_RESOLVED: Final = ("fingerprint.config.*", "fingerprint.max_model_len", "fingerprint.served_model")
# What a server that refuses everything does to these is its own doing.
_SERVERS_BOOKS: Final = ("token_counts", "cache", "warmth")

# A difference is declared as such, follows from a declared one, or is neither.
Declared = Literal["declared", "follows", ""]


@dataclass(frozen=True)
class Obstacle:
    """One reason why nothing can be said."""

    check: str  # stable name, e.g. `dispatch_lag`, `plan`, `fingerprint`
    says: str  # what is wrong, and in which run
    remedy: str


def obstacles(runs: Sequence[StoredRun], policy: Policy) -> list[Obstacle]:
    """Every reason, those of single runs first."""
    return [
        *(obstacle for run in runs for obstacle in obstacles_of(run)),
        *_plans(runs),
        *_kinds(runs),
        *_fingerprints(runs, policy),
        *_foreign(runs),
        *_one_sided_slowdown(runs),
    ]


def obstacles_of(run: StoredRun) -> Iterator[Obstacle]:
    """Why this run's measuring can't be trusted; nothing if its target died: that is a result.

    So it is if it refused everything: then its own books prove nothing, but our client's checks still count.
    """
    if run.target_died:
        return
    for check in run.summary.failed_checks:
        if run.refused_all and check.name in _SERVERS_BOOKS:
            continue
        if check.name == OWN_ERROR:  # of figures that the run was asked for; a gate holds its own metrics against it
            continue
        value = "" if check.value is None else f" {check.value:.4g} {check.unit}".rstrip()
        bound = "" if check.bound is None else f" (at most {check.bound:.4g} {check.unit}".rstrip() + ")"
        says = f"{run.path.name}: {check.name.replace('_', ' ')}{value}{bound}: {check.why}"
        yield Obstacle(check.name, says, check.remedy)
    slow = _slowdown(run)
    if slow is not None and slow > SLOWDOWN_SHARE:
        says = f"{run.path.name}: a GPU was slowed down for {100 * slow:.1f} % of the window"
        yield Obstacle("gpu_slowdown", says, "Check cooling and power supply of this host, then measure again.")


def _plans(runs: Sequence[StoredRun]) -> Iterator[Obstacle]:
    remedy = "Let the gate make the runs, or repeat them with one spec and one seed."
    pairs: dict[tuple[str, int], list[StoredRun]] = {}
    for run in runs:
        if run.pair is not None:
            pairs.setdefault((run.point, run.pair), []).append(run)
    for (point, pair), members in pairs.items():
        if len({run.manifest.plan_hash for run in members}) > 1 or "" in {run.manifest.plan_hash for run in members}:
            yield Obstacle("plan", f"the two runs of pair {pair} ({point}) did not have the same plan", remedy)
    for point in dict.fromkeys(run.point for run in runs):
        first, *rest = [run for run in runs if run.point == point]
        different = [run for run in rest if run.manifest.workload_hash != first.manifest.workload_hash]
        if different:
            yield Obstacle(
                "workload", f"{different[0].path.name} and {first.path.name} had different workloads", remedy
            )
        elif not first.manifest.workload_hash:
            yield Obstacle("workload", f"{first.path.name} doesn't say which workload it had", remedy)


def _kinds(runs: Sequence[StoredRun]) -> Iterator[Obstacle]:
    for point in dict.fromkeys(run.point for run in runs):
        if len({run.manifest.loop for run in runs if run.point == point}) > 1:
            says = "open and closed loops are mixed, and their latencies mean different things"
            yield Obstacle("loop", says, "Compare runs of one kind.")
    if len({run.manifest.target.simulated for run in runs}) > 1:
        yield Obstacle("simulated", "simulated and real targets are mixed", "Compare like with like.")


def _fingerprints(runs: Sequence[StoredRun], policy: Policy) -> Iterator[Obstacle]:
    for key, values, how in declared_differences(runs, policy):
        if how:
            continue
        where = " and ".join(f"{values[side]} ({side})" for side in SIDES if side in values)
        says = f"the deployments differ in {key}, which is not declared as the thing under test: {where}"
        yield Obstacle("fingerprint", says, f"Make it equal, or declare it (under_test: [{key}]).")


def declared_differences(runs: Sequence[StoredRun], policy: Policy) -> list[tuple[str, dict[str, str], Declared]]:
    """(fact, value by side, whether the policy declares it) of every difference between the deployments."""
    sides = {side: [run.manifest for run in runs if run.label == side] for side in SIDES}
    own, following = own_differences(policy)
    declared: list[tuple[str, dict[str, str], Declared]] = []
    for key, values in differences({side: manifests for side, manifests in sides.items() if manifests}):
        if _any(key, (*policy.under_test, *own)):
            declared.append((key, values, "declared"))
        else:
            declared.append((key, values, "follows" if _any(key, following) else ""))
    return declared


def _any(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(key, pattern) or key.startswith(f"{pattern}.") for pattern in patterns)


def own_differences(policy: Policy) -> tuple[list[str], list[str]]:
    """Facts (as patterns) that differ because the policy's `baseline` and `candidate` do, and those that follow."""
    if policy.baseline is None or policy.candidate is None:
        return [], []
    a, b = _flat(as_spec(policy.baseline)), _flat(as_spec(policy.candidate))
    own: list[str] = []
    following: list[str] = []
    for key in {**a, **b}:
        if a.get(key) == b.get(key) or key.startswith(("target.url", "name")):
            continue
        part = key.removeprefix("target.")
        own += [key, f"launch.{part}"]
        if part.partition(".")[0] in _LAUNCHES:
            following += _RESOLVED
        if part in ("python", "command", "kind") or part.startswith("env."):
            following += ["version", "target.server"]
        if part in ("model", "sim", "kind"):
            following += ["target.model", "version"]
        if part in ("gpus.type", "gpus.count"):
            following += ["fingerprint.gpus*"]
    return own, following


def as_spec(side: Any) -> Mapping[str, Any]:
    """A side of the policy as a part of a spec; a text is a URL or sim:PRESET."""
    if isinstance(side, str):
        sim = side.startswith("sim:")
        return {"target": {"kind": "sim", "sim": side[4:]} if sim else {"kind": "url", "url": side}}
    if isinstance(side, Mapping):
        return side if "target" in side else {"target": side}
    return {}


def _flat(tree: Any, key: str = "") -> dict[str, str]:
    if isinstance(tree, Mapping):
        parts = [_flat(value, f"{key}.{name}" if key else str(name)) for name, value in tree.items()]
        return {name: value for part in parts for name, value in part.items()}
    return {key: str(tree)}


def _foreign(runs: Sequence[StoredRun]) -> Iterator[Obstacle]:
    """Other traffic on shared deployments may be there, but not more of it on one side."""
    for point in dict.fromkeys(run.point for run in runs):
        means = [mean_of_known(_foreign_percent(run) for run in side) for side in sides_of(runs, point)]
        a, b = means
        if a is not None and b is not None and abs(a - b) > FOREIGN_POINTS:
            says = f"other traffic took {a:.1f} % of the baseline's tokens and {b:.1f} % of the candidate's ({point})"
            yield Obstacle("foreign_traffic", says, "Keep others away while it is measured, or balance them.")


def _foreign_percent(run: StoredRun) -> float | None:
    checks = [check for check in run.summary.checks if (check.name, check.unit) == ("foreign_traffic", "%")]
    return checks[0].value if checks else None


def _one_sided_slowdown(runs: Sequence[StoredRun]) -> Iterator[Obstacle]:
    slow = {
        side: [share for run in runs if run.label == side and (share := _slowdown(run)) is not None] for side in SIDES
    }
    hit = [side for side in SIDES if any(share > 0 for share in slow[side])]
    if len(hit) == 1 and all(slow[side] for side in SIDES):
        says = f"GPUs were slowed down by heat or power on the {hit[0]}'s side only"
        yield Obstacle("gpu_slowdown", says, "Check cooling and power supply of this host, then measure again.")


def _slowdown(run: StoredRun) -> float | None:
    return run.summary.gpu.slowdown_share_max if run.summary.gpu else None
