"""A comparison as a document and as JSON; what it says is worked out in `reports.compare.comparison`."""

import dataclasses
from collections.abc import Iterable
from typing import Any, Final

from tailgate.reports.compare.comparison import SCHEMA, Comparison, Configuration
from tailgate.reports.compare.verdict import verdict_of
from tailgate.reports.documents import model as doc
from tailgate.reports.documents.plots.comparison import against_load, forest, pareto
from tailgate.reports.metrics.catalogue import Metric
from tailgate.reports.rundir.json_files import jsonable
from tailgate.reports.stats.between_runs import Ratio, RunsMean
from tailgate.workloads.common.formatting import counted, plain

_DASH: Final = (
    "no run has the figure: too few requests for that percentile, or nothing that says it (a price, GPU telemetry)"
)
_LOADED: Final = ("ttft.p50", "ttft.p99", "tpot.mean", "e2e.p50")


def to_json(comparison: Comparison) -> dict[str, Any]:
    """`tailgate.compare/1`: plain values for scripts."""
    points = comparison.points
    return {
        "schema": SCHEMA,
        "simulated": comparison.simulated,
        "verdict": verdict_of(comparison),
        "warnings": list(comparison.warnings),
        "points": [_point_json(point, comparison.metrics) for point in points],
        "fronts": [
            {
                "title": front.title,
                "x": front.x.key,
                "y": front.y.key,
                "dominated_by": [None if better is None else points[better].name for better in front.dominated_by],
            }
            for front in comparison.fronts
        ],
        "differences": [{"fact": key, "values": values} for key, values in comparison.differences],
    }


def _point_json(point: Configuration, metrics: tuple[Metric, ...]) -> dict[str, Any]:
    return {
        "label": point.label,
        "load": point.load,
        "runs": [str(run.path) for run in point.runs],
        "offered_rps": point.offered_rps,
        "figures": {m.key: jsonable(dataclasses.asdict(point.figures[m.key])) for m in metrics},
        "ratios": {key: jsonable(dataclasses.asdict(ratio)) for key, ratio in point.ratios.items()},
    }


def comparison_document(comparison: Comparison) -> doc.Document:
    points, by_key = comparison.points, {metric.key: metric for metric in comparison.metrics}
    # What an objective is about comes first.
    loaded = dict.fromkeys([*(metric.key for metric, _ in comparison.limits), *_LOADED])
    labels = list(dict.fromkeys(point.label for point in points))
    loads = [f for key in loaded if key in by_key and (f := against_load(comparison, by_key[key])) is not None]
    runs = [
        [point.name, str(run.path), run.manifest.started_at, run.summary.verdict, str(run.manifest.seed)]
        for point in points
        for run in point.runs
    ]
    facts = [[key, *(values.get(label, "-") for label in labels)] for key, values in comparison.differences]
    differences = doc.Table(
        ["setting or fact", *labels],
        facts,
        words=range(len(labels) + 1),
        depth=doc.Depth.FOLDED,
        dash="not stated there, and not reported",
    )
    same = None if facts else doc.Note("Nothing that is known of these deployments.", depth=doc.Depth.PAGE)
    return doc.Document(
        title=f"Comparison of {len(points)} configurations",
        heading=" against ".join(labels[:6]),
        why=verdict_of(comparison),
        about=(
            f"{len(runs)} runs, {len(points)} configurations; ratios are to {labels[0]} at the same load. "
            "Intervals show how much whole runs differ: 95 %, each figure by itself."
        ),
        banners=[doc.simulated(several=True)] if comparison.simulated else [],
        sections=[
            doc.section("", doc.Notes([doc.Note(warning, tone="unsure") for warning in comparison.warnings])),
            doc.section("Against the first", forest(comparison)),
            doc.section(
                "What to ship",
                doc.Notes([*_worse(comparison)]),
                doc.FigureRow([pareto(comparison, front) for front in comparison.fronts]),
            ),
            doc.section("Latency against load", doc.FigureRow(loads)),
            doc.section("All figures", _figures(comparison)),
            doc.section("What differed", differences, same),
            doc.section(
                "Runs",
                doc.Table(["configuration", "directory", "started", "verdict", "seed"], runs, words=range(5)),
                depth=doc.Depth.PAGE,
            ),
        ],
    )


def _figures(comparison: Comparison) -> doc.Table:
    runs = ((point, len(point.runs)) for point in comparison.points)
    head = ["", *(f"{point.name} ({counted(n, 'run')})" for point, n in runs)]
    rows: list[doc.Row] = [
        [metric.with_unit, *(_cell(point, metric) for point in comparison.points)] for metric in comparison.metrics
    ]
    return doc.Table(head, rows, dash=_DASH)


def _cell(point: Configuration, metric: Metric) -> doc.TableCell:
    """A figure with its interval, e.g. `103 (98 to 108)`; below it the ratio, and whether it is shown to be better."""
    ratio = point.ratios.get(metric.key)
    better = ratio.better(metric.higher) if ratio else None
    words: dict[bool | None, tuple[str, doc.Tone]] = {True: (" better", "ok"), False: (" worse", "fail")}
    word, tone = words.get(better, ("", ""))
    below = f"× {ratio.value:.3f}{_ends(ratio, '{:.3f}'.format)}{word}" if ratio else ""
    return doc.TableCell(_value(point.figures[metric.key], metric), below, tone)


def _value(estimate: RunsMean, metric: Metric) -> str:
    if estimate.value is None:
        return "-"
    return ("$" if metric.unit == "$" else "") + plain(estimate.value) + _ends(estimate, plain)


def _ends(interval: RunsMean | Ratio, shown: Any) -> str:
    if interval.low is None or interval.high is None:
        return ""
    return f" ({shown(interval.low)} to {shown(interval.high)})"


def _worse(comparison: Comparison) -> Iterable[doc.Note]:
    points = comparison.points
    for front in comparison.fronts:
        for point, better in zip(points, front.dominated_by, strict=True):
            if better is not None:
                yield doc.Note(f"{point.name} is worse on both than {points[better].name}.", f"{front.title}:")
