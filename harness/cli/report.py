"""`tailgate report RUN`: rebuild a run's documents from its files, and recover a run that was killed."""

import argparse
from pathlib import Path

from tailgate.harness.cli.edge import write_document
from tailgate.harness.config.arguments import EXIT_CODES, Parser
from tailgate.reports.build import build_with_analysis
from tailgate.reports.documents.run.write import FORMATS, export, print_summary
from tailgate.workloads.common.errors import UserError


def run(argv: list[str]) -> int:
    """Rebuild the documents; the exit code is the verdict's (0, 1, 3, 4), or 2 for wrong input."""
    options = _parser().parse_args(argv)
    run_dir = Path(options.run)
    if not run_dir.is_dir():
        raise UserError("no such run directory", where=str(run_dir), remedy="Give the folder that a run wrote.")
    summary, analysis = build_with_analysis(run_dir)
    if options.json or options.format:
        form = options.format or "json"
        write_document(export(run_dir, summary, form, analysis), form)
        return summary.exit_code
    from rich.console import Console

    console = Console()
    print_summary(summary, console, verdict_only=options.quiet)
    if not options.quiet:
        console.print(f"report: {run_dir / 'report.html'}", highlight=False, soft_wrap=True)
    return summary.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="tailgate report",
        description="Rebuild summary.json and report.html of a run from its files, and print the summary.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("run", help="The run directory.")
    parser.add_argument("--format", choices=FORMATS, help="Print this document on stdout instead of the table.")
    parser.add_argument("--json", action="store_true", help="The same as --format json.")
    parser.add_argument("--quiet", action="store_true", help="Write the files and print only the verdict.")
    return parser
