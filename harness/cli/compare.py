"""`tailgate compare RUN RUN...`: configurations side by side, from their run directories."""

import argparse
from pathlib import Path

from tailgate.harness.cli.edge import write_document
from tailgate.harness.config.arguments import Parser


def run(argv: list[str]) -> int:
    """Compare the runs; the exit code is 0, or 2 where they can't be compared."""
    options = _parser().parse_args(argv)
    from tailgate.reports.compare.comparison import compare
    from tailgate.reports.compare.runs import load_runs
    from tailgate.reports.documents.comparison import comparison_document, to_json
    from tailgate.reports.documents.render.html import html
    from tailgate.reports.rundir.json_files import write_atomic

    comparison = compare(load_runs(options.runs), anyway=options.anyway)
    document = comparison_document(comparison)
    write_atomic(options.out, html(document).encode())
    if options.json or options.format == "json":
        import orjson

        write_document(orjson.dumps(to_json(comparison), option=orjson.OPT_INDENT_2).decode() + "\n", "json")
    elif options.format == "md":
        from tailgate.reports.documents.render.markdown import markdown

        write_document(markdown(document), "md")
    else:
        from tailgate.reports.documents.render.terminal import print_in_short, standard_output

        console = standard_output()
        print_in_short(document, console, verdict_only=options.quiet)
        if not options.quiet:
            console.print(f"comparison: {options.out}", highlight=False, soft_wrap=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="tailgate compare",
        description="Compare runs: metrics with intervals, ratios to the first, Pareto fronts, and what differed.",
        epilog="Repeated runs share a label: tailgate compare 'bf16=runs/bf16-*' 'fp8=runs/fp8-*'.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="[LABEL=]RUN", help="Run directories or globs; the first is the baseline."
    )
    parser.add_argument("--anyway", action="store_true", help="Compare even invalid runs or different workloads.")
    parser.add_argument(
        "--out", type=Path, default=Path("compare.html"), help="The page to write (default: compare.html)."
    )
    parser.add_argument("--format", choices=["json", "md"], help="Print this document on stdout instead of the table.")
    parser.add_argument("--json", action="store_true", help="The same as --format json.")
    parser.add_argument("--quiet", action="store_true", help="Write the page and print only the verdict.")
    return parser
