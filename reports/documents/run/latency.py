"""Latency: percentiles with their intervals, answers on the wire, curves; and who got what, by class, tenant, ..."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from tailgate.reports.documents import model as doc
from tailgate.reports.documents.plots.run import percentile_curve
from tailgate.reports.documents.run.cost import cost_line
from tailgate.reports.documents.run.head import good_line
from tailgate.reports.documents.run.intervals import in_words, interval_cell, needs_cell
from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.breakdown import Fairness
from tailgate.reports.metrics.catalogue import LATENCIES, METRICS, Metric
from tailgate.reports.summary.latency import LatencySummary
from tailgate.reports.summary.model import Connections, GroupSummary, Summary
from tailgate.workloads.common.formatting import ms, percent

_COLUMNS: Final = ("mean", "p50", "p90", "p95", "p99", "p99.9", "max")
_SPARE: Final = ("p99.9", "mean", "p95", "n", "max", "p99, 95 % interval", "p90")  # columns, the least needed first
_PAGE_COLUMNS: Final = ("mean", "min", *_COLUMNS[1:])
_LOOPS: Final = {
    "open": "Open loop: TTFT and E2E count from the planned arrival.",
    "closed": "Closed loop: TTFT and E2E count from the sending; this is no latency at a given rate.",
}

Columns = tuple[tuple[str, str, str], ...]
_SPLITS: Final = {
    "class": "By class", "tenant": "By tenant", "endpoint": "By endpoint", "tier": "By price tier",
    "prompt_tokens": "By prompt length, tokens", "turn": "By turn of a session",
}  # fmt: skip
# (heading, latency, percentile); a split is two tables, so that a window shows each of them whole
_TO_FIRST: Final[Columns] = (("TTFT p50", "ttft", "p50"), ("TTFT p99", "ttft", "p99"), ("TTFA p50", "ttfa", "p50"))
_TO_LAST: Final[Columns] = (
    ("ITL p50", "itl", "p50"), ("ITL p99", "itl", "p99"), ("TPOT p50", "tpot", "p50"), ("stall p99", "stall", "p99"),
    ("jitter p50", "jitter", "p50"), ("E2E p50", "e2e", "p50"), ("E2E p99", "e2e", "p99"),
)  # fmt: skip
_MOST_TENANTS: Final = 24
# The load generator's own error shows where it is more than this of a figure, and than a clock could tell.
_SHOWN_SHARE: Final = 0.01
_SHOWN_MS: Final = 0.1
_DASH: Final = "no answer has this figure (ITL, TPOT and stall need a second token), or too few for an interval"
_SPLIT_DASH: Final = "nothing in this group has the figure, or no objective says what a good request is"


def latency(summary: Summary, analysis: Analysis | None) -> doc.Section:
    names = ("ttft", "itl", "e2e", "tpot") if analysis else ()
    curves = [analysis and percentile_curve(analysis, name, _label(summary, METRICS[name])) for name in names]
    grew = "requests in flight grew all along, so latencies grow with the run's duration."
    how = (
        f"{_LOOPS[summary.load.loop]} Milliseconds, over requests that ended ok; "
        "below each figure its 95 % interval, or how many requests it needs."
    )
    return doc.section(
        "Latency",
        doc.Note(grew, "Overloaded:", tone="unsure") if summary.load.overloaded else None,
        doc.Note(how, depth=doc.Depth.PAGE),
        *_brief(summary),
        _table(summary),
        doc.Note(_own_error_line(summary)),
        doc.Note(_wire_line(summary), depth=doc.Depth.BRIEF),
        _wire(summary),
        doc.FigureRow([curve for curve in curves if curve]),
    )


def _brief(summary: Summary) -> list[doc.Block]:
    """The figures in short, with what a reader wants beside them: goodput and cost."""
    latencies, needs = summary.latency_ms, summary.percentile_needs
    metrics = [metric for metric in LATENCIES if metric.key in latencies]
    rows: list[doc.Row] = [
        [_label(summary, metric), *_brief_row(latencies[metric.key], needs.get(metric.key, {}))] for metric in metrics
    ]
    lacking = any(name in _COLUMNS for missing in needs.values() for name in missing)
    why = 'Where a cell says "needs N", that percentile takes N requests like these.'
    head = ["", "n", *_COLUMNS, "p99, 95 % interval"]
    table = doc.Table(
        head, rows, "Latency, ms", depth=doc.Depth.BRIEF, dash=_DASH, rare=_rare(summary, metrics, rows),
        spare=[*map(head.index, _SPARE)],
    )  # fmt: skip
    notes = (why if lacking else "", good_line(summary.slo) if summary.slo else "", cost_line(summary))
    return [table, *(doc.Note(note, depth=doc.Depth.BRIEF) for note in notes)]


def _label(summary: Summary, metric: Metric) -> str:
    """Its name; TPOT's says where it is a lower bound, since nobody tells how many tokens first chunks hold."""
    return f"{metric.label}, at least" if metric.key == "tpot" and summary.streaming.tpot_is_bound else metric.label


def _brief_row(values: LatencySummary, needs: dict[str, int]) -> doc.Row:
    statistics = {name: values.statistic(name) for name in _COLUMNS}
    cells = [needs_cell(needs.get(name)) if value is None else ms(value) for name, value in statistics.items()]
    return [f"{values.n:,}", *cells, in_words(values.interval("p99")) or "-"]


def _table(summary: Summary) -> doc.Table:
    """Every latency, over requests that ended ok and with failures as infinitely late."""
    late = summary.latency_failed_as_inf_ms, summary.percentile_needs_failed_as_inf, ", failed = ∞"
    metrics: list[Metric] = []
    rows: list[doc.Row] = []
    for latencies, needs, suffix in ((summary.latency_ms, summary.percentile_needs, ""), late):
        for metric in LATENCIES:
            if statistics := latencies.get(metric.key):
                lacking = needs.get(metric.key, {})
                cells = (
                    interval_cell(statistics.statistic(q), statistics.interval(q), lacking.get(q))
                    for q in _PAGE_COLUMNS
                )
                metrics.append(metric)
                rows.append([f"{_label(summary, metric)}{suffix}", f"{statistics.n:,}", *cells])
    rare = _rare(summary, metrics, rows)
    return doc.Table(["", "n", *_PAGE_COLUMNS], rows, depth=doc.Depth.PAGE, dash=_DASH, rare=rare)


def _own_error_line(summary: Summary) -> str:
    """What the load generator itself leaves uncertain of p50 and p99, where that is more than a hundredth."""
    wide = []
    for metric in LATENCIES:
        values = summary.latency_ms.get(metric.key)
        for name in ("p50", "p99"):
            value, ends = (None, None) if values is None else (values.statistic(name), values.errors.get(name))
            if value is None or ends is None or ends[0] is None or ends[1] is None or metric.rare or metric.variant_of:
                continue
            half = (ends[1] - ends[0]) / 2
            if half > max(_SHOWN_MS, _SHOWN_SHARE * value):
                wide.append(f"{metric.label} {name} ± {ms(half)}")
    return f"The load generator itself leaves uncertain, ms: {', '.join(wide)}." if wide else ""


def _rare(summary: Summary, metrics: Sequence[Metric], rows: Sequence[doc.Row]) -> list[int]:
    """Places of the rows that repeat another's figures, or are rare and about nothing that an objective names."""
    named = _judged(summary)
    seen: set[tuple[str, ...]] = set()
    places = []
    for place, (metric, row) in enumerate(zip(metrics, rows, strict=True)):
        figures = (metric.variant_of or metric.key, *map(str, row[1:]))
        if figures in seen or (metric.rare and metric.key not in named):
            places.append(place)
        seen.add(figures)
    return places


def _judged(summary: Summary) -> set[str]:
    """The words of the objectives and of what makes a request good: among them the keys of metrics."""
    if summary.slo is None:
        return set()
    of_classes = [means for own in summary.slo.good_means_by_class.values() for means in own]
    texts = [*(objective.objective for objective in summary.objectives), *summary.slo.good_means, *of_classes]
    return set(re.findall(r"\w+", " ".join(texts)))


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


def _wire(summary: Summary) -> doc.Table:
    """How answers came over the wire, and what new connections took (inside TTFT and E2E, apart here)."""
    sent, opened, rates = summary.streaming, summary.connections, summary.throughput
    bounds = sent.tpot_is_bound
    together = "chunks that came in one read with others"
    estimated = rates.estimated_share if rates else 0.0
    return doc.facts(
        [
            ("chunks of several tokens (one gap each in ITL)", percent(sent.multi_token_share)),
            ("answers whose TPOT is at least the figure shown", f"{bounds:,}" if bounds else ""),
            (f"{together}: bundled by server or gateway", percent(sent.server_coalesced_share)),
            (f"{together}: this client was late", percent(sent.client_coalesced_share)),
            ("new connections", f"{opened.new:,} of {opened.sent:,} requests"),
            ("output tokens that no usage confirms (estimated)", percent(estimated) if estimated else ""),
            ("their set-up (TCP and TLS), ms", _set_up(opened) if opened.set_up_ms.n else ""),
        ],
        "On the wire",
    )


def breakdown(summary: Summary) -> doc.Section:
    """Two tables a split: requests and the way to their first tokens, and the way to the last ones."""
    how = "Milliseconds; below each figure its 95 % interval, or how many requests it needs."
    blocks: list[doc.Block] = [doc.Note(how)] if summary.splits else []
    for name, groups in summary.splits.items():
        served = ["", "n", "failed", "good", "good/s", "tokens/s", *_heads(_TO_FIRST), "TTFT p99, failed = ∞"]
        to_first = doc.Table(served, [*map(_to_first, groups)], _SPLITS[name], dash=_SPLIT_DASH)
        tpot = METRICS["tpot"].label, _label(summary, METRICS["tpot"])
        heads = ["", *(head.replace(*tpot) for head in _heads(_TO_LAST)), "E2E p99, failed = ∞"]
        to_last = doc.Table(heads, [*map(_to_last, groups)], dash=_SPLIT_DASH)
        # Where nothing failed, the last columns only repeat what stands before them.
        blocks += [table if summary.errors.failed else table.without_last for table in (to_first, to_last)]
    fair = _fairness(summary.fairness) if summary.fairness else ()
    return doc.section("Who got what", *blocks, *fair, depth=doc.Depth.PAGE)


def _heads(columns: Columns) -> list[str]:
    return [head for head, _, _ in columns]


def _to_first(group: GroupSummary) -> doc.Row:
    good, tokens = group.goodput_rps, group.output_tokens_per_s
    return [
        group.name or "(none)", f"{group.n:,}", percent(group.failed_share), percent(group.attained),
        "-" if good is None else f"{good:.2f}", "-" if tokens is None else f"{tokens:,.1f}",
        *_latencies(group, _TO_FIRST), _failed_late(group, "ttft"),
    ]  # fmt: skip


def _to_last(group: GroupSummary) -> doc.Row:
    return [group.name or "(none)", *_latencies(group, _TO_LAST), _failed_late(group, "e2e")]


def _latencies(group: GroupSummary, columns: Columns) -> Iterator[doc.TableCell]:
    for _, name, q in columns:
        latency = group.itl if name == "itl" else group.latencies[name]
        yield interval_cell(latency.percentiles[q], latency.intervals[q], group.needs.get(name, {}).get(q))


def _failed_late(group: GroupSummary, name: str) -> doc.TableCell:
    """The p99 that counts failures as infinitely late."""
    late, needs = group.failed_as_inf[name], group.needs.get(f"{name}_failed_as_inf", {})
    return interval_cell(late.statistic("p99"), late.interval("p99"), needs.get("p99"))


def _fairness(fair: Fairness) -> tuple[doc.Table, doc.Note]:
    """The tenants that asked for most, the others together; the ratio is over all."""
    shares = sorted(fair.shares, key=lambda share: -share.demand)
    shown, rest = shares[:_MOST_TENANTS], shares[_MOST_TENANTS:]
    rows = [[s.tenant, percent(s.demand), percent(s.service), ms(s.ttft_ms)] for s in shown]
    if rest:
        demand, service = (sum(getattr(share, name) for share in rest) for name in ("demand", "service"))
        rows.append([f"{len(rest):,} others", percent(demand), percent(service), ""])
    q = f"p{fair.percentile:g}"
    text = "Too few requests to compare tenants."
    if fair.worst_over_best is not None:
        text = f"The worst tenant's TTFT {q} is {fair.worst_over_best:.2f} times the best one's."
        if fair.too_few:
            text += f" Too few requests to be compared: {fair.too_few:,} of {len(shares):,} tenants."
    heads = ["tenant", "share of demand", "share of service", f"TTFT {q}, ms"]
    return doc.Table(heads, rows, "Fairness between tenants", dash="no request of this tenant ended ok"), doc.Note(text)
