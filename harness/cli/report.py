"""`tailgate report RUN`: rebuild a run's documents from its files, and recover a run that was killed."""

import argparse
import sys
from pathlib import Path

from tailgate.harness.config.arguments import Parser
from tailgate.reports.build import build_with_analysis
from tailgate.reports.documents.run.write import FORMATS, export, print_summary
from tailgate.workloads.common.errors import UserError


def run(argv: list[str]) -> int:
    """Entry; the exit code is the one the run's summary stands for (0, 1, 3, 4; 2 for wrong input)."""
    options = _parser().parse_args(argv)
    run_dir = Path(options.run)
    if not run_dir.is_dir():
        raise UserError("no such run directory", where=str(run_dir), remedy="Give the folder that a run wrote.")
    summary, analysis = build_with_analysis(run_dir)
    if options.json or options.format:
        sys.stdout.write(export(run_dir, summary, options.format or "json", analysis))
    elif not options.quiet:
        from rich.console import Console

        console = Console()
        print_summary(summary, console)
        console.print(f"report: {run_dir / 'report.html'}", highlight=False, soft_wrap=True)
    return summary.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="tailgate report",
        description="Rebuild summary.json and report.html of a run from its files; print the summary.",
        epilog="Exit codes: 0 PASS, 1 FAIL, 2 wrong input, 3 INCONCLUSIVE, 4 INVALID, 130 interrupted.",
    )
    parser.add_argument("run", help="run directory")
    parser.add_argument("--format", choices=FORMATS, help="print this document on stdout instead of the table")
    parser.add_argument("--json", action="store_true", help="the same as --format json")
    parser.add_argument("--quiet", action="store_true", help="write the files, print nothing")
    return parser
