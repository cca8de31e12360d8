"""A latency's 95 % interval as people read it, and cells that hold both or how many requests it needs."""

from tailgate.reports.documents.model import TableCell
from tailgate.reports.summary.latency import Interval
from tailgate.workloads.common.formatting import ms


def in_words(ends: Interval | None) -> str:
    """Such as `98.0 to 103.0`; `98.0 or more` where the sample is too small for an upper end. Empty for none."""
    match ends:
        case None | (None, None):
            return ""
        case (low, None):
            return f"{ms(low)} or more"
        case (None, high):
            return f"{ms(high)} or less"
    return f"{ms(ends[0])} to {ms(ends[1])}"


def interval_cell(value: float | None, ends: Interval | None, needs: int | None) -> TableCell:
    """A latency with its 95 % interval below it."""
    if value is None:
        return needs_cell(needs)
    return TableCell(ms(value), below=in_words(ends))


def needs_cell(needs: int | None) -> TableCell:
    """What stands for a percentile that its sample can't support."""
    return TableCell(f"needs {needs:,}", tone="faint") if needs else TableCell("-")
