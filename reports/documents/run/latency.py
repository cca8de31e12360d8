"""Latency: percentiles with their intervals, how answers came over the wire, and the percentile curves."""

from typing import Any, Final

from tailgate.reports.documents.model import Depth, Figures, Note, Row, Section, Table, TableCell, facts, section
from tailgate.reports.documents.plots.run import percentile_curve
from tailgate.reports.metrics.analysis import Analysis
from tailgate.workloads.common.formatting import ms, percent

_NAMES: Final = {
    "ttft": "TTFT", "ttft_from_send": "TTFT from send", "ttfa": "TTFA", "itl": "ITL", "tpot": "TPOT", "stall": "stall",
    "jitter": "jitter", "e2e": "E2E", "normalized_e2e": "E2E per token",
}  # fmt: skip
_BRIEF: Final = ("ttft", "ttft_from_send", "itl", "tpot", "stall", "e2e")
_COLUMNS: Final = ("mean", "p50", "p90", "p95", "p99", "p99.9", "max")
_PAGE_COLUMNS: Final = ("mean", "min", *_COLUMNS[1:])
_LOOPS: Final = {
    "open": "Open loop: TTFT and E2E count from the planned arrival.",
    "closed": "Closed loop: TTFT and E2E count from the sending; this is no latency at a given rate.",
}
_FAILED_LATE: Final = "{}, failed = ∞"


def latency(summary: dict[str, Any], analysis: Analysis | None) -> Section:
    """The section; with curves where there is an analysis."""
    curves = [
        curve
        for name in ("ttft", "itl", "e2e", "tpot")
        if analysis and (curve := percentile_curve(analysis, name, _NAMES[name])) is not None
    ]
    grew = "requests in flight grew all along, so latencies grow with the run's duration."
    how = (
        f"{_LOOPS[summary['load']['loop']]} Milliseconds, over requests that ended ok; "
        "below each figure its 95 % interval, or how many requests it needs."
    )
    return section(
        "Latency",
        Note(grew, "Overloaded:", tone="unsure") if summary["load"].get("overloaded") else None,
        Note(how, depth=Depth.PAGE),
        _brief_table(summary),
        _page_table(summary),
        Note(_wire_line(summary), depth=Depth.BRIEF),
        _wire(summary),
        Figures(curves),
    )


def _brief_table(summary: dict[str, Any]) -> Table:
    rows: list[Row] = []
    for key in _BRIEF:
        one, needs = summary["latency_ms"][key], summary["percentile_needs"].get(key, {})
        cells = [
            TableCell(f"n≥{needs[q]:,}", tone="faint") if one[q] is None and q in needs else ms(one[q])
            for q in _COLUMNS
        ]
        low, high = one["p99_ci"] or (None, None)
        interval = "-" if one["p99_ci"] is None else f"{ms(low)} .. {ms(high) if high is not None else '?'}"
        rows.append([_NAMES[key], f"{one['n']:,}", *cells, interval])
    return Table(["", "n", *_COLUMNS, "p99, 95 % interval"], rows, "Latency, ms", depth=Depth.BRIEF)


def _page_table(summary: dict[str, Any]) -> Table:
    def row(label: str, one: dict[str, Any], needs: dict[str, int]) -> Row:
        cells = [interval(one[name], one.get(f"{name}_ci"), needs.get(name)) for name in _PAGE_COLUMNS]
        return [label, f"{one['n']:,}", *cells]

    late, late_needs = summary["latency_failed_as_inf_ms"], summary["percentile_needs_failed_as_inf"]
    rows = [
        *(
            row(label, summary["latency_ms"][key], summary["percentile_needs"].get(key, {}))
            for key, label in _NAMES.items()
        ),
        *(row(_FAILED_LATE.format(_NAMES[key]), one, late_needs.get(key, {})) for key, one in late.items()),
    ]
    return Table(["", "n", *_PAGE_COLUMNS], rows, depth=Depth.PAGE)


def interval(value: float | str | None, ends: list[float | str | None] | None, needs: int | None) -> TableCell:
    """A latency with its 95 % interval below it, or how many requests it needs."""
    if value is None:
        return TableCell(f"needs {needs:,}", tone="faint") if needs else TableCell("-")
    if ends is None:
        return TableCell(ms(value))
    return TableCell(ms(value), below=" to ".join("?" if end is None else ms(end) for end in ends))


def _wire_line(summary: dict[str, Any]) -> str:
    """What a reader of ITL and TTFT should know: tokens that shared chunks or reads, and set-up of connections."""
    sent, opened = summary["streaming"], summary["connections"]
    parts = []
    if sent["multi_token_share"]:
        parts.append(f"{percent(sent['multi_token_share'])} of chunks hold several tokens")
    if sent["server_coalesced_share"]:
        parts.append(f"{percent(sent['server_coalesced_share'])} came bundled")
    if opened["new"]:
        parts.append(f"{opened['new']:,} new connections: {_set_up(opened)} ms")
    return "; ".join(parts)


def _set_up(opened: dict[str, Any]) -> str:
    times = opened["set_up_ms"]
    return ", ".join(f"{q} {ms(times[q])}" for q in ("p50", "p99", "max") if times[q] is not None)


def _wire(summary: dict[str, Any]) -> Table:
    """How answers came over the wire, and what new connections took (inside TTFT and E2E, apart here)."""
    sent, opened = summary["streaming"], summary["connections"]
    together = "chunks that came in one read with others"
    estimated = summary["throughput"].get("estimated_share")
    return facts(
        [
            ("chunks of several tokens (one gap each in ITL)", percent(sent["multi_token_share"])),
            (f"{together}: bundled by server or gateway", percent(sent["server_coalesced_share"])),
            (f"{together}: this client was late", percent(sent["client_coalesced_share"])),
            ("new connections", f"{opened['new']:,} of {opened['sent']:,} requests"),
            ("output tokens that no usage confirms (estimated)", percent(estimated) if estimated else ""),
            ("their set-up (TCP and TLS), ms", _set_up(opened) if opened["set_up_ms"]["n"] else ""),
        ],
        "On the wire",
    )
