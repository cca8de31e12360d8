"""A 95 % interval as people read it, and cells that hold a latency with its own or how many requests it needs."""

from tailgate.reports.documents.model import TableCell
from tailgate.reports.summary.latency import Interval
from tailgate.workloads.common.formatting import ms


def between(low: str, high: str) -> str:
    """`98.0 to 103.0` of two ends that are written out; `at least 98.0` where one is empty. Empty for none."""
    if low and high:
        return f"{low} to {high}"
    return f"at least {low}" if low else f"at most {high}" if high else ""


def in_words(ends: Interval | None) -> str:
    """A latency's; one end alone where the sample is too small for the other. Empty for none."""
    low, high = ("" if end is None else ms(end) for end in ends or (None, None))
    return between(low, high)


def interval_cell(value: float | None, ends: Interval | None, needs: int | None) -> TableCell:
    """A latency with its 95 % interval below it."""
    if value is None:
        return needs_cell(needs)
    return TableCell(ms(value), below=in_words(ends))


def needs_cell(needs: int | None) -> TableCell:
    """What stands for a percentile that its sample can't support."""
    return TableCell(f"needs {needs:,}", tone="faint") if needs else TableCell("-")
