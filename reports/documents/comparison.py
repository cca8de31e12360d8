"""A comparison as HTML, Markdown, JSON and on the terminal.

What it says is worked out in `reports.compare.comparison`.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tailgate.reports.compare.comparison import SCHEMA, Comparison, Configuration
from tailgate.reports.documents.html_page import figure, page, section, table, text
from tailgate.reports.documents.plots.comparison import against_load, forest, pareto
from tailgate.reports.documents.plots.run import Figure
from tailgate.reports.documents.run_markdown import LIMIT_BYTES, cell, cut, md_table
from tailgate.reports.metrics.catalogue import Metric
from tailgate.reports.rundir.json_files import jsonable, write_atomic
from tailgate.reports.stats.between_runs import Ratio, RunsMean
from tailgate.workloads.common.formatting import plain

_LOADED = ("ttft.p50", "ttft.p99", "tpot.mean", "e2e.p50")


def to_json(found: Comparison) -> dict[str, Any]:
    """`tailgate.compare/1`: plain values for scripts."""
    return {
        "schema": SCHEMA,
        "simulated": found.simulated,
        "warnings": list(found.warnings),
        "points": [_point_json(point, found.metrics) for point in found.points],
        "fronts": [
            {
                "title": front.title,
                "x": front.x.key,
                "y": front.y.key,
                "dominated_by": [None if b is None else found.points[b].name for b in front.dominated_by],
            }
            for front in found.fronts
        ],
        "differences": [{"fact": key, "values": values} for key, values in found.differences],
    }


def _point_json(point: Configuration, metrics: tuple[Metric, ...]) -> dict[str, Any]:
    return {
        "label": point.label,
        "load": point.load,
        "runs": [str(run.path) for run in point.runs],
        "offered_rps": point.offered_rps,
        "figures": {m.key: jsonable(dataclasses.asdict(point.figures[m.key])) for m in metrics},
        "ratios": {key: jsonable(dataclasses.asdict(one)) for key, one in point.ratios.items()},
    }


def value_text(one: RunsMean, metric: Metric) -> str:
    """A figure with its interval, e.g. `103 (98 to 108)`."""
    if one.value is None:
        return "-"
    unit = "$" if metric.unit == "$" else ""
    return f"{unit}{plain(one.value)}" + ("" if one.low is None else f" ({plain(one.low)} to {plain(one.high)})")


def row_label(metric: Metric) -> str:
    """A metric with its unit, where its name doesn't hold it."""
    return f"{metric.label}, {metric.unit}" if metric.unit in ("ms", "%", "W") else metric.label


def ratio_text(one: Ratio | None, metric: Metric) -> str:
    """A ratio, and whether it is shown to be better or worse."""
    if one is None:
        return ""
    if one.low is None or one.high is None:
        return f"× {one.value:.3f}"
    word = ""
    if one.low > 1 or one.high < 1:
        word = " better" if (one.low > 1) == metric.higher else " worse"
    return f"× {one.value:.3f} ({one.low:.3f} to {one.high:.3f}){word}"


def print_comparison(found: Comparison, console: Console) -> None:
    """Print the comparison to a terminal."""
    if not console.is_terminal:
        console.width = max(console.width, 60 + 34 * len(found.points))
    if found.simulated:
        console.print("[bold black on yellow] SIMULATED [/] the targets are the embedded engine, not real servers")
    for warning in found.warnings:
        console.print(f"[yellow]{escape(warning)}[/]", highlight=False)
    shown = Table(header_style="bold")
    shown.add_column("")
    for point in found.points:
        shown.add_column(f"{escape(point.name)}\n{_runs(point)}", justify="right")
    for metric in found.metrics:
        cells = []
        for point in found.points:
            ratio = ratio_text(point.ratios.get(metric.key), metric)
            cells.append(value_text(point.figures[metric.key], metric) + (f"\n{ratio}" if ratio else ""))
        shown.add_row(row_label(metric), *cells)
    console.print(shown)
    for line in _beaten(found):
        console.print(escape(line), highlight=False)
    for key, values in found.differences[:20]:
        told = ", ".join(f"{label}: {value}" for label, value in values.items())
        console.print(f"differs: {escape(key)} ({escape(told)})", highlight=False)


def _runs(point: Configuration) -> str:
    return f"{len(point.runs)} run{'s' if len(point.runs) > 1 else ''}"


def _beaten(found: Comparison) -> Iterator[str]:
    for front in found.fronts:
        for point, beaten in zip(found.points, front.dominated_by, strict=True):
            if beaten is not None:
                other = found.points[beaten].name
                yield f"{front.title}: {point.name} is dominated by {other}"


def markdown(found: Comparison) -> str:
    """The comparison for a job summary, under 60 kB."""
    lines = ["## Comparison", ""]
    if found.simulated:
        lines += ["> **SIMULATED**: the targets are the embedded engine, not real servers.", ""]
    lines += [f"> {cell(warning)}" for warning in found.warnings] + [""]
    head = ["", *(f"{cell(point.name)} ({_runs(point)})" for point in found.points)]
    rows = []
    for metric in found.metrics:
        cells = [
            " ".join(
                filter(None, (value_text(p.figures[metric.key], metric), ratio_text(p.ratios.get(metric.key), metric)))
            )
            for p in found.points
        ]
        rows.append([cell(row_label(metric)), *cells])
    lines += md_table(head, rows)
    lines += [f"- {cell(line)}" for line in _beaten(found)] + [""]
    if found.differences:
        labels = list(dict.fromkeys(point.label for point in found.points))
        facts = [[cell(key), *(cell(values.get(label, "-")) for label in labels)] for key, values in found.differences]
        lines += [
            "<details><summary>What differed</summary>",
            "",
            *md_table(["", *map(cell, labels)], facts),
            "</details>",
        ]
    return cut("\n".join(lines) + "\n", LIMIT_BYTES)


def write_html(found: Comparison, path: Path) -> None:
    """Write the comparison as one self-contained page.

    Raises:
        UserError: it can't be written.
    """
    write_atomic(path, html(found).encode())


def html(found: Comparison) -> str:
    """The page."""
    by_key = {metric.key: metric for metric in found.metrics}
    loads = [f for key in _LOADED if key in by_key and (f := against_load(found, by_key[key])) is not None]
    fronts = [pareto(found, front) for front in found.fronts]
    ratios = forest(found)
    body = [_head(found)]
    if ratios:
        body.append(section("Against the first", figure(ratios)))
    if fronts:
        said = "".join(f"<p>{text(line)}.</p>" for line in _beaten(found))
        body.append(section("What to ship", said + _pair(fronts)))
    if loads:
        body.append(section("Latency against load", _pair(loads)))
    body += [_table(found), _differences(found), _runs_listed(found)]
    drawn = [*([ratios] if ratios else []), *fronts, *loads]
    return page(f"Comparison of {len(found.points)} configurations", _banner(found), "".join(body), drawn)


def _pair(figures: list[Figure]) -> str:
    return f'<div class="pair">{"".join(figure(one) for one in figures)}</div>'


def _banner(found: Comparison) -> str:
    if not found.simulated:
        return ""
    what = "SIMULATED: the targets are the embedded engine, not real servers"
    mark = '<div class="watermark" aria-hidden="true">SIMULATED</div>'
    return f'{mark}<div class="banner sim" role="note">{what}</div>'


def _head(found: Comparison) -> str:
    labels = list(dict.fromkeys(point.label for point in found.points))
    runs = sum(len(point.runs) for point in found.points)
    warnings = "".join(f"<li>{text(warning)}</li>" for warning in found.warnings)
    return (
        f"<header><h1>{text(' against '.join(labels[:6]))}</h1>"
        f"<p class='faint'>{runs} runs, {len(found.points)} configurations; ratios are to "
        f"{text(found.points[0].label)} at the same load. "
        "The run is the sample: intervals are 95 %, between runs, each figure by itself.</p>"
        + (f'<div class="verdict INCONCLUSIVE"><span><ul>{warnings}</ul></span></div>' if warnings else "")
        + "</header>"
    )


def _table(found: Comparison) -> str:
    head = ["", *(f"{point.name} ({_runs(point)})" for point in found.points)]
    rows = []
    for metric in found.metrics:
        rows.append(
            [
                row_label(metric),
                *(value_text(p.figures[metric.key], metric) for p in found.points),
            ]
        )
        if any(metric.key in point.ratios for point in found.points):
            rows.append(["", *(ratio_text(p.ratios.get(metric.key), metric) for p in found.points)])
    return section("All figures", table(head, rows))


def _differences(found: Comparison) -> str:
    if not found.differences:
        return section("What differed", "<p>Nothing that is known of these deployments.</p>")
    labels = list(dict.fromkeys(point.label for point in found.points))
    rows = [[key, *(values.get(label, "-") for label in labels)] for key, values in found.differences]
    return section("What differed", table(["", *labels], rows, range(len(labels) + 1)))


def _runs_listed(found: Comparison) -> str:
    rows = [
        [point.name, str(run.path), run.manifest.started_at, run.summary.verdict, str(run.manifest.seed)]
        for point in found.points
        for run in point.runs
    ]
    return section("Runs", table(["configuration", "directory", "started", "verdict", "seed"], rows, range(5)))
