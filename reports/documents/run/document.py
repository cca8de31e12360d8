"""A run for a person, verdict first.

The order is that of the questions: can I believe it, what came out, why, what was run, how do I run it again. A
terminal shows what the summary holds; figures and what was run need the run's columns and its manifest.
"""

from tailgate.reports.documents.model import Banner, Document, FigureRow, section, simulated
from tailgate.reports.documents.plots.requests import heatmap, length_curves, ttft_by_prompt, waterfall
from tailgate.reports.documents.plots.run import over_time
from tailgate.reports.documents.run.breakdown import breakdown
from tailgate.reports.documents.run.cost import cost
from tailgate.reports.documents.run.deployment import deployment
from tailgate.reports.documents.run.head import head
from tailgate.reports.documents.run.latency import latency
from tailgate.reports.documents.run.outcomes import events_section, outcomes, what_was_run
from tailgate.reports.documents.run.server import diagnosis, gpus, server
from tailgate.reports.documents.run.validity import validity
from tailgate.reports.documents.run.workload import workload
from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.slowest import slowest
from tailgate.reports.metrics.timeline import timeline
from tailgate.reports.rundir.events import read_events
from tailgate.reports.rundir.manifest import Manifest
from tailgate.reports.summary.model import Summary


def run_document(summary: Summary, manifest: Manifest | None = None, analysis: Analysis | None = None) -> Document:
    sections = [head(summary, manifest), latency(summary, analysis)]
    events, _ = read_events(analysis.run.path) if analysis else ([], 0)
    if analysis:
        spread = [figure for figure in (heatmap(analysis), ttft_by_prompt(analysis)) if figure is not None]
        sections.append(section("Over time", over_time(analysis, timeline(analysis), events), FigureRow(spread)))
    sections.append(diagnosis(summary))
    if analysis:
        sections.append(section("The slowest requests", waterfall(slowest(analysis))))
    sections += [outcomes(summary), breakdown(summary), server(summary), gpus(summary), deployment(summary, manifest)]
    sections.append(cost(summary))
    if analysis:
        sections.append(workload(summary, analysis, length_curves(analysis)))
    sections += [validity(summary), events_section(events)]
    if manifest:
        sections.append(what_was_run(manifest))
    banners = [
        (summary.simulated, simulated(several=False)),
        (summary.state == "interrupted", Banner("INTERRUPTED", "the run did not come to its end")),
        (not summary.valid, Banner("INVALID", "do not use these figures")),
    ]
    return Document(
        title=f"{summary.run}: {summary.verdict}",
        heading=(manifest and manifest.name) or summary.run,
        about=_about(manifest) if manifest else "",
        verdict=summary.verdict,
        why=summary.why,
        points=summary.invalid_reasons[1:],
        banners=[banner for shown, banner in banners if shown],
        sections=sections,
    )


def _about(manifest: Manifest) -> str:
    target = manifest.target
    parts = (target.model, target.server, target.version, target.endpoint, manifest.started_at)
    return " · ".join(part for part in parts if part)
