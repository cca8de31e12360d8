"""The runs a gate judges, by side (their label), point and pair.

A gate's folder has `gate.json`, which says what each of its runs was. Stored runs are named by globs, and their point
is known by the load that their spec asked for.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Final, Literal

from tailgate.reports.compare.runs import StoredRun, directories, read_run
from tailgate.reports.rundir.json_files import from_json, read_json, write_atomic
from tailgate.reports.verdicts.gate.policy import WHOLE, Policy
from tailgate.workloads.common.errors import UserError

Side = Literal["baseline", "candidate"]
SIDES: Final[tuple[Side, Side]] = ("baseline", "candidate")
FILE_NAME: Final = "gate.json"
SCHEMA: Final = "tailgate.gate/1"


@dataclass(frozen=True)
class GateRecord:
    """What a gate's folder says of itself (`gate.json`): which of its runs count, and what they took."""

    # (directory name, side, point, pair) in the order in which they were made
    runs: tuple[tuple[str, str, str, int], ...] = ()
    repeated: tuple[str, ...] = ()  # one sentence for each pair that was measured again since its measuring had failed
    # seconds, dollars: spent, launches included; dollars None without a price
    seconds: float = 0.0
    dollars: float | None = None
    # of arrivals, what points given as shares came to, per second
    rates: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what else a reader must know of the loads
    stopped: str = ""  # why it ended before its planned pairs; empty if it didn't
    command: tuple[str, ...] = ()
    restart: str = "each"  # as the policy says, and as the targets allow
    extension: bool = True
    gone: tuple[Side, str] | None = None  # a side whose server did not come up (again), and what was seen of it

    @property
    def pairs(self) -> int:
        baseline, candidate = ({pair for _, label, _, pair in self.runs if label == side} for side in SIDES)
        return len(baseline & candidate)

    @property
    def seconds_per_pair(self) -> float:
        return self.seconds / self.pairs if self.pairs else 0.0

    @property
    def dollars_per_pair(self) -> float | None:
        return self.dollars / self.pairs if self.dollars is not None and self.pairs else None

    def save(self, folder: Path) -> None:
        data = {"schema": SCHEMA, **asdict(self)}
        write_atomic(folder / FILE_NAME, (json.dumps(data, indent=1) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> "GateRecord":
        record: GateRecord = from_json(cls, read_json(folder / FILE_NAME, SCHEMA))
        return record


def recorded_runs(folder: Path, record: GateRecord) -> list[StoredRun]:
    """The runs of a gate's folder that count."""
    return [read_run(folder / name, side, point, pair) for name, side, point, pair in record.runs]


def stored_runs(pattern: str, side: Side, where: str = "") -> list[StoredRun]:
    """The runs that a glob names, in the order in which they were made; `where` the glob stands."""
    paths = directories(pattern)
    strange = [path for path in paths if not (path / "manifest.json").exists()]
    if strange and len(strange) < len(paths):
        more = f" (and {len(strange) - 1} more)" if len(strange) > 1 else ""
        raise UserError(
            f"{pattern!r} matches {strange[0]}{more}, which is no run: it has no manifest.json",
            where=where or f"--{side}", remedy="Write the pattern so that it names runs only.",
        )  # fmt: skip
    if strange or not paths:
        what = f"no run directory matches {pattern!r}"
        if where:
            raise UserError(what, where=where, remedy="Name the folders of runs.")
        remedy = "Quote the pattern, e.g. 'runs/main-*'." if side == "baseline" else "Name the folders of its runs."
        raise UserError(f"{what}: there is no {side}", where=f"--{side}", remedy=remedy)
    runs = [read_run(path, side, WHOLE) for path in paths]
    return sorted(runs, key=lambda run: run.manifest.t0_unix_ns)


def sides_of(runs: Sequence[StoredRun], point: str) -> tuple[list[StoredRun], list[StoredRun]]:
    """(baseline, candidate) runs of a point, by pair."""
    ordered = sorted(runs, key=lambda run: (run.pair or 0, run.manifest.t0_unix_ns))
    there = [run for run in ordered if run.point == point]
    return [run for run in there if run.label == "baseline"], [run for run in there if run.label == "candidate"]


def placed(runs: Sequence[StoredRun], policy: Policy) -> list[StoredRun]:
    """Stored runs at the points of a policy; as they are if it names none.

    A share (0.85x) is whatever open-loop rate no other point has, which needs it to be the only share.

    Raises:
        UserError: a run fits no point, or a side has no run at one of them.
    """
    if not policy.points:
        return list(runs)
    at_points = [replace(run, point=_point_of(run, policy)) for run in runs]
    there = {(run.label, run.point) for run in at_points}
    if len({run.label for run in runs}) == len(SIDES):  # else only thresholds are judged
        for side, point in product(SIDES, dict.fromkeys(point for point, _ in policy.tests())):
            if (side, point) not in there:
                raise UserError(
                    f"no run of the {side} was made at the policy's point {point} ({policy.points[point].text})",
                    where=f"--{side}", remedy="Give such runs too, or judge by a policy without this point.",
                )  # fmt: skip
    return at_points


def mean_of_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def newest(runs: Sequence[StoredRun], window: int | None) -> list[StoredRun]:
    """The newest `window` runs at each point, oldest first; all of them without a window."""
    points = dict.fromkeys(run.point for run in runs)
    each = [[run for run in runs if run.point == point] for point in points]
    return [run for there in each for run in (there if window is None else there[-window:])]


def _point_of(run: StoredRun, policy: Policy) -> str:
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
        f"{run.path.name} was made at {load}, which is none of the policy's points ({points})", where=f"--{run.label}",
        remedy="Name runs made at these loads, or write the points as those runs had them.",
    )  # fmt: skip
