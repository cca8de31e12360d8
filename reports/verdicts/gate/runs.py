"""The runs a gate judges: what is read of each run directory, by side, point and pair.

A gate's folder has `gate.json`, which says what each of its runs was; stored runs are named by globs.
"""

import glob
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from tailgate.reports.rundir.json_files import check_schema, write_atomic
from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.verdicts.gate.policy import WHOLE
from tailgate.workloads.common.errors import UserError

Side = Literal["baseline", "candidate"]
SIDES: Final[tuple[Side, Side]] = ("baseline", "candidate")
FILE_NAME: Final = "gate.json"
SCHEMA: Final = "tailgate.gate/1"


@dataclass(frozen=True)
class GateRun:
    """One run as the gate needs it.

    Attributes:
        side, point, pair: which; `pair` is None for stored runs.
        path: its directory.
        manifest, summary: as stored.
        multi_token_share: chunks that brought several tokens, of all; None where no chunk came.
    """

    side: Side
    point: str
    pair: int | None
    path: Path
    manifest: Manifest
    summary: dict[str, Any]
    multi_token_share: float | None = None

    @property
    def died(self) -> bool:
        """Its server was gone before the run's end."""
        return self.manifest.failed_side == "target"

    @property
    def ok(self) -> int:
        """Requests of the measure phase that ended ok."""
        return int(self.summary["load"]["requests"].get("ok", 0))

    @property
    def refused_all(self) -> bool:
        """Requests were judged and none ended ok."""
        return self.ok == 0 and self.summary["errors"]["share"] is not None

    @property
    def judged(self) -> int:
        """Requests that count as good or bad."""
        share, failed = self.summary["errors"]["share"], self.summary["errors"]["failed"]
        return round(failed / share) if share else self.ok

    @property
    def failed(self) -> int:
        """Judged requests that did not end ok."""
        return int(self.summary["errors"]["failed"])

    @property
    def good(self) -> int | None:
        """Good requests; None where the run's SLO doesn't say what a good request is."""
        slo = self.summary.get("slo") or {}
        return int(slo["good"]) if slo.get("good_means") or slo.get("good_means_by_class") else None

    @property
    def overloaded(self) -> bool:
        """Requests in flight grew all along."""
        return bool(self.summary["load"].get("overloaded"))

    @property
    def waiting_share(self) -> float | None:
        """Closed loop: share of the users' time in which they wait for an answer; None where it isn't known."""
        load = self.summary["load"]
        users, flight = load.get("users") or {}, load.get("in_flight") or {}
        return flight["mean"] / users["mean"] if users.get("mean") and "mean" in flight else None

    def bad_checks(self) -> list[dict[str, Any]]:
        """Checks of the measuring that failed."""
        return [check for check in self.summary["checks"] if check["status"] == "fail"]


@dataclass(frozen=True)
class Campaign:
    """What a gate's folder says of itself (`gate.json`).

    Attributes:
        runs: (directory name, side, point, pair) in the order in which they were made.
        repeated: one sentence for each pair that was measured again since its measuring had failed.
        seconds, dollars: spent, launches included; dollars None without a price.
        seconds_per_pair: on average.
        rates: of arrivals, what points given as shares came to, per second.
        notes: what else a reader must know of the loads.
        stopped: why it ended before its planned pairs; empty if it didn't.
        command: what was typed.
        restart: as the policy says, and as the targets allow.
        gone: a side whose server did not come up (again), and what was seen of it.
    """

    runs: tuple[tuple[str, Side, str, int], ...] = ()
    repeated: tuple[str, ...] = ()
    seconds: float = 0.0
    dollars: float | None = None
    rates: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    stopped: str = ""
    command: tuple[str, ...] = ()
    restart: str = "each"
    extension: bool = True
    gone: tuple[Side, str] | None = None

    @property
    def pairs(self) -> int:
        """Complete pairs."""
        measured = [{pair for _, side, _, pair in self.runs if side == one} for one in SIDES]
        return len(measured[0] & measured[1])

    @property
    def seconds_per_pair(self) -> float:
        """On average."""
        return self.seconds / self.pairs if self.pairs else 0.0

    @property
    def dollars_per_pair(self) -> float | None:
        """On average."""
        return self.dollars / self.pairs if self.dollars is not None and self.pairs else None

    def save(self, folder: Path) -> None:
        """Write `gate.json`."""
        data = {"schema": SCHEMA, **{name: getattr(self, name) for name in self.__dataclass_fields__}}
        write_atomic(folder / FILE_NAME, (json.dumps(data, indent=1) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> "Campaign":
        """Read `gate.json`.

        Raises:
            UserError: it is missing, damaged or of another version.
        """
        path = folder / FILE_NAME
        try:
            data = json.loads(path.read_bytes())
        except OSError as error:
            raise UserError(f"can't be read: {error.strerror}", where=str(path)) from error
        except ValueError as error:
            raise UserError(f"is not JSON: {error}", where=str(path), remedy="The file is damaged.") from error
        check_schema(data, SCHEMA, str(path))
        del data["schema"]
        data["runs"] = tuple((r[0], r[1], r[2], r[3]) for r in data["runs"])
        for name in ("repeated", "notes", "command"):
            data[name] = tuple(data.get(name, ()))
        gone = data.get("gone")
        data["gone"] = None if gone is None else (gone[0], gone[1])
        return cls(**data)


def of_campaign(folder: Path, campaign: Campaign) -> list[GateRun]:
    """The runs of a gate's folder.

    Raises:
        UserError: one of them is missing or damaged.
    """
    return [read_run(folder / name, side, point, pair) for name, side, point, pair in campaign.runs]


def stored(pattern: str, side: Side, where: str = "") -> list[GateRun]:
    """The runs that a glob names, in the order in which they were made; `where` the glob stands.

    Raises:
        UserError: nothing matches, or one is no run.
    """
    found = sorted(path for path in map(Path, glob.glob(pattern)) if path.is_dir())
    strange = [path for path in found if not (path / "manifest.json").exists()]
    if strange and len(strange) < len(found):
        more = f" (and {len(strange) - 1} more)" if len(strange) > 1 else ""
        raise UserError(
            f"{pattern!r} matches {strange[0]}{more}, which is no run: it has no manifest.json",
            where=where or f"--{side}", remedy="Write the pattern so that it names runs only.",
        )  # fmt: skip
    found = [] if strange else found
    if not found:
        said = f"no run directory matches {pattern!r}"
        if where:
            raise UserError(said, where=where, remedy="Name the folders of runs.")
        remedy = "Quote the pattern, e.g. 'runs/main-*'." if side == "baseline" else "Name the folders of its runs."
        raise UserError(f"{said}: there is no {side}", where=f"--{side}", remedy=remedy)
    runs = [read_run(path, side, WHOLE, None) for path in found]
    return sorted(runs, key=lambda run: run.manifest.t0_unix_ns)


def read_run(path: Path, side: Side, point: str, pair: int | None) -> GateRun:
    """One run directory; it is summarised first if it was not."""
    from tailgate.reports.compare.runs import load_runs

    one = load_runs([str(path)])[0]
    return GateRun(side, point, pair, path, one.manifest, one.summary.to_json(), multi_token_share(path))


def multi_token_share(path: Path) -> float | None:
    """Share of chunks with several tokens; where the server doesn't tell, at most as many as tokens exceed chunks."""
    import numpy as np

    from tailgate.reports.rundir.run import load_run

    run = load_run(path)
    rows = run.ok & run.measured
    chunks = float(np.nansum(run.column("chunks")[rows]))
    if not chunks:
        return None
    told = run.column("multi_token_chunks")[rows]
    if np.isfinite(told).any():
        return float(np.nansum(told)) / chunks
    tokens = float(np.nansum(run.column("output_tokens")[rows]))
    return min(1.0, max(0.0, tokens - chunks) / chunks)


def sides_of(runs: Sequence[GateRun], point: str) -> tuple[list[GateRun], list[GateRun]]:
    """(baseline, candidate) runs of a point, by pair."""
    mine = sorted((run for run in runs if run.point == point), key=lambda run: (run.pair or 0, run.manifest.t0_unix_ns))
    return [run for run in mine if run.side == "baseline"], [run for run in mine if run.side == "candidate"]
