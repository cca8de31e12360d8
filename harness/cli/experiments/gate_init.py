"""`tailgate gate init`: write a commented policy; with `--pilot N` one whose margins and pairs can decide."""

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tailgate.harness.config.arguments import Parser
from tailgate.workloads.common.errors import UserError

if TYPE_CHECKING:
    from tailgate.harness.experiments.gate.pilot import Proposal

_NO_PILOT = ("pr", "nightly")


def run(argv: list[str]) -> int:
    """Entry; exits 0, or 2 where nothing could be written."""
    options = parser().parse_args(argv)
    from tailgate.harness.experiments.gate.policy_template import GENERAL, PURPOSES, write

    if options.policy.exists():
        raise UserError("exists already", where=str(options.policy), remedy="Name another file.")
    if options.pilot and options.purpose in _NO_PILOT:
        raise UserError(
            f"--for {options.purpose} has margins and pairs of its own",
            where="--pilot",
            remedy="Leave one of them out.",
        )
    spec = None if options.spec is None else _relative(options.spec, options.policy)
    proposal = _pilot(options) if options.pilot else None
    purpose = PURPOSES[options.purpose] if options.purpose else GENERAL
    write(options.policy, options.baseline, options.candidate, spec, proposal, purpose)
    print(f"policy: {options.policy}")
    print(options.policy.read_text().partition("\n")[0].removeprefix("# "))
    if options.purpose == "release":
        _warn_of_urls(options)
    print(f"tailgate gate --policy {options.policy} --dry-run")
    return 0


def _warn_of_urls(options: argparse.Namespace) -> None:
    urls = [side for side in ("baseline", "candidate") if str(getattr(options, side)).startswith(("http:", "https:"))]
    if urls:
        print(
            f"note: {' and '.join(urls)}: a server that is only a URL can't be restarted, so the verdict will hold for"
            " this launch only. Name a target that Tailgate starts (docs/harness.md).",
            file=sys.stderr,
        )


def _pilot(options: argparse.Namespace) -> "Proposal":
    from tailgate.harness.experiments.core.folder import removed_if_nothing_was_measured
    from tailgate.harness.experiments.gate import pilot
    from tailgate.harness.experiments.gate.run_specs import experiment
    from tailgate.harness.run.run_directory import make_empty
    from tailgate.reports.verdicts.gate.policy import parse_policy

    if options.baseline is None or options.spec is None:
        raise UserError("a pilot needs --baseline and --spec", where="--pilot", remedy="It runs the baseline.")
    if options.pilot < 2:
        raise UserError("one run can't tell how much runs differ", where="--pilot", remedy="Make it 3 or more.")
    where = options.policy.resolve().parent
    data = {
        "name": "pilot",
        "baseline": options.baseline,
        "candidate": options.baseline,
        "spec": _relative(options.spec, options.policy),
    }
    planned = experiment(parse_policy(data, "command line"), where)
    out = make_empty(options.out, "pilot")
    with removed_if_nothing_was_measured(out):
        summaries = asyncio.run(
            pilot.pilot(planned, options.pilot, out, lambda text: print(text, file=sys.stderr, flush=True))
        )
    proposal = pilot.proposal(pilot.spreads(summaries))
    print("\n".join(proposal.notes))
    return proposal


def _relative(spec: Path, policy: Path) -> str:
    """As the policy has to write it: relative to its own folder."""
    return os.path.relpath(spec.resolve(), policy.resolve().parent)


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="tailgate gate init", description=__doc__)
    p.add_argument("policy", nargs="?", type=Path, default=Path("gate.yaml"), help="file to write (gate.yaml)")
    p.add_argument(
        "--for", dest="purpose", choices=("pr", "nightly", "release"),
        help="pr: running servers, under ten minutes; nightly: against stored runs; release: restarts and limits",
    )  # fmt: skip
    p.add_argument("--baseline", metavar="URL|sim:PRESET", help="the deployment that is known to be good")
    p.add_argument("--candidate", metavar="URL|sim:PRESET", help="the one that is not")
    p.add_argument("--spec", type=Path, help="spec of what both sides have in common")
    p.add_argument(
        "--pilot", type=int, metavar="N", help="run the baseline N times first and propose margins and pairs"
    )
    p.add_argument("--out", type=Path, help="folder for the pilot's runs (default: runs/<utc>-pilot)")
    return p
