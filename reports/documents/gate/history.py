"""Verdicts over time: one JSON line each, appended; read again for the trend."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tailgate.reports.rundir.events import append_line
from tailgate.reports.rundir.json_files import check_schema
from tailgate.reports.verdicts.gate.result import Verdict
from tailgate.reports.verdicts.gate.wording import middle
from tailgate.workloads.common.errors import UserError

SCHEMA: Final = "tailgate.history/1"


@dataclass(frozen=True)
class Remembered:
    """One metric of one verdict: ratio with its bounds, geometric means of both sides (medians, where older)."""

    point: str
    key: str
    ratio: float
    at_least: float
    at_most: float
    baseline: float
    candidate: float


@dataclass(frozen=True)
class Entry:
    """One verdict: when (ISO 8601, UTC), which, on what."""

    at: str
    name: str
    verdict: str
    baseline: str
    candidate: str
    pairs: int
    metrics: tuple[Remembered, ...]

    def metric(self, point: str, key: str) -> Remembered | None:
        return next((m for m in self.metrics if (m.point, m.key) == (point, key)), None)


def entry_of(verdict: Verdict, at: str) -> Entry:
    metrics = []
    for m in verdict.metrics:
        baseline, candidate = middle(m.baseline), middle(m.candidate)
        if m.ratio is None or m.at_least is None or m.at_most is None or baseline is None or candidate is None:
            continue
        metrics.append(Remembered(m.point, m.key, m.ratio, m.at_least, m.at_most, baseline, candidate))
    return Entry(at, verdict.name, verdict.verdict, verdict.baseline, verdict.candidate, verdict.pairs, tuple(metrics))


def append(path: Path, entry: Entry) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        append_line(path, json.dumps({"schema": SCHEMA, **asdict(entry)}, ensure_ascii=False))
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(path)) from error


def read(path: Path) -> list[Entry]:
    """All verdicts, oldest first; none where there is no file yet."""
    if not path.exists():
        return []
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        where = f"{path}:{number}"
        try:
            data = json.loads(line)
        except ValueError as error:
            raise UserError(f"is not JSON: {error}", where=where, remedy="Remove the damaged line.") from error
        check_schema(data, SCHEMA, where)
        entries.append(_entry(data, where))
    return entries


def _entry(data: dict[str, Any], where: str) -> Entry:
    try:
        metrics = tuple(Remembered(**metric) for metric in data["metrics"])
        return Entry(**{k: v for k, v in data.items() if k not in ("schema", "metrics")}, metrics=metrics)
    except (KeyError, TypeError) as error:
        raise UserError(f"is not a verdict: {error}", where=where, remedy="Remove the damaged line.") from error
