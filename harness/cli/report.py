"""`tailgate report RUN...`: rebuild runs' documents from their files, and recover a run that was killed."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tailgate.harness.cli.edge import write_document
from tailgate.harness.config.arguments import ALL_HELP, EXIT_CODES, Parser
from tailgate.reports.build import build, build_with_analysis
from tailgate.reports.documents.model import Document
from tailgate.reports.documents.run.write import FORMATS, export, run_document
from tailgate.workloads.common.errors import UserError


def run(argv: list[str]) -> int:
    """Rebuild the documents; the exit code is the verdict's (0, 1, 3, 4), the worst run's, or 2 for wrong input."""
    options = _parser().parse_args(argv)
    run_dirs = list(dict.fromkeys(path for argument in options.runs for path in _directories(argument)))
    if len(run_dirs) > 1:
        return _several(run_dirs, options)
    run_dir = run_dirs[0]
    summary, analysis = build_with_analysis(run_dir)
    if options.json or options.format:
        form = options.format or "json"
        write_document(export(run_dir, summary, form, analysis), form)
        return summary.exit_code
    _print(run_document(summary), [run_dir], options)
    return summary.exit_code


def _directories(argument: str) -> list[Path]:
    """A run's folder, or those that a glob names."""
    from tailgate.reports.compare.runs import directories

    paths = [Path(argument)] if Path(argument).is_dir() else directories(argument)
    if not paths:
        raise UserError("no such run directory", where=argument, remedy="Give the folder that a run wrote.")
    return paths


def _several(run_dirs: Sequence[Path], options: argparse.Namespace) -> int:
    """Rebuild the documents of each; print one table of all."""
    from tailgate.reports.documents.several_runs import export_several, several_document, several_exit_code

    runs = [(run_dir, build(run_dir)) for run_dir in run_dirs]
    if options.json or options.format:
        form = options.format or "json"
        write_document(export_several(runs, form), form)
        return several_exit_code(runs)
    _print(several_document(runs), run_dirs, options)
    return several_exit_code(runs)


def _print(document: Document, run_dirs: Sequence[Path], options: argparse.Namespace) -> None:
    from tailgate.reports.documents.render.terminal import print_in_short, standard_output

    console = standard_output()
    print_in_short(document, console, verdict_only=options.quiet, everything=options.all)
    for run_dir in [] if options.quiet else run_dirs:
        console.print(f"report: {run_dir / 'report.html'}", highlight=False, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="tailgate report",
        description="Rebuild summary.json and report.html of each run from its files, and print its summary; of several"
        " runs one table, a line each (tailgate compare holds them against each other).",
        epilog=EXIT_CODES,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="Run directories, or globs of them.")
    parser.add_argument(
        "--format", choices=FORMATS,
        help="Print this document instead of the table. CSV has a line a request, or of several runs a line a run.",
    )  # fmt: skip
    parser.add_argument("--all", action="store_true", help=ALL_HELP)
    parser.add_argument("--json", action="store_true", help="The same as --format json.")
    parser.add_argument("--quiet", action="store_true", help="Write the files and print only the verdict.")
    return parser
