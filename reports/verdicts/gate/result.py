"""What a gate's verdict is made of; it is worked out by `reports.verdicts.gate.verdict` and shown by the documents."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tailgate.reports.rundir.json_files import jsonable, read_json
from tailgate.reports.stats.sequential_design import Design
from tailgate.reports.summary.model import EXIT_CODES, Outcome
from tailgate.reports.verdicts.gate.causes import Cause
from tailgate.reports.verdicts.gate.comparability import Declared, Obstacle
from tailgate.reports.verdicts.gate.comparison import MetricVerdict
from tailgate.reports.verdicts.gate.error_rule import ErrorRule
from tailgate.reports.verdicts.gate.runs import GateRecord
from tailgate.reports.verdicts.gate.thresholds import ThresholdVerdict

SCHEMA: Final = "tailgate.verdict/1"


@dataclass(frozen=True)
class Verdict:
    """What a gate says."""

    verdict: Outcome  # the word; `why` is one sentence, `advice` what to do about it
    why: str
    name: str  # of the policy
    advice: tuple[str, ...] = ()
    # metrics, errors, thresholds: what was judged; empty or None where it was not
    metrics: tuple[MetricVerdict, ...] = ()
    errors: ErrorRule | None = None
    thresholds: tuple[ThresholdVerdict, ...] = ()
    obstacles: tuple[Obstacle, ...] = ()  # why the runs can't be compared
    causes: tuple[Cause, ...] = ()  # where to look first if it is slower
    checks: tuple[tuple[str, str, str, str], ...] = ()  # every run's validity checks: (run, check, status, why)
    # facts in which the deployments differ, by side, and whether each was declared
    differences: tuple[tuple[str, dict[str, str], Declared], ...] = ()
    design: Design | None = None  # pairs, looks, and error budgets
    pairs: int = 0  # complete ones; 0 where runs were not paired
    runs: int = 0
    extend: bool = False  # the data can't tell yet, and the declared extension is still to come
    holds_for: str = ""  # what limits the verdict's reach; empty if nothing does
    notes: tuple[str, ...] = ()  # what else a reader must know
    # baseline, candidate: model and version of each side; the latter is the only one of a threshold gate
    baseline: str = ""
    candidate: str = ""
    simulated: bool = False  # the embedded engine was measured
    inconclusive: str = "fail"  # what the policy makes of INCONCLUSIVE, `fail` or `neutral`
    spent: GateRecord | None = None  # minutes, dollars, as far as known
    command: tuple[str, ...] = ()  # what was typed, to do it again

    @property
    def exit_code(self) -> int:
        """0 PASS, 1 FAIL, 3 INCONCLUSIVE, 4 INVALID."""
        return EXIT_CODES[self.verdict]

    @property
    def blocks(self) -> bool:
        """Whether a release should wait: everything but PASS, and INCONCLUSIVE where the policy calls it neutral."""
        return self.verdict != "PASS" and not (self.verdict == "INCONCLUSIVE" and self.inconclusive == "neutral")

    def to_json(self) -> dict[str, Any]:
        """`tailgate.verdict/1`: plain values for scripts."""
        data = {"schema": SCHEMA, **asdict(self), "exit_code": self.exit_code, "blocks": self.blocks}
        return dict(jsonable(data))


def load(path: Path) -> dict[str, Any]:
    """A stored `verdict.json`."""
    return read_json(path, SCHEMA)
