"""Several runs in one table, a line each, for `tailgate report RUN RUN...`; `compare` holds them against each other."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import orjson
import pyarrow as pa

from tailgate.reports.documents import model as doc
from tailgate.reports.documents.render.csv import csv
from tailgate.reports.documents.render.junit import Case, junit
from tailgate.reports.documents.render.markdown import markdown
from tailgate.reports.documents.run.write import cases
from tailgate.reports.metrics.catalogue import COMPARED, Metric, metric_of
from tailgate.reports.summary.model import EXIT_CODES, Outcome, Summary
from tailgate.workloads.common.formatting import counted, dollars, plain

Reported = Sequence[tuple[Path, Summary]]
SCHEMA: Final = "tailgate.runs/1"
_SHOWN: Final = tuple(map(metric_of, (
    "ttft.p50", "ttft.p99", "tpot.mean", "e2e.p99", "output_tokens_per_s", "errors", "attained",
    "cost.per_million_output",
)))  # fmt: skip


def several_document(runs: Reported) -> doc.Document:
    metrics = [m for m in _SHOWN if any(summary.value(m.path) is not None for _, summary in runs)]
    head = ["run", "verdict", "ok", *(metric.with_unit for metric in metrics)]
    rows: list[doc.Row] = []
    for path, summary in runs:
        verdict = doc.TableCell(summary.verdict, tone=doc.TONES[summary.verdict])
        load = summary.load.requests
        figures = [_figure(metric, summary.value(metric.path)) for metric in metrics]
        rows.append([str(path), verdict, f"{load['ok']:,} of {load['planned']:,}", *figures])
    notes = [doc.Note(s.why, f"{path}:") for path, s in runs if s.verdict != "PASS"]
    return doc.Document(
        title=counted(len(runs), "run"),
        heading=counted(len(runs), "run"),
        verdict=_worst(runs),
        why=_how_many(runs),
        banners=[doc.simulated(several=True)] if any(summary.simulated for _, summary in runs) else [],
        sections=[doc.section("", doc.Table(head, rows, words=(0, 1)), doc.Notes(notes))],
    )


def _figure(metric: Metric, value: float | None) -> str:
    return dollars(value) or "-" if metric.unit == "$" else plain(None if value is None else metric.scale * value)


def several_exit_code(runs: Reported) -> int:
    """Of the worst run: INVALID (also one that was interrupted) before FAIL before INCONCLUSIVE before PASS."""
    return EXIT_CODES[_worst(runs)]


def _worst(runs: Reported) -> Outcome:
    return max((summary.verdict for _, summary in runs), key=[*EXIT_CODES].index)


def _how_many(runs: Reported) -> str:
    """`3 runs: 1 INVALID, 2 PASS.`, the worst first."""
    verdicts = [summary.verdict for _, summary in runs]
    each = ", ".join(f"{verdicts.count(word):,} {word}" for word in reversed(EXIT_CODES) if word in verdicts)
    return f"{counted(len(runs), 'run')}: {each}."


def export_several(runs: Reported, kind: str) -> str:
    """One document of `kind` (one of `documents.run.write.FORMATS`) for all runs."""
    match kind:
        case "md":
            return markdown(several_document(runs))
        case "csv":
            return csv(_table(runs))
        case "junit":
            return junit("tailgate report", [*_cases(runs)])
        case _:
            data = {"schema": SCHEMA, "runs": [{"directory": str(path), **s.to_json()} for path, s in runs]}
            return orjson.dumps(data, option=orjson.OPT_INDENT_2).decode() + "\n"


def _table(runs: Reported) -> pa.Table:
    """One line a run: its verdict, its requests, and every figure that a comparison has, in the catalogue's units."""
    columns: dict[str, list[object]] = {
        "run": [str(path) for path, _ in runs],
        "verdict": [summary.verdict for _, summary in runs],
        "why": [summary.why for _, summary in runs],
        "loop": [summary.load.loop for _, summary in runs],
        "offered_rps": [summary.load.offered_rps for _, summary in runs],
        "planned": [summary.load.requests["planned"] for _, summary in runs],
        "ok": [summary.load.requests["ok"] for _, summary in runs],
    }
    for metric in COMPARED:
        if metric.path[0] != "derived":
            values = [summary.value(metric.path) for _, summary in runs]
            columns[metric.key] = [None if value is None else metric.scale * value for value in values]
    return pa.table({
        name: pa.array(values, pa.float64() if all(value is None for value in values) else None)
        for name, values in columns.items()
    })  # fmt: skip


def _cases(runs: Reported) -> Iterator[Case]:
    for path, summary in runs:
        for case in cases(summary):
            yield Case(case.group, f"{path}: {case.name}", case.outcome, case.why)
