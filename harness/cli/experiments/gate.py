"""`tailgate gate`: is the candidate slower? PASS, FAIL, INCONCLUSIVE or INVALID, as an exit code and documents."""

import argparse
import asyncio
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tailgate.harness.cli.edge import write_document
from tailgate.harness.config.arguments import ALL_HELP, Parser
from tailgate.workloads.common.errors import UserError

if TYPE_CHECKING:
    from tailgate.harness.experiments.core.campaign import Notify
    from tailgate.harness.experiments.core.estimate import CampaignEstimate
    from tailgate.harness.experiments.gate.outputs import GateOutputs
    from tailgate.harness.experiments.gate.run_specs import Experiment
    from tailgate.reports.verdicts.gate.policy import Policy
    from tailgate.reports.verdicts.gate.result import Verdict


def run(argv: list[str]) -> int:
    """Entry; the exit code is the verdict's: 0 PASS, 1 FAIL, 3 INCONCLUSIVE, 4 INVALID; 2 for wrong input."""
    if argv[:1] == ["init"]:
        from tailgate.harness.cli.experiments.gate_init import run as init

        return int(init(argv[1:]))
    options = parser().parse_args(argv)
    if options.self_test:
        return _self_test(options)
    policy_file = _policy_file(options)
    from tailgate.reports.verdicts.gate.policy import load_policy

    policy = load_policy(policy_file)
    if options.dry_run:
        return _dry_run(policy, policy_file)
    outputs = _outputs(policy, policy_file, options)
    outputs.check()
    stored = bool(options.runs or options.baseline or options.candidate)
    if options.resume is not None and (stored or options.out is not None):
        raise UserError("goes on in its own folder, with its own runs", where="--resume", remedy="Name nothing else.")
    if stored:
        verdict, folder = _stored(policy, options, argv)
    else:
        verdict, folder = _measure(policy, policy_file, options, argv)
    problems = outputs.write(verdict, folder)
    _show(verdict, folder, options)
    for problem in problems:
        print(f"tailgate: {problem}", file=sys.stderr)
    return verdict.exit_code


def _policy_file(options: argparse.Namespace) -> Path:
    """The policy given, or that of the gate's folder to be judged again."""
    from tailgate.harness.experiments.gate.policy_copy import POLICY

    if options.policy is not None:
        return Path(options.policy)
    if len(options.runs) == 1 and (Path(options.runs[0]) / POLICY).exists():
        return Path(options.runs[0]) / POLICY
    raise UserError("a policy is missing", where="--policy", remedy="`tailgate gate init` writes one.")


def _outputs(policy: "Policy", policy_file: Path, options: argparse.Namespace) -> "GateOutputs":
    from tailgate.harness.experiments.gate.outputs import GateOutputs, history_of
    from tailgate.reports.documents.gate.write import VERDICT

    again = _judged_again(options)
    # The copy of a policy in a gate's folder doesn't know any more what its `history` was relative to.
    history = options.history if again and options.policy is None else history_of(policy, policy_file, options.history)
    done = options.resume is not None and (options.resume / VERDICT).exists()
    return GateOutputs(options.junit, options.markdown, history, remember=not (again or done))


def _judged_again(options: argparse.Namespace) -> bool:
    from tailgate.reports.verdicts.gate.runs import FILE_NAME

    return len(options.runs) == 1 and (Path(options.runs[0]) / FILE_NAME).exists()


def _measure(
    policy: "Policy", policy_file: Path, options: argparse.Namespace, argv: list[str]
) -> "tuple[Verdict, Path]":
    from tailgate.harness.experiments.core.folder import new_folder, removed_if_nothing_was_measured, resumed_folder
    from tailgate.harness.experiments.gate.campaign import run_campaign
    from tailgate.harness.experiments.gate.policy_copy import POLICY, public_policy

    experiment, _, extension = _planned(policy, policy_file, None if options.anyway else _notice(options))
    inputs = {POLICY: public_policy(policy_file)}
    if options.resume is not None:
        folder, new = resumed_folder(options.resume, inputs), False
    else:
        folder, new = new_folder(options.out, f"gate-{policy.name}", inputs), True
    notify = _notice(options)
    with removed_if_nothing_was_measured(folder) if new else nullcontext():
        return asyncio.run(run_campaign(experiment, folder, _command(argv), extension, notify)), folder


def _notice(options: argparse.Namespace) -> "Notify":
    """Says what happens now, where anybody wants to hear it."""
    wanted = not (options.quiet or options.json)
    return lambda text: print(text, file=sys.stderr, flush=True) if wanted else None


def _planned(
    policy: "Policy", policy_file: Path, notify: "Notify | None" = None
) -> "tuple[Experiment, tuple[CampaignEstimate, ...], bool]":
    """The experiment, what it takes, and whether its extension fits into the budget.

    `notify` is told how well this machine will measure; one that can't measure it is refused. None: it isn't asked.
    """
    from tailgate.harness.experiments.gate.estimate import estimate, require_budget
    from tailgate.harness.experiments.gate.feasibility import require_decidable
    from tailgate.harness.experiments.gate.precision import require_precise
    from tailgate.harness.experiments.gate.run_specs import experiment
    from tailgate.harness.host.load_probe import LoadProbe

    probe = LoadProbe()
    planned = experiment(policy, policy_file.resolve().parent)
    require_decidable(planned)
    declared, extended = estimate(planned)
    fits = require_budget(policy, declared, extended)
    if notify is not None:
        for text in require_precise(planned, asyncio.run(probe.state())):
            notify(text)
    return planned, (declared,) if extended is None else (declared, extended), fits


def _stored(policy: "Policy", options: argparse.Namespace, argv: list[str]) -> "tuple[Verdict, Path | None]":
    """Runs that exist: two globs, single runs to hold against thresholds, or a gate's folder to judge again."""
    from tailgate.reports.verdicts.gate.runs import GateRecord, newest, placed, recorded_runs, stored_runs
    from tailgate.reports.verdicts.gate.verdict import judge

    if options.runs and (options.baseline or options.candidate):
        raise UserError("runs and --baseline, --candidate exclude each other", where="command line")
    command = tuple(_command(argv))
    if _judged_again(options):
        folder = Path(options.runs[0])
        record = GateRecord.load(folder)
        return judge(recorded_runs(folder, record), policy, record), folder
    if options.runs:
        runs = [run for pattern in options.runs for run in stored_runs(pattern, "candidate", "RUN")]
        return replace(judge(placed(runs, policy), policy), command=command), options.out
    if not (options.baseline and options.candidate):
        missing = "--candidate" if options.baseline else "--baseline"
        raise UserError("is missing: a comparison has two sides", where=missing)
    baseline = stored_runs(options.baseline, "baseline")
    candidate = stored_runs(options.candidate, "candidate")
    both = {run.path.resolve() for run in baseline} & {run.path.resolve() for run in candidate}
    if both:
        raise UserError(f"{sorted(both)[0].name} is on both sides", where="--baseline, --candidate")
    runs = placed([*baseline, *candidate], policy)
    chosen = newest([run for run in runs if run.label == "baseline"], policy.window)
    chosen += [run for run in runs if run.label == "candidate"]
    return replace(judge(chosen, policy), command=command), options.out


def _command(argv: list[str]) -> list[str]:
    """What was typed, to do it again: without the folder, which is there now."""
    words: list[str] = []
    for place, word in enumerate(argv):
        value = place > 0 and "=" not in argv[place - 1] and _names_folder(argv[place - 1])
        if not value and not _names_folder(word):
            words.append(word)
    return ["tailgate", "gate", *words]


def _names_folder(word: str) -> bool:
    """Whether it is --out or --resume, or the beginning of one that the parser understands."""
    flag = word.partition("=")[0]
    return len(flag) > len("--") and any(name.startswith(flag) for name in ("--out", "--resume"))


def _show(verdict: "Verdict", folder: Path | None, options: argparse.Namespace) -> None:
    if options.json:
        from tailgate.reports.documents.gate.write import json_text

        write_document(json_text(verdict), "json")
    else:
        from tailgate.reports.documents.gate.document import gate_document
        from tailgate.reports.documents.render.terminal import print_in_short, standard_output

        console = standard_output()
        print_in_short(gate_document(verdict), console, verdict_only=options.quiet, everything=options.all)
        if folder is not None and not options.quiet:
            console.print(f"gate: {folder / 'gate.html'}", highlight=False, soft_wrap=True)


def _dry_run(policy: "Policy", policy_file: Path) -> int:
    """What would be started, how long it would take, what it would cost."""
    from tailgate.reports.verdicts.gate.wording import duration

    experiment, (declared, *extended), fits = _planned(policy, policy_file)
    lines = [
        f"{order:>3}  {run.label}  {duration(run.seconds)}{' and its requests' if run.open_end else ''}"
        for order, run in enumerate(declared.runs, 1)
    ]
    total = f"{len(declared.runs)} runs, {declared.launches} launches, about {duration(declared.seconds)}"
    price = " (no dollars: not both sides have a price)" if declared.dollars is None else f", ${declared.dollars:.2f}"
    lines.append(total + price)
    if declared.open_end:
        lines.append("plus the time until the requests of some runs are answered, which isn't known yet")
    for more in extended:
        money = "" if more.dollars is None else f", ${more.dollars:.2f}"
        refused = "" if fits else ", which the budget does not allow: there will be one look only"
        lines.append(
            f"if {policy.pairs} pairs can't decide: {policy.extended} pairs, about {duration(more.seconds)}{money}"
            f" in all{refused}"
        )
    print("\n".join([*lines, *experiment.notes]))
    return 0


def _self_test(options: argparse.Namespace) -> int:
    from tailgate.harness.experiments.gate.policy_template import policies
    from tailgate.reports.documents.gate.operating_curve import exit_code, report

    if options.sets < 1:
        raise UserError(f"{options.sets} sets show nothing", where="--sets", remedy="Make it 1000 or more.")
    result = report(options.sets, policies())
    print(result.text)
    return exit_code(result)


def parser() -> argparse.ArgumentParser:
    p = Parser(
        prog="tailgate gate",
        description="Is the candidate slower than the baseline? By interleaved pairs, by stored runs, or by limits.",
        epilog=(
            "tailgate gate init writes a policy. Exit codes: 0 PASS, 1 FAIL, 2 wrong input, 3 INCONCLUSIVE,"
            " 4 INVALID, 130 interrupted."
        ),
    )
    p.add_argument("runs", nargs="*", metavar="RUN", help="runs to hold against the thresholds, or a gate's folder")
    p.add_argument("--policy", type=Path, help="the policy: what decides, and by how much (YAML)")
    p.add_argument("--baseline", metavar="GLOB", help="stored runs of the baseline, e.g. 'runs/main-*'")
    p.add_argument("--candidate", metavar="GLOB", help="stored runs of the candidate")
    p.add_argument("--dry-run", action="store_true", help="print what would be run, for how long and at what cost")
    p.add_argument("--self-test", action="store_true", help="simulate how often the decision is right")
    p.add_argument("--sets", type=int, default=20_000, help="simulated sets of runs per condition (20000)")
    p.add_argument("--out", type=Path, help="folder for runs and documents (default: runs/<utc>-gate-<name>)")
    p.add_argument("--resume", type=Path, metavar="DIR", help="go on with the interrupted gate in this folder")
    p.add_argument("--anyway", action="store_true", help="measure even what this machine can't tell, as it says")
    p.add_argument("--junit", type=Path, help="write JUnit XML here too")
    p.add_argument("--markdown", type=Path, help="write the Markdown here too")
    p.add_argument("--history", type=Path, help="append the verdict to this file of JSON lines")
    p.add_argument("--all", action="store_true", help=f"{ALL_HELP[0].lower()}{ALL_HELP[1:-1]}")
    p.add_argument("--json", action="store_true", help="print the verdict as JSON and nothing else on stdout")
    p.add_argument("--quiet", action="store_true", help="print nothing but the verdict and errors")
    return p
