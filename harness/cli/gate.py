"""`tailgate gate`: is the candidate slower? PASS, FAIL, INCONCLUSIVE or INVALID, as an exit code and documents."""

import argparse
import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tailgate.harness.config.arguments import Parser
from tailgate.workloads.common.errors import UserError

if TYPE_CHECKING:
    from tailgate.harness.experiments.gate.outputs import Paperwork
    from tailgate.reports.verdicts.gate.policy import Policy
    from tailgate.reports.verdicts.gate.result import Verdict


def run(argv: list[str]) -> int:
    """Entry; the exit code is the verdict's: 0 PASS, 1 FAIL, 3 INCONCLUSIVE, 4 INVALID; 2 for wrong input."""
    if argv[:1] == ["init"]:
        from tailgate.harness.cli.gate_init import run as init

        return int(init(argv[1:]))
    options = parser().parse_args(argv)
    if options.self_test:
        return _self_test(options)
    policy_file = _policy_file(options)
    from tailgate.reports.verdicts.gate.policy import load_policy

    policy = load_policy(policy_file)
    if options.dry_run:
        return _dry_run(policy, policy_file, options)
    paperwork = _paperwork(policy, policy_file, options)
    paperwork.check()
    if options.runs or options.baseline or options.candidate:
        verdict, folder = _stored(policy, options, argv)
    else:
        verdict, folder = _measure(policy, policy_file, options, argv)
    problems = paperwork.write(verdict, folder)
    _show(verdict, folder, options)
    for problem in problems:
        print(f"tailgate: {problem}", file=sys.stderr)
    return verdict.exit_code


def _policy_file(options: argparse.Namespace) -> Path:
    """The policy given, or that of the gate's folder to be judged again.

    Raises:
        UserError: there is none.
    """
    from tailgate.harness.experiments.gate.folder import POLICY

    if options.policy is not None:
        return Path(options.policy)
    if len(options.runs) == 1 and (Path(options.runs[0]) / POLICY).exists():
        return Path(options.runs[0]) / POLICY
    raise UserError("a policy is missing", where="--policy", remedy="`tailgate gate init` writes one.")


def _paperwork(policy: "Policy", policy_file: Path, options: argparse.Namespace) -> "Paperwork":
    from tailgate.harness.experiments.gate.outputs import Paperwork, history_of

    again = _judged_again(options)
    # The copy of a policy in a gate's folder doesn't know any more what its `history` was relative to.
    history = options.history if again and options.policy is None else history_of(policy, policy_file, options.history)
    return Paperwork(options.junit, options.markdown, history, remember=not again)


def _judged_again(options: argparse.Namespace) -> bool:
    """Whether a gate's folder is to be judged again."""
    from tailgate.reports.verdicts.gate.runs import FILE_NAME

    return len(options.runs) == 1 and (Path(options.runs[0]) / FILE_NAME).exists()


def _measure(
    policy: "Policy", policy_file: Path, options: argparse.Namespace, argv: list[str]
) -> "tuple[Verdict, Path]":
    from tailgate.harness.experiments.gate import folder as rooms
    from tailgate.harness.experiments.gate.campaign import conduct
    from tailgate.harness.experiments.gate.estimate import estimate, require_budget
    from tailgate.harness.experiments.gate.feasibility import require_decidable
    from tailgate.harness.experiments.gate.run_specs import experiment

    found = experiment(policy, policy_file.resolve().parent)
    require_decidable(found)
    extension = require_budget(found, estimate(found))
    out = rooms.make(options.out, f"gate-{policy.name}", policy_file)
    quiet = options.quiet or options.json

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    verdict = asyncio.run(conduct(found, out, _command(argv), extension, say))
    return verdict, out


def _stored(policy: "Policy", options: argparse.Namespace, argv: list[str]) -> "tuple[Verdict, Path | None]":
    """Runs that exist: two globs, single runs to hold against thresholds, or a gate's folder to judge again."""
    from tailgate.reports.verdicts.gate import runs as gr
    from tailgate.reports.verdicts.gate.load_points import newest, placed
    from tailgate.reports.verdicts.gate.verdict import judge

    if options.runs and (options.baseline or options.candidate):
        raise UserError("runs and --baseline, --candidate exclude each other", where="command line")
    command = tuple(_command(argv))
    if _judged_again(options):
        folder = Path(options.runs[0])
        campaign = gr.Campaign.load(folder)
        return judge(gr.of_campaign(folder, campaign), policy, campaign), folder
    if options.runs:
        runs = [run for pattern in options.runs for run in gr.stored(pattern, "candidate", "RUN")]
        return replace(judge(placed(runs, policy), policy), command=command), options.out
    if not (options.baseline and options.candidate):
        missing = "--candidate" if options.baseline else "--baseline"
        raise UserError("is missing: a comparison has two sides", where=missing)
    base = gr.stored(options.baseline, "baseline")
    other = gr.stored(options.candidate, "candidate")
    both = {run.path.resolve() for run in base} & {run.path.resolve() for run in other}
    if both:
        raise UserError(f"{sorted(both)[0].name} is on both sides", where="--baseline, --candidate")
    runs = placed([*base, *other], policy)
    chosen = newest([run for run in runs if run.side == "baseline"], policy.window)
    chosen += [run for run in runs if run.side == "candidate"]
    return replace(judge(chosen, policy), command=command), options.out


def _command(argv: list[str]) -> list[str]:
    """What was typed, to do it again: without the folder, which is there now."""
    kept: list[str] = []
    for place, word in enumerate(argv):
        named = word.startswith("--o") and "--out".startswith(word.partition("=")[0])
        value = place > 0 and argv[place - 1].startswith("--o") and "--out".startswith(argv[place - 1])
        if not named and not value:
            kept.append(word)
    return ["tailgate", "gate", *kept]


def _show(verdict: "Verdict", folder: Path | None, options: argparse.Namespace) -> None:
    """What a person or a script sees."""
    if options.json:
        from tailgate.reports.documents.gate.write import json_text

        sys.stdout.write(json_text(verdict))
    elif not options.quiet:
        from rich.console import Console

        from tailgate.reports.documents.gate.write import print_verdict

        console = Console()
        print_verdict(verdict, console)
        if folder is not None:
            console.print(f"gate: {folder / 'gate.html'}", highlight=False, soft_wrap=True)


def _dry_run(policy: "Policy", policy_file: Path, options: argparse.Namespace) -> int:
    """What would be started, how long it would take, what it would cost."""
    from tailgate.harness.experiments.gate.estimate import estimate, require_budget
    from tailgate.harness.experiments.gate.feasibility import require_decidable
    from tailgate.harness.experiments.gate.run_specs import experiment
    from tailgate.reports.verdicts.gate.wording import duration

    found = experiment(policy, policy_file.resolve().parent)
    require_decidable(found)
    costs = estimate(found)
    extension = require_budget(found, costs)
    told = [
        f"{step.order:>3}  pair {step.pair}  {step.side:<9}  {step.point}  {duration(step.seconds)}"
        f"{' and its requests' if step.open_end else ''}"
        for step in costs.steps
    ]
    said = f"{len(costs.steps)} runs, {costs.launches} launches, about {duration(costs.seconds)}"
    said += f", ${costs.dollars:.2f}" if costs.dollars is not None else " (no dollars: not both sides have a price)"
    if costs.open_end:
        said += "\nand what it takes until the requests of some runs are answered, which isn't known yet"
    if policy.extended is not None and costs.seconds_extended is not None:
        money = "" if costs.dollars_extended is None else f", ${costs.dollars_extended:.2f}"
        more = f"about {duration(costs.seconds_extended)}{money} in all"
        said += f"\nif {policy.pairs} pairs can't tell: {policy.extended} pairs, {more}"
        said += "" if extension else ", which the budget does not allow: there will be one look only"
    print("\n".join([*told, said, *found.notes]))
    return 0


def _self_test(options: argparse.Namespace) -> int:
    from tailgate.reports.documents.gate.operating_curve import exit_code, report

    if options.sets < 1:
        raise UserError(f"{options.sets} sets show nothing", where="--sets", remedy="Make it 1000 or more.")
    result = report(options.sets)
    print(result.text)
    return exit_code(result)


def parser() -> argparse.ArgumentParser:
    """All flags."""
    p = Parser(
        prog="tailgate gate",
        description="Is the candidate slower than the baseline? Interleaved pairs now, stored runs, or limits only.",
        epilog=(
            "tailgate gate init writes a policy. Exit codes: 0 PASS, 1 FAIL, 2 wrong input, 3 INCONCLUSIVE,"
            " 4 INVALID, 130 interrupted."
        ),
    )
    p.add_argument("runs", nargs="*", metavar="RUN", help="hold these runs against the thresholds; or a gate's folder")
    p.add_argument("--policy", type=Path, help="what decides (YAML)")
    p.add_argument("--baseline", metavar="GLOB", help="stored runs of the baseline, e.g. 'runs/main-*'")
    p.add_argument("--candidate", metavar="GLOB", help="stored runs of the candidate")
    p.add_argument("--dry-run", action="store_true", help="say what would be run, for how long and at what cost")
    p.add_argument("--self-test", action="store_true", help="how often the decision is right, by simulation")
    p.add_argument("--sets", type=int, default=20_000, help="simulated sets of runs per condition (20000)")
    p.add_argument("--out", type=Path, help="folder for runs and documents (default: runs/<utc>-gate-<name>)")
    p.add_argument("--junit", type=Path, help="write JUnit XML here too")
    p.add_argument("--markdown", type=Path, help="write the Markdown here too")
    p.add_argument("--history", type=Path, help="append the verdict to this file of JSON lines")
    p.add_argument("--json", action="store_true", help="print the verdict as JSON and nothing else on stdout")
    p.add_argument("--quiet", action="store_true", help="print nothing but errors")
    return p
