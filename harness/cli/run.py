"""`tailgate run SPEC` or `tailgate run --target ...`: one run, its directory, summary and report."""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tailgate.harness.cli.edge import write_document
from tailgate.harness.cli.flags import RUN, TARGET, WORKERS, WORKLOAD, add_flags, extra_fields, spec_from
from tailgate.harness.config.arguments import ALL_HELP, EXIT_CODES, Parser
from tailgate.workloads.common.errors import UserError

if TYPE_CHECKING:
    from tailgate.harness.config.run_spec import RunSpec
    from tailgate.harness.load.locust_process import LocustProcess

_STDIN = Path("/dev/stdin")
_FILES: Final = (
    *(f"target.tls.{name}" for name in ("ca", "cert", "key")),
    *(f"workload.{name}" for name in ("trace.file", "content.file", "locustfile", "profile")),
)


def run(argv: list[str]) -> int:
    """Run and report; the exit code is the verdict's."""
    arguments = parser().parse_args(argv)
    if isinstance(arguments.spec, str):
        arguments.spec, arguments.target = None, [arguments.spec, *(arguments.target or [])]
    from tailgate.harness.config import run_spec as specs

    where, folder, data = "command line", Path.cwd(), {}
    if arguments.spec is not None:
        piped = str(arguments.spec) == "-"
        where, folder = "spec" if piped else str(arguments.spec), arguments.spec.resolve().parent
        data = specs.load(_STDIN if piped else arguments.spec)
        _make_files_absolute(data, folder)
    flags = _from_flags(arguments, traced=_keeps_times(arguments, data))
    spec = specs.build(specs.merge(data, flags), where if data else "command line", Path.cwd())
    quiet = arguments.quiet or arguments.json
    run_dir = asyncio.run(_execute(spec, arguments.out, _command_line(argv), quiet=quiet))
    from tailgate.reports.build import build

    try:
        summary = build(run_dir)
    except UserError as error:
        print(f"tailgate run: {error}\n  what was measured is kept in {run_dir}", file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        print(f"interrupted: what was measured is kept: tailgate report {run_dir}", file=sys.stderr)
        return 130
    if arguments.json:
        write_document((run_dir / "summary.json").read_text(encoding="utf-8"), "json")
        return summary.exit_code
    from tailgate.reports.documents.render.terminal import print_in_short, standard_output
    from tailgate.reports.documents.run.write import run_document

    print_in_short(run_document(summary), standard_output(), verdict_only=arguments.quiet, everything=arguments.all)
    if not arguments.quiet:
        print(f"run directory  {run_dir}\nreport         {run_dir / 'report.html'}")
    return summary.exit_code


async def _execute(spec: "RunSpec", out: Path | None, command_line: list[str], *, quiet: bool) -> Path:
    """Do the run. Its processes start first, and import theirs while we import ours."""
    locust = None if spec.target.clock == "virtual" else await _load_processes(spec)
    try:
        from tailgate.harness.load.listener import Watcher
        from tailgate.harness.load.progress import Progress
        from tailgate.harness.run.execute import execute

        watcher = Watcher() if quiet else Progress()
        return await execute(spec, out, command_line, watcher, locust=locust)
    finally:
        if locust is not None:
            await locust.close()


async def _load_processes(spec: "RunSpec") -> "LocustProcess":
    from tailgate.harness.host.linux_only import require_linux
    from tailgate.harness.load import distributed

    require_linux()
    return await distributed.spawn(spec)


def _spec_or_target(text: str) -> Path | str:
    return text if text.startswith(("sim:", "http://", "https://")) else Path(text)


def parser() -> argparse.ArgumentParser:
    """All flags; each says where in a spec the same thing stands."""
    p = Parser(
        prog="tailgate run",
        usage="tailgate run [SPEC] [FLAG ...]",
        description="Run a load test from a spec, from flags, or from both, and write its run directory with a report.",
        epilog=EXIT_CODES,
    )
    p.add_argument(
        "spec",
        nargs="?",
        type=_spec_or_target,
        help="A spec (YAML), or - for standard input; flags override what it says. A URL or sim:PRESET is a --target.",
    )
    add_flags(p, TARGET, "target")
    add_flags(p, WORKLOAD, "workload")
    add_flags(p, RUN, "run")
    add_flags(p, WORKERS, "several machines (see tailgate worker)")
    output = p.add_argument_group("output")
    output.add_argument("--out", type=Path, help="The run directory itself (default: runs/<utc>-<name>).")
    output.add_argument("--all", action="store_true", help=ALL_HELP)
    output.add_argument("--json", action="store_true", help="Print summary.json and nothing else on stdout.")
    output.add_argument("--quiet", action="store_true", help="Print nothing but the verdict and errors.")
    return p


def _from_flags(options: argparse.Namespace, *, traced: bool) -> dict[str, Any]:
    """What the flags say, in the shape of a spec. A rate alone is that of the trace, if its own times are kept."""
    spec = spec_from(options, [*TARGET, *WORKLOAD, *RUN, *WORKERS])
    workload = spec.get("workload", {})
    if traced and options.rate is not None and options.arrival is None:
        workload.setdefault("trace", {})["rate"] = workload["arrivals"].pop("rate")
        if not workload["arrivals"]:
            del workload["arrivals"]
    return spec


def _keeps_times(a: argparse.Namespace, data: dict[str, Any]) -> bool:
    """Whether a trace is to be sent at its own times: `arrivals` of the spec would replace them."""
    workload = data.get("workload")
    workload = workload if isinstance(workload, dict) else {}
    return (a.trace is not None or isinstance(workload.get("trace"), dict)) and not workload.get("arrivals")


def _make_files_absolute(data: dict[str, Any], folder: Path) -> None:
    """File names in a spec are relative to it; flags may come from elsewhere, so this is done before merging."""
    for path in _FILES:
        *sections, name = path.split(".")
        place: Any = data
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        file = place.get(name) if isinstance(place, dict) else None
        if isinstance(file, str) and (name != "profile" or file.endswith((".yaml", ".yml"))):
            place[name] = str((folder / file).resolve())


def _command_line(argv: list[str]) -> list[str]:
    """The command as it was typed, without header values, secrets in the extra body fields, and passwords in URLs."""
    from tailgate.harness.config.masking import without_credentials

    hidden = {"--header": lambda header: header.partition(":")[0] + ": ***", "--extra": _public_json}
    shown = ["tailgate", "run"]
    before = ""
    for word in argv:
        name, equals, value = word.partition("=")
        if before in hidden:
            shown.append(hidden[before](word))
        elif equals and name in hidden:
            shown.append(f"{name}={hidden[name](value)}")
        else:
            shown.append(without_credentials(word))
        before = "" if before in hidden else word
    return shown


def _public_json(text: str) -> str:
    from tailgate.harness.config.masking import masked_settings
    from tailgate.loadgen.redact import MASK

    try:
        return json.dumps(masked_settings(extra_fields(text)))
    except UserError:
        return MASK
