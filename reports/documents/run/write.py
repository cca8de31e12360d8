"""A run for a person, verdict first; and in each format: the page, Markdown, JUnit, CSV, JSON, a terminal.

The order is that of the questions: can I believe it, what came out, why, what was run, how do I run it again. A
terminal shows what the summary holds; figures and what was run need the run's columns and its manifest.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import orjson
import pyarrow as pa

from tailgate.reports.documents.model import Banner, Document, FigureRow, section, simulated
from tailgate.reports.documents.plots.requests import heatmap, length_curves, ttft_by_prompt, waterfall
from tailgate.reports.documents.plots.run import over_time
from tailgate.reports.documents.render.csv import csv
from tailgate.reports.documents.render.html import html
from tailgate.reports.documents.render.junit import Case, CaseOutcome, junit
from tailgate.reports.documents.render.markdown import markdown
from tailgate.reports.documents.run.cost import cost
from tailgate.reports.documents.run.head import head, objective_bounds
from tailgate.reports.documents.run.latency import breakdown, latency
from tailgate.reports.documents.run.outcomes import check_name, events_section, outcomes, validity, what_was_run
from tailgate.reports.documents.run.server import deployment, diagnosis, gpus, server
from tailgate.reports.documents.run.workload import workload
from tailgate.reports.metrics.analysis import Analysis, analyse
from tailgate.reports.metrics.catalogue import PER_REQUEST
from tailgate.reports.metrics.slowest import slowest
from tailgate.reports.metrics.timeline import timeline
from tailgate.reports.rundir.events import Event, read_events
from tailgate.reports.rundir.json_files import write_atomic
from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.summary.model import Summary
from tailgate.reports.validity.cause import InvalidCause, cause

FILE_NAME: Final = "report.html"
FORMATS: Final = ("csv", "json", "junit", "md")
_CSV_COLUMNS = (
    "index", "session", "turn", "class", "tenant", "phase", "endpoint", "status", "http_status", "error", "request_id",
    "prompt_tokens_planned", "prompt_tokens", "cached_tokens", "output_tokens_planned", "output_tokens", "chunks",
    "finish_reason",
)  # fmt: skip


def run_document(summary: Summary, manifest: Manifest | None = None, analysis: Analysis | None = None) -> Document:
    sections = [head(summary, manifest), latency(summary, analysis)]
    events = _events(analysis) if analysis else []
    if analysis:
        spread = [figure for figure in (heatmap(analysis), ttft_by_prompt(analysis)) if figure is not None]
        sections.append(section("Over time", over_time(analysis, timeline(analysis), events), FigureRow(spread)))
    sections.append(diagnosis(summary))
    if analysis:
        sections.append(section("The slowest requests", waterfall(slowest(analysis)), short="Slowest requests"))
    sections += [outcomes(summary), breakdown(summary), server(summary), gpus(summary), deployment(summary, manifest)]
    sections.append(cost(summary))
    if analysis:
        sections.append(workload(summary, analysis, length_curves(analysis)))
    sections += [validity(summary), events_section(events)]
    if manifest:
        sections.append(what_was_run(manifest))
    banners = [
        (summary.simulated, simulated(several=False, virtual=manifest is not None and manifest.clock == "virtual")),
        (summary.state == "interrupted", Banner("INTERRUPTED", "the run did not come to its end")),
        (not summary.valid, Banner("INVALID", "do not use these figures")),
    ]
    found = cause(summary.failed_checks) if summary.failed_checks else None
    return Document(
        title=f"{summary.run}: {summary.verdict}",
        heading=(manifest and manifest.name) or summary.run,
        about=_about(manifest) if manifest else "",
        verdict=summary.verdict,
        why=found.happened if found else summary.why,
        remedy=found.remedy if found else "",
        points=_also_failed(found) if found else (),
        banners=[banner for shown, banner in banners if shown],
        sections=sections,
    )


def _also_failed(found: InvalidCause) -> list[str]:
    others = ", ".join(check_name(check) for check in found.others)
    return [f"These checks failed as well, most often for the same reason: {others}."] if others else []


def _events(analysis: Analysis) -> list[Event]:
    """What happened, and from when a loop that ended by a number of requests had users without one."""
    events, _ = read_events(analysis.run.path)
    if (since := analysis.run.users_run_out_ns) is not None:
        events.append(Event(since, "users", "users run out of requests"))
    return sorted(events, key=lambda event: event.t_ns)


def _about(manifest: Manifest) -> str:
    target = manifest.target
    parts = (target.model, target.server, target.version, target.endpoint, manifest.started_at)
    return " · ".join(part for part in parts if part)


def write_report(run_dir: Path | str, summary: Summary, analysis: Analysis | None = None) -> Path:
    """Write `run_dir/report.html` from a summary and the run's columns (read again unless given); its path."""
    path = Path(run_dir) / FILE_NAME
    write_atomic(path, report(summary, analysis or analyse(run_dir)).encode())
    return path


def report(summary: Summary, analysis: Analysis) -> str:
    return html(run_document(summary, analysis.run.manifest, analysis))


def export(run_dir: Path, summary: Summary, kind: str, analysis: Analysis | None = None) -> str:
    """The document of `kind` (one of FORMATS) as text; a run that was analysed already isn't read again."""
    match kind:
        case "md":
            return markdown(run_document(summary, Manifest.load(run_dir)))
        case "csv":
            return _requests_csv(analysis or analyse(run_dir))
        case "junit":
            return junit(f"tailgate {summary.run}", [*cases(summary)])
        case _:
            return orjson.dumps(summary.to_json(), option=orjson.OPT_INDENT_2).decode() + "\n"


def _requests_csv(analysis: Analysis) -> str:
    """One line per planned request: its row beside its TTFT, TPOT, stall and E2E in ms, and whether it was good."""
    table = analysis.run.shown_requests.select(list(_CSV_COLUMNS))
    for name in ("class", "tenant", "phase"):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.string()))
    scheduled = analysis.run.column("scheduled_ns") / 1e6
    for name, values in {"scheduled_ms": scheduled, **{f"{n}_ms": analysis.figures.ms[n] for n in PER_REQUEST}}.items():
        table = table.append_column(name, pa.array(np.round(values, 3), from_pandas=True))
    return csv(table.append_column("good", pa.array(analysis.good)))


def cases(summary: Summary) -> Iterator[Case]:
    """A failed check is an error, since nothing can be said; an objective that isn't met for certain is a failure."""
    words: dict[str, CaseOutcome] = {"ok": "", "noted": "", "fail": "error", "unchecked": "skipped"}
    for check in summary.checks:
        yield Case("validity", check.name, words[check.status], f"{check.why}. {check.remedy}")
    for objective in summary.objectives:
        outcome: CaseOutcome = "" if objective.result == "met" else "failure"
        figures = f"found {objective.found}, 95 % bounds {objective_bounds(objective)}"
        why = f" ({objective.why})" if objective.why else ""
        yield Case("objective", objective.objective, outcome, f"{objective.result}: {figures}{why}")
    if not summary.objectives:
        yield Case("run", "anything ended ok", "failure" if summary.verdict == "FAIL" else "", summary.why)
