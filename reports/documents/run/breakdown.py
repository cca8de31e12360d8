"""Who got what: figures by class, tenant, endpoint, ..., and fairness between tenants."""

from collections.abc import Iterator
from typing import Final

from tailgate.reports.documents.model import Block, Depth, Note, Row, Section, Table, TableCell, section
from tailgate.reports.documents.run.latency import interval_cell
from tailgate.reports.metrics.breakdown import Fairness
from tailgate.reports.summary.model import GroupSummary, Summary
from tailgate.workloads.common.formatting import ms, percent

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


def breakdown(summary: Summary) -> Section:
    """Two tables a split: requests and the way to their first tokens, and the way to the last ones."""
    how = "Milliseconds; below each figure its 95 % interval, or how many requests it needs."
    blocks: list[Block] = [Note(how)] if summary.splits else []
    for name, groups in summary.splits.items():
        served = ["", "n", "failed", "good", "good/s", "tokens/s", *_heads(_TO_FIRST), "TTFT p99, failed = ∞"]
        blocks.append(Table(served, [*map(_to_first, groups)], _SPLITS[name]))
        blocks.append(Table(["", *_heads(_TO_LAST), "E2E p99, failed = ∞"], [*map(_to_last, groups)]))
    fair = _fairness(summary.fairness) if summary.fairness else ()
    return section("Who got what", *blocks, *fair, depth=Depth.PAGE)


def _heads(columns: Columns) -> list[str]:
    return [head for head, _, _ in columns]


def _to_first(group: GroupSummary) -> Row:
    good, tokens = group.goodput_rps, group.output_tokens_per_s
    return [
        group.name or "(none)", f"{group.n:,}", percent(group.failed_share), percent(group.attained),
        "-" if good is None else f"{good:.2f}", "-" if tokens is None else f"{tokens:,.1f}",
        *_latencies(group, _TO_FIRST), _failed_late(group, "ttft"),
    ]  # fmt: skip


def _to_last(group: GroupSummary) -> Row:
    return [group.name or "(none)", *_latencies(group, _TO_LAST), _failed_late(group, "e2e")]


def _latencies(group: GroupSummary, columns: Columns) -> Iterator[TableCell]:
    for _, name, q in columns:
        one = group.itl if name == "itl" else group.latencies[name]
        yield interval_cell(one.percentiles[q], one.intervals[q], group.needs.get(name, {}).get(q))


def _failed_late(group: GroupSummary, name: str) -> TableCell:
    """The p99 that counts failures as infinitely late."""
    late, needs = group.failed_as_inf[name], group.needs.get(f"{name}_failed_as_inf", {})
    return interval_cell(late.statistic("p99"), late.interval("p99"), needs.get("p99"))


def _fairness(fair: Fairness) -> tuple[Table, Note]:
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
    return Table(heads, rows, "Fairness between tenants"), Note(text)
