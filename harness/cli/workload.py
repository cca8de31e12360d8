"""`tailgate workload list|show|plan|preview|fit|convert`: profiles and traces, their figures and pictures.

A source is a profile's name, a spec (YAML), a profile file (YAML), or a trace; flags go before what it says.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailgate.harness.cli.workload_source import Source, add_trace_flags, add_workload_flags, source_of, trace_of
from tailgate.harness.config.arguments import Parser
from tailgate.reports.documents.model import Document
from tailgate.reports.documents.workload import workload_document
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.formatting import plain

if TYPE_CHECKING:
    from tailgate.workloads.plan.plan import Plan


def run(argv: list[str]) -> int:
    """Do one of the subcommands; the exit code is 0, or 2 for wrong input."""
    options = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = options.command
    return command(options)


def _list(options: argparse.Namespace) -> int:
    from tailgate.workloads.config.profiles import load, names

    profiles = [{"name": name, "title": load(name).title} for name in names()]
    if options.json:
        _print_json(profiles)
    elif not options.quiet:
        width = max(len(profile["name"]) for profile in profiles) + 2
        print("\n".join(f"{profile['name']:<{width}}{profile['title']}" for profile in profiles))
    return 0


def _show(options: argparse.Namespace) -> int:
    from tailgate.workloads.config.profiles import load
    from tailgate.workloads.plan.summary import plan_figures

    source = source_of(options)
    name, spec = source.name, source.spec
    profile = load(spec.based_on) if spec.based_on else None
    plan = _plan_of(source)
    figures = plan_figures(plan)
    if options.json:
        _print_json({"name": name, "profile": profile.model_dump() if profile else None, "figures": figures})
    elif not options.quiet:
        if profile is not None:
            print(f"{name}: {profile.title}\n\n{profile.about.strip()}\n")
            print("\n".join(f"  source: {source}" for source in profile.sources))
            print(f"  context: {profile.rule}\n")
        _print_document(workload_document(figures, facts=profile.facts if profile else None))
    return 0


def _plan(options: argparse.Namespace) -> int:
    from tailgate.workloads.plan.plan import write_plan
    from tailgate.workloads.plan.summary import plan_figures

    source = source_of(options)
    name = source.name
    plan = _plan_of(source)
    try:
        write_plan(plan, options.output)
    except OSError as error:
        raise UserError(f"can't be written: {error.strerror}", where=str(options.output)) from error
    figures = plan_figures(plan)
    if options.json:
        _print_json({"name": name, "plan": str(options.output), "figures": figures})
    elif not options.quiet:
        _print_document(workload_document(figures))
        print(f"plan: {options.output} ({plan.table.num_rows:,} rows, plan_hash {plan.plan_hash})")
    return 0


def _preview(options: argparse.Namespace) -> int:
    from tailgate.reports.documents.render.html import html
    from tailgate.workloads.config.profiles import load
    from tailgate.workloads.plan.summary import plan_figures

    source = source_of(options)
    name, spec = source.name, source.spec
    plan = _plan_of(source)
    output = options.output or Path(f"{name}.html")
    about = load(spec.based_on).about if spec.based_on else ""
    document = workload_document(plan_figures(plan), plan, name=name, about=about)
    _write(output, html(document).encode())
    if options.json:
        _print_json({"name": name, "page": str(output), "figures": plan_figures(plan)})
    elif not options.quiet:
        _print_document(document)
        print(f"page: {output}")
    return 0


def _fit(options: argparse.Namespace) -> int:
    from tailgate.workloads.fit.profile import fit_profile, write

    fit = fit_profile(trace_of(options, options.log), options.title or "")
    write(fit, options.output)
    if options.json:
        _print_json(
            {
                "profile": str(options.output),
                "estimates": {name: estimate.as_dict() for name, estimate in fit.estimates.items()},
                "checks": [
                    {"name": one.name, "log": one.log, "fit": one.fit, "error": one.error, "ok": one.ok}
                    for one in fit.checks
                ],
                "notes": fit.notes,
            }
        )
    elif not options.quiet:
        from tailgate.reports.documents import model as doc

        estimates = [
            [name, f"{one.value:,.5g}", f"{one.low:,.5g} to {one.high:,.5g}"] for name, one in fit.estimates.items()
        ]
        checks = [
            [
                check.name, plain(check.log), plain(check.fit),
                f"{check.error:+.1%}" if check.log else plain(check.error), "ok" if check.ok else "off",
            ]
            for check in fit.checks
        ]  # fmt: skip
        made = doc.section(
            "",
            doc.Table(["fitted", "value", "95 % interval"], estimates, "Estimates"),
            doc.Table(["figure", "log", "drawn from the fit", "error", ""], checks, "The fit's error", words=(0, 4)),
            doc.Notes([doc.Note(note) for note in fit.notes]),
            doc.Note(f"profile: {options.output} (tailgate run --profile {options.output} ...)"),
        )
        _print_document(doc.Document("The fit", "The fit", [made]))
    return 0


def _convert(options: argparse.Namespace) -> int:
    from tailgate.workloads.traces.export import export
    from tailgate.workloads.traces.replay import load

    replay = load(trace_of(options, options.source), options.seed)
    lost = export(replay, options.output, options.to)
    notices = [*replay.notices, *lost]
    if options.json:
        _print_json({"file": str(options.output), "requests": len(replay.columns), "notices": notices})
    elif not options.quiet:
        print(
            "\n".join(
                [*(f"note: {notice}" for notice in notices), f"{len(replay.columns):,} requests: {options.output}"]
            )
        )
    return 0


def _print_json(content: Any) -> None:
    """For scripts: nothing else goes to stdout."""
    sys.stdout.write(json.dumps(content, indent=1) + "\n")


def _print_document(document: Document) -> None:
    from tailgate.reports.documents.render.terminal import print_document, standard_output

    print_document(document, standard_output())


def _plan_of(source: Source) -> "Plan":
    from tailgate.workloads.plan.plan import make_plan

    return make_plan(source.spec, source.seed)


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UserError(f"can't be written: {error.strerror}", where=str(path)) from error


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="tailgate workload", description="Look at, plan, fit and convert workloads: what is sent, and when.",
        epilog="Exit codes: 0 done, 2 wrong input.",
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="list|show|plan|preview|fit|convert")

    def add(name: str, command: Callable[[argparse.Namespace], int], what: str) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=what, description=what)
        subparser.set_defaults(command=command)
        subparser.add_argument("--json", action="store_true", help="Print JSON and nothing else on stdout.")
        subparser.add_argument("--quiet", action="store_true", help="Print nothing but errors.")
        return subparser

    add("list", _list, "List the built-in profiles.")
    show = add("show", _show, "Show statistics of a profile, a spec or a trace, and where they come from.")
    plan = add("plan", _plan, "Write the plan to a file: the same rows that a run would send.")
    plan.add_argument("-o", "--output", type=Path, default=Path("plan.parquet"), help="The default is plan.parquet.")
    preview = add("preview", _preview, "Write a page of statistics and figures, and print them.")
    preview.add_argument("-o", "--output", type=Path, help="The page to write (default: NAME.html).")
    for one in (show, plan, preview):
        one.add_argument("source", help="A profile's name, a spec or profile (.yaml), or a trace.")
        add_workload_flags(one)
        add_trace_flags(one)
    fit = add("fit", _fit, "Fit a profile to a log of your own.")
    fit.add_argument("log", type=Path, help="A log in any trace format; see --trace-format.")
    fit.add_argument("-o", "--output", type=Path, required=True, metavar="PROFILE.yaml")
    fit.add_argument("--title", help="The profile's title.")
    fit.add_argument("--duration", help="Use this much of the log.")
    add_trace_flags(fit)
    convert = add("convert", _convert, "Convert a trace to another format.")
    convert.add_argument("source", type=Path)
    convert.add_argument("output", type=Path)
    convert.add_argument("--to", required=True, help="The format: mooncake, azure, csv, jsonl or parquet.")
    convert.add_argument("--seed", type=int, default=0, help="The seed of what is spread or drawn (default: 0).")
    convert.add_argument("--duration", help="Use this much of the trace.")
    convert.add_argument("--rate", help="Change the mean rate, e.g. to 12/s.")
    add_trace_flags(convert)
    return parser
