"""Latency: percentiles with their intervals, how answers came over the wire, and the percentile curves."""

from collections.abc import Iterator
from typing import Final

from tailgate.reports.documents.model import Depth, FigureRow, Note, Row, Section, Table, TableCell, facts, section
from tailgate.reports.documents.plots.run import percentile_curve
from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.catalogue import LATENCIES, METRICS
from tailgate.reports.summary.model import Connections, Interval, Summary
from tailgate.workloads.common.formatting import ms, percent

_BRIEF: Final = ("ttft", "ttft_from_send", "itl", "tpot", "stall", "e2e")
_COLUMNS: Final = ("mean", "p50", "p90", "p95", "p99", "p99.9", "max")
_PAGE_COLUMNS: Final = ("mean", "min", *_COLUMNS[1:])
_LOOPS: Final = {
    "open": "Open loop: TTFT and E2E count from the planned arrival.",
    "closed": "Closed loop: TTFT and E2E count from the sending; this is no latency at a given rate.",
}


def latency(summary: Summary, analysis: Analysis | None) -> Section:
    names = ("ttft", "itl", "e2e", "tpot") if analysis else ()
    curves = [analysis and percentile_curve(analysis, name, METRICS[name].label) for name in names]
    grew = "requests in flight grew all along, so latencies grow with the run's duration."
    how = (
        f"{_LOOPS[summary.load.loop]} Milliseconds, over requests that ended ok; "
        "below each figure its 95 % interval, or how many requests it needs."
    )
    return section(
        "Latency",
        Note(grew, "Overloaded:", tone="unsure") if summary.load.overloaded else None,
        Note(how, depth=Depth.PAGE),
        Table(
            ["", "n", *_COLUMNS, "p99, 95 % interval"], [_brief_row(summary, key) for key in _BRIEF], "Latency, ms",
            depth=Depth.BRIEF,
        ),
        Table(["", "n", *_PAGE_COLUMNS], [*_rows(summary)], depth=Depth.PAGE),
        Note(_wire_line(summary), depth=Depth.BRIEF),
        _wire(summary),
        FigureRow([curve for curve in curves if curve]),
    )  # fmt: skip


def _brief_row(summary: Summary, key: str) -> Row:
    statistics, needs = summary.latency_ms[key], summary.percentile_needs.get(key, {})
    ends = statistics.interval("p99")
    values = {name: statistics.statistic(name) for name in _COLUMNS}
    cells = [
        TableCell(f"n≥{needs[name]:,}", tone="faint") if value is None and name in needs else ms(value)
        for name, value in values.items()
    ]
    interval = f"{ms(ends[0])} .. {ms(ends[1]) if ends[1] is not None else '?'}" if ends else "-"
    return [METRICS[key].label, f"{statistics.n:,}", *cells, interval]


def _rows(summary: Summary) -> Iterator[Row]:
    late = summary.latency_failed_as_inf_ms, summary.percentile_needs_failed_as_inf, ", failed = ∞"
    for latencies, needs, suffix in ((summary.latency_ms, summary.percentile_needs, ""), late):
        for metric in LATENCIES:
            if statistics := latencies.get(metric.key):
                lacking = needs.get(metric.key, {})
                cells = (
                    interval_cell(statistics.statistic(q), statistics.interval(q), lacking.get(q))
                    for q in _PAGE_COLUMNS
                )
                yield [f"{metric.label}{suffix}", f"{statistics.n:,}", *cells]


def interval_cell(value: float | None, ends: Interval | None, needs: int | None) -> TableCell:
    """A latency with its 95 % interval below it, or how many requests it needs."""
    if value is None:
        return TableCell(f"needs {needs:,}", tone="faint") if needs else TableCell("-")
    return TableCell(ms(value), below=" to ".join("?" if end is None else ms(end) for end in ends or ()))


def _wire_line(summary: Summary) -> str:
    """What a reader of ITL and TTFT should know: tokens that shared chunks or reads, and set-up of connections."""
    sent, opened = summary.streaming, summary.connections
    parts = [
        (sent.multi_token_share, f"{percent(sent.multi_token_share)} of chunks hold several tokens"),
        (sent.server_coalesced_share, f"{percent(sent.server_coalesced_share)} came bundled"),
        (opened.new, f"{opened.new:,} new connections: {_set_up(opened)} ms"),
    ]
    return "; ".join(part for shown, part in parts if shown)


def _set_up(opened: Connections) -> str:
    times = {name: opened.set_up_ms.statistic(name) for name in ("p50", "p99", "max")}
    return ", ".join(f"{name} {ms(value)}" for name, value in times.items() if value is not None)


def _wire(summary: Summary) -> Table:
    """How answers came over the wire, and what new connections took (inside TTFT and E2E, apart here)."""
    sent, opened, rates = summary.streaming, summary.connections, summary.throughput
    together = "chunks that came in one read with others"
    estimated = rates.estimated_share if rates else 0.0
    return facts(
        [
            ("chunks of several tokens (one gap each in ITL)", percent(sent.multi_token_share)),
            (f"{together}: bundled by server or gateway", percent(sent.server_coalesced_share)),
            (f"{together}: this client was late", percent(sent.client_coalesced_share)),
            ("new connections", f"{opened.new:,} of {opened.sent:,} requests"),
            ("output tokens that no usage confirms (estimated)", percent(estimated) if estimated else ""),
            ("their set-up (TCP and TLS), ms", _set_up(opened) if opened.set_up_ms.n else ""),
        ],
        "On the wire",
    )
