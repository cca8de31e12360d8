"""`tailgate workload list|show|plan|preview|fit|convert`: profiles and traces, their figures and pictures.

A source is a profile's name, a spec (YAML), a profile file (YAML), or a trace; flags go before what it says.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.workload_words import number, print_figures, print_json, print_pictures
from workloads.errors import UserError

if TYPE_CHECKING:
    from workloads.plan import Plan
    from workloads.spec import TraceSpec, WorkloadSpec

_TRACE_KEYS: Final = ("start", "speed", "rate_by", "time_unit", "block_tokens")


def run(argv: list[str]) -> int:
    """Entry; 0, or 2 for wrong input (a UserError)."""
    options = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = options.command
    return command(options)


# --- the commands ------------------------------------------------------------------------------------------


def _list(options: argparse.Namespace) -> int:
    from workloads.profiles import load, names

    found = [{"name": name, "title": load(name).title} for name in names()]
    if options.json:
        print_json(found)
    elif not options.quiet:
        width = max(len(one["name"]) for one in found) + 2
        print("\n".join(f"{one['name']:<{width}}{one['title']}" for one in found))
    return 0


def _show(options: argparse.Namespace) -> int:
    from workloads.figures import plan_figures
    from workloads.profiles import load

    name, spec = _source(options)
    profile = load(spec.based_on) if spec.based_on else None
    plan = _plan_of(spec, options.seed)
    figures = plan_figures(plan)
    if options.svg is not None:
        from harness.workload_picture import picture

        _write(options.svg, picture(plan, profile.title if profile else name).encode())
    if options.json:
        print_json({"name": name, "profile": profile.model_dump() if profile else None, "figures": figures})
    elif not options.quiet:
        if profile is not None:
            print(f"{name}: {profile.title}\n\n{profile.about.strip()}\n")
            print("\n".join(f"  source: {source}" for source in profile.sources))
            print(f"  context: {profile.rule}\n")
        print_figures(figures, profile.facts if profile else {})
    return 0


def _plan(options: argparse.Namespace) -> int:
    from workloads.figures import plan_figures
    from workloads.plan import write_plan

    name, spec = _source(options)
    plan = _plan_of(spec, options.seed)
    try:
        write_plan(plan, options.output)
    except OSError as error:
        raise UserError(f"can't be written: {error.strerror}", where=str(options.output)) from error
    figures = plan_figures(plan)
    if options.json:
        print_json({"name": name, "plan": str(options.output), "figures": figures})
    elif not options.quiet:
        print_figures(figures, {})
        print(f"plan: {options.output} ({plan.table.num_rows:,} rows, plan_hash {plan.plan_hash})")
    return 0


def _preview(options: argparse.Namespace) -> int:
    from harness.workload_page import preview_page
    from workloads.figures import plan_figures
    from workloads.profiles import load

    name, spec = _source(options)
    plan = _plan_of(spec, options.seed)
    output = options.output or Path(f"{name}.html")
    about = load(spec.based_on).about if spec.based_on else ""
    _write(output, preview_page(plan, name, about).encode())
    if options.json:
        print_json({"name": name, "page": str(output), "figures": plan_figures(plan)})
    elif not options.quiet:
        print_figures(plan_figures(plan), {})
        print_pictures(plan)
        print(f"page: {output}")
    return 0


def _fit(options: argparse.Namespace) -> int:
    from workloads.fit.profile import fit_profile, write

    fit = fit_profile(_trace(options, options.log), options.title or "")
    write(fit, options.output)
    if options.json:
        print_json(
            {
                "profile": str(options.output),
                "estimates": {name: estimate.as_dict() for name, estimate in fit.estimates.items()},
                "checks": [{"name": one.name, "log": one.log, "fit": one.fit} for one in fit.checks],
                "notes": fit.notes,
            }
        )
    elif not options.quiet:
        from rich.console import Console
        from rich.table import Table

        console = Console()
        estimates = Table("fitted", "value", "95 % interval", title="Estimates", title_justify="left")
        for name, one in fit.estimates.items():
            estimates.add_row(name, f"{one.value:,.5g}", f"{one.low:,.5g} to {one.high:,.5g}")
        checks = Table("figure", "log", "drawn from the fit", title="The fit's error", title_justify="left")
        for check in fit.checks:
            checks.add_row(check.name, number(check.log), number(check.fit))
        console.print(estimates, checks)
        for note in fit.notes:
            console.print(f"note: {note}", highlight=False, soft_wrap=True)
        console.print(f"profile: {options.output} (tailgate run --profile {options.output} ...)", highlight=False)
    return 0


def _convert(options: argparse.Namespace) -> int:
    from workloads.traces.export import export
    from workloads.traces.replay import load

    replay = load(_trace(options, options.source), options.seed)
    lost = export(replay, options.output, options.to)
    notices = [*replay.notices, *lost]
    if options.json:
        print_json({"file": str(options.output), "requests": len(replay.columns), "notices": notices})
    elif not options.quiet:
        print(
            "\n".join(
                [*(f"note: {notice}" for notice in notices), f"{len(replay.columns):,} requests: {options.output}"]
            )
        )
    return 0


# --- where a workload comes from -------------------------------------------------------------------------------


def _source(options: argparse.Namespace) -> "tuple[str, WorkloadSpec]":
    """The resolved workload of the source and the flags, and a name for it."""
    from pydantic import ValidationError

    from workloads.profiles import names
    from workloads.spec import WorkloadSpec, explain

    source = str(options.source)
    path = Path(source)
    folder, name = Path(), source
    if source in names():
        data: dict[str, Any] = {"profile": source}
    elif path.suffix in (".yaml", ".yml"):
        data, folder, name = _from_yaml(path), path.parent, path.stem
    elif path.exists():
        data, name = {"trace": {"file": str(path.resolve())}}, path.name.split(".")[0]
    else:
        import difflib

        near = difflib.get_close_matches(source, names(), n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Profiles: {', '.join(names())}"
        raise UserError("neither a profile nor a file", where=source, remedy=hint)
    try:
        return name, WorkloadSpec.model_validate(_with_flags(data, options)).resolved(folder)
    except ValidationError as error:
        raise explain(error, source) from error


def _from_yaml(path: Path) -> dict[str, Any]:
    """The workload of a spec, or a profile file as what it is."""
    from harness.spec import load

    data = load(path)
    if "sources" in data and "workload" in data:
        return {"profile": path.name}
    found = data.get("workload", data)
    if not isinstance(found, dict):
        raise UserError("`workload` is no mapping", where=str(path))
    return dict(found)


def _with_flags(data: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Flags over the source; of a trace, rate and duration are the trace's own."""
    data = dict(data)
    for key in ("requests", "warmup", "max_context", "over_context", "length_scale", "users"):
        if getattr(options, key) is not None:
            data[key] = getattr(options, key)
    if isinstance(data.get("trace"), dict):
        data["trace"] = data["trace"] | _trace_flags(options)
        return data
    if options.duration is not None:
        data["duration"] = options.duration
    if options.rate is not None:
        data["arrivals"] = (data.get("arrivals") or {}) | {"rate": options.rate}
        data["arrivals"].pop("stages", None)
    return data


def _trace_flags(options: argparse.Namespace) -> dict[str, Any]:
    flags = {key: getattr(options, key) for key in _TRACE_KEYS if getattr(options, key, None) is not None}
    if options.trace_format is not None:
        flags["format"] = options.trace_format
    if options.columns:
        flags["columns"] = dict(_pair(text) for text in options.columns)
    if options.skip_bad_rows:
        flags["skip_bad_rows"] = True
    for key in ("rate", "duration"):
        if getattr(options, key, None) is not None:
            flags[key] = getattr(options, key)
    return flags


def _trace(options: argparse.Namespace, file: Path) -> "TraceSpec":
    from pydantic import ValidationError

    from workloads.spec import WorkloadSpec, explain

    try:
        spec = WorkloadSpec.model_validate({"trace": {"file": str(file.resolve())} | _trace_flags(options)})
    except ValidationError as error:
        raise explain(error, str(file)) from error
    trace = spec.resolved(Path()).trace
    if trace is None:
        raise ValueError("a trace was given")
    return trace


def _pair(text: str) -> tuple[str, str]:
    key, equals, column = text.partition("=")
    if not equals or not key or not column:
        raise UserError(f"{text!r} is not KEY=COLUMN", where="--columns", remedy="E.g. --columns prompt_tokens=in")
    return key.strip(), column.strip()


def _plan_of(spec: "WorkloadSpec", seed: int) -> "Plan":
    from workloads.plan import make_plan

    return make_plan(spec, seed)


# --- the command line ----------------------------------------------------------------------------------------------


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UserError(f"can't be written: {error.strerror}", where=str(path)) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tailgate workload", description="Profiles and traces: what is sent, and when.",
        epilog="Exit codes: 0 done, 2 wrong input.",
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="list|show|plan|preview|fit|convert")

    def add(name: str, command: Callable[[argparse.Namespace], int], what: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=what, description=what)
        found.set_defaults(command=command)
        found.add_argument("--json", action="store_true", help="print JSON and nothing else on stdout")
        found.add_argument("--quiet", action="store_true", help="print nothing but errors")
        return found

    add("list", _list, "the built-in profiles")
    show = add("show", _show, "figures of a profile, a spec or a trace, and where they come from")
    show.add_argument("--svg", type=Path, metavar="FILE", help="draw it")
    plan = add("plan", _plan, "the plan as a file: the same rows a run would send")
    plan.add_argument("-o", "--output", type=Path, default=Path("plan.parquet"), help="default: plan.parquet")
    preview = add("preview", _preview, "a page of figures, and the same on the terminal")
    preview.add_argument("-o", "--output", type=Path, help="default: NAME.html")
    for one in (show, plan, preview):
        one.add_argument("source", help="a profile's name, a spec or profile (.yaml), or a trace")
        _workload_flags(one)
        _trace_options(one)
    fit = add("fit", _fit, "a profile fitted to a log of your own")
    fit.add_argument("log", type=Path, help="any trace format; see --trace-format")
    fit.add_argument("-o", "--output", type=Path, required=True, metavar="PROFILE.yaml")
    fit.add_argument("--title", help="the profile's title")
    fit.add_argument("--duration", help="this much of the log")
    _trace_options(fit)
    convert = add("convert", _convert, "a trace in another format")
    convert.add_argument("source", type=Path)
    convert.add_argument("output", type=Path)
    convert.add_argument("--to", required=True, help="mooncake, azure, csv, jsonl or parquet")
    convert.add_argument("--seed", type=int, default=0, help="of what is spread or drawn (default: 0)")
    convert.add_argument("--duration", help="this much of the trace")
    convert.add_argument("--rate", help="another mean rate, e.g. 12/s")
    _trace_options(convert)
    return parser


def _workload_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rate", help="arrivals per second, e.g. 12/s; of a trace: its mean rate")
    parser.add_argument("--duration", help="e.g. 10m; of a trace: the slice's length")
    parser.add_argument("--requests", type=int, help="end after this many requests")
    parser.add_argument("--warmup", help="length of the warm-up before it")
    parser.add_argument("--users", type=int, help="closed loop with this many users")
    parser.add_argument("--max-context", type=int, help="longest prompt + answer, in tokens")
    parser.add_argument(
        "--over-context", choices=["error", "clip", "scale", "drop"], help="what to do with longer ones"
    )
    parser.add_argument("--length-scale", type=float, help="multiply all lengths")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")


def _trace_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("trace")
    group.add_argument("--trace-format", help="default: told from the file")
    group.add_argument("--start", help="skip this much of the trace")
    group.add_argument("--speed", type=float, help="compress the trace's time by this factor")
    group.add_argument("--rate-by", choices=["auto", "thin", "superpose", "speed"], help="how --rate is reached")
    group.add_argument(
        "--columns", action="append", default=[], metavar="KEY=COLUMN",
        help="name a column of a csv, jsonl or parquet file; keys: time, prompt_tokens, output_tokens, session, ...",
    )  # fmt: skip
    group.add_argument(
        "--time-unit", choices=["s", "ms", "us", "ns", "calendar"], help="of the time column (default: s)"
    )
    group.add_argument("--block-tokens", type=int, help="tokens of a prefix block, where `blocks` is named")
    group.add_argument("--skip-bad-rows", action="store_true", help="count broken rows instead of refusing them")
