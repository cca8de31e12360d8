"""`tailgate run SPEC` or `tailgate run --target ...`: one run, its directory, summary and report."""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from tailgate.harness.cli.run_flags import from_flags, json_object
from tailgate.harness.config.arguments import Parser
from tailgate.workloads.common.errors import UserError


def run(argv: list[str]) -> int:
    """Run, report, and say how it went by the exit code."""
    arguments = parser().parse_args(argv)
    from tailgate.harness.config import run_spec as specs

    where, folder, data = "command line", Path.cwd(), {}
    if arguments.spec is not None:
        data = specs.load(arguments.spec)
        where, folder = str(arguments.spec), arguments.spec.resolve().parent
        _make_files_absolute(data, folder)
    flags = from_flags(arguments, traced=_has_trace(arguments, data))
    spec = specs.build(specs.merge(data, flags), where if data else "command line", Path.cwd())
    from tailgate.harness.load.listener import Watcher
    from tailgate.harness.load.progress import Progress
    from tailgate.harness.run.execute import execute

    watcher = Watcher() if arguments.quiet or arguments.json else Progress()
    run_dir = asyncio.run(execute(spec, arguments.out, _command_line(argv), watcher))
    from tailgate.reports.build import build

    try:
        summary = build(run_dir)
    except UserError as error:
        print(f"tailgate run: {error}\n  what was measured is kept in {run_dir}", file=sys.stderr)
        return 4
    if arguments.json:
        sys.stdout.write((run_dir / "summary.json").read_text())
    elif not arguments.quiet:
        from rich.console import Console

        from tailgate.reports.documents.run.write import print_summary

        print_summary(summary, Console())
        print(f"run directory  {run_dir}\nreport         {run_dir / 'report.html'}")
    return summary.exit_code


def parser() -> argparse.ArgumentParser:
    """All flags; each says where in a spec the same thing stands."""
    p = Parser(prog="tailgate run", description=__doc__)
    p.add_argument("spec", nargs="?", type=Path, help="YAML spec; flags override it")
    t = p.add_argument_group("target")
    t.add_argument(
        "--target", metavar="URL|sim:PRESET", help="base URL of an OpenAI API, or an embedded engine", action="append"
    )
    t.add_argument("--model", help="model name (default: the first that the target serves)")
    t.add_argument("--ready-timeout", metavar="TIME", help="give a server that we start this long (default: 10m)")
    t.add_argument("--endpoint", choices=["completions", "chat"], help="API to call (default: completions)")
    t.add_argument("--prompt", choices=["ids", "text"], help="how completions get their prompts (default: ids)")
    t.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="extra request header")
    t.add_argument("--api-key-env", metavar="VARIABLE", help="environment variable that holds the API key")
    t.add_argument("--ca", type=Path, help="authority that signed the target's certificate (PEM)")
    t.add_argument("--insecure", action="store_true", default=None, help="don't verify TLS; the report says so")
    t.add_argument("--cert", type=Path, help="client certificate (PEM)")
    t.add_argument("--key", type=Path, help="client certificate's key (PEM)")
    t.add_argument("--balance", choices=["round-robin", "least-in-flight"], help="how several targets share the load")
    w = p.add_argument_group("workload")
    w.add_argument("--rate", help="arrivals per second, e.g. 12/s (open loop); of a trace: its mean rate")
    w.add_argument("--arrival", help="arrival process: constant, poisson, gamma, ...")
    w.add_argument("--shape", type=float, help="shape of gamma arrivals (below 1: bursty)")
    w.add_argument("--users", type=int, help="closed loop: this many users, each waits for its answer")
    w.add_argument("--requests", type=int, help="end after this many requests")
    w.add_argument("--duration", help="length of the measure phase, e.g. 60s, 10m")
    w.add_argument("--warmup", help="length of the warm-up before it")
    w.add_argument("--prompt-tokens", help="512, lognormal(6.2,0.8), uniform(64,512), grid:NAME.input")
    w.add_argument("--output-tokens", help="the same for answers")
    w.add_argument("--profile", help="built-in workload profile")
    w.add_argument("--locustfile", type=Path, metavar="FILE", help="users' own code makes the requests (LLMUser)")
    w.add_argument("--tag", action="append", metavar="TAG", help="run only the locustfile's tasks with this tag")
    w.add_argument("--exclude-tag", action="append", metavar="TAG", help="leave out its tasks with this tag")
    w.add_argument("--trace", type=Path, help="replay this trace")
    w.add_argument("--trace-format", help="its format, e.g. azure (default: told from the file)")
    w.add_argument("--rate-by", choices=["auto", "thin", "superpose", "speed"], help="how --rate changes a trace's")
    w.add_argument(
        "--columns",
        action="append",
        default=[],
        metavar="KEY=COLUMN",
        help="name a column of a csv, jsonl or parquet trace: time, prompt_tokens, output_tokens, session, ...",
    )
    w.add_argument("--time-unit", choices=["s", "ms", "us", "ns", "calendar"], help="of its time column (default: s)")
    w.add_argument(
        "--content",
        metavar="corpus|random|replay|FILE",
        help="what prompts hold: real text, random tokens, the trace's own request bodies, or your text file",
    )
    w.add_argument("--start", help="skip this much of the trace")
    w.add_argument("--speed", type=float, help="compress the trace's time by this factor")
    w.add_argument(
        "--skip-bad-rows", action="store_true", default=None, help="count broken trace rows instead of refusing them"
    )
    w.add_argument("--max-context", type=int, help="longest prompt + answer, in tokens")
    w.add_argument("--over-context", choices=["error", "clip", "scale", "drop"], help="what to do with longer ones")
    w.add_argument("--length-scale", type=float, help="multiply all lengths")
    r = p.add_argument_group("run")
    r.add_argument("--name", help="becomes part of the run directory's name")
    r.add_argument("--seed", type=int, help="the plan is a function of spec and seed (default: 0)")
    r.add_argument(
        "--slo", action="append", default=[], metavar="'ttft: p99 < 800ms'", help="objective; repeat for more"
    )
    r.add_argument("--timeout", help="give up on a request this long after its scheduled time")
    r.add_argument("--patience", help="users hang up after so many seconds: a number or a law, lognormal(2,0.5)")
    r.add_argument("--abandon", metavar="SHARE", help="only this share of them has a patience that ends, e.g. 5%%")
    r.add_argument("--no-settle", action="store_true", default=None, help="no warm-up of our own before the run")
    r.add_argument("--drain", help="wait this long for answers after the last arrival (default: 60s)")
    r.add_argument("--no-stream", action="store_true", default=None, help="ask for whole answers")
    r.add_argument("--natural-output", action="store_true", default=None, help="let the model end its answers")
    r.add_argument("--extra", metavar="JSON", help="fields merged into every request body")
    r.add_argument("--injectors", help="injector processes: a number or auto (default: 1)")
    d = p.add_argument_group("several machines (see tailgate worker)")
    d.add_argument("--expect-workers", type=int, metavar="N", help="send from N workers instead of this machine")
    d.add_argument("--bind", metavar="HOST:PORT", help="where workers join (default: 127.0.0.1:5557)")
    d.add_argument("--wait", metavar="TIME", help="wait this long for the workers (default: 60s)")
    r.add_argument(
        "--ui", nargs="?", const="127.0.0.1:8089", metavar="HOST:PORT", help="serve Locust's web UI (127.0.0.1:8089)"
    )
    r.add_argument("--out", type=Path, help="the run directory itself (default: runs/<utc>-<name>)")
    r.add_argument("--json", action="store_true", help="print summary.json and nothing else on stdout")
    r.add_argument("--quiet", action="store_true", help="print nothing but errors")
    return p


def _has_trace(a: argparse.Namespace, data: dict[str, Any]) -> bool:
    workload = data.get("workload")
    return a.trace is not None or (isinstance(workload, dict) and isinstance(workload.get("trace"), dict))


def _make_files_absolute(data: dict[str, Any], folder: Path) -> None:
    """File names in a spec are relative to it; flags may come from elsewhere, so this is done before merging."""
    target, workload = data.get("target"), data.get("workload")
    tls = target.get("tls") if isinstance(target, dict) else None
    if isinstance(tls, dict):
        tls |= {
            name: str((folder / tls[name]).resolve())
            for name in ("ca", "cert", "key")
            if isinstance(tls.get(name), str)
        }
    if not isinstance(workload, dict):
        return
    for part in (workload.get("trace"), workload.get("content")):
        if isinstance(part, dict) and isinstance(part.get("file"), str):
            part["file"] = str((folder / part["file"]).resolve())
    if isinstance(workload.get("locustfile"), str):
        workload["locustfile"] = str((folder / workload["locustfile"]).resolve())
    profile = workload.get("profile")
    if isinstance(profile, str) and profile.endswith((".yaml", ".yml")):
        workload["profile"] = str((folder / profile).resolve())


def _command_line(argv: list[str]) -> list[str]:
    """As it was typed, without header values, what in a body is named like a secret, and passwords of URLs."""
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
    from tailgate.harness.config.masking import MASK, masked_settings

    try:
        return json.dumps(masked_settings(json_object(text, "--extra")))
    except UserError:
        return MASK
