"""A verdict on a terminal: the word, why, each metric with its pairs, what to do."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tailgate.reports.documents.gate.dots import dots
from tailgate.reports.verdicts.gate.result import Verdict
from tailgate.reports.verdicts.gate.wording import both_sides, duration, interval, limit, name_of, threshold_figures

_COLOURS = {
    "PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow", "INVALID": "magenta", "pass": "green", "fail": "red",
    "met": "green", "broken": "red",
}  # fmt: skip


def print_verdict(found: Verdict, console: Console) -> None:
    """Print it to `console`."""
    if not console.is_terminal:  # a file or a pipe has no width to heed
        console.width = max(console.width, 132)
    if found.simulated:
        console.print("[bold black on yellow] SIMULATED [/] the targets are the embedded engine, not real servers")
    console.print(f"[bold {_COLOURS[found.verdict]}]{found.verdict}[/]  {escape(found.why)}", highlight=False)
    for line in found.advice:
        console.print(f"  {escape(line)}", highlight=False)
    if found.metrics:
        console.print(_metrics(found))
    width = max((len(name_of(metric)) for metric in found.metrics), default=0)
    for metric in found.metrics:
        if line := dots(metric):
            console.print(f"{escape(name_of(metric).ljust(width))} {line}", highlight=False)
        if metric.why:
            console.print(f"  {escape(name_of(metric))}: {escape(metric.why)}", highlight=False)
    for one in found.thresholds:
        colour = _COLOURS.get(one.result, "yellow")
        told = "; ".join(part for part in (threshold_figures(one), one.why) if part not in ("", "-"))
        console.print(f"[{colour}]{one.result:>10}[/]  {escape(name_of(one))} ({escape(told)})", highlight=False)
    if found.errors is not None:
        console.print(f"errors: {escape(found.errors.says)}", highlight=False)
    for obstacle in found.obstacles[1:10]:
        console.print(f"[magenta]{escape(obstacle.check)}[/]  {escape(obstacle.says)}", highlight=False)
    if found.holds_for:
        console.print(f"it holds for {escape(found.holds_for)}", highlight=False)
    for note in found.notes:
        console.print(f"note: {escape(note)}", highlight=False)
    if found.spent is not None:
        money = "" if found.spent.dollars is None else f", ${found.spent.dollars:.2f}"
        console.print(f"{found.pairs} pairs, {duration(found.spent.seconds)}{money}", highlight=False)


def _metrics(found: Verdict) -> Table:
    table = Table(header_style="bold")
    for name in ("metric", "result", "change", "margin", "baseline", "candidate", "how"):
        table.add_column(name, justify="left" if name in ("metric", "result", "how") else "right")
    for one in found.metrics:
        colour = _COLOURS.get(one.result, "yellow")
        table.add_row(
            escape(name_of(one)), f"[{colour}]{one.result}[/]", interval(one), limit(one), *both_sides(one), one.how
        )
    return table
