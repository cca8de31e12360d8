"""The commented policies that `tailgate gate init` writes, one for each purpose; the first line says what it can find.

How small a slowdown a policy finds is worked out for it as it is written (`reports.verdicts.gate.policy_curve`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from tailgate.reports.verdicts.gate.policy import DEFAULT_METRICS, Policy, parse_policy
from tailgate.reports.verdicts.gate.policy_curve import ORDINARY_SPREAD, finds
from tailgate.workloads.common.errors import UserError

if TYPE_CHECKING:
    from tailgate.harness.experiments.gate.pilot import Proposal

BASELINE: Final = "http://localhost:8000"
CANDIDATE: Final = "http://localhost:8001"
_LAUNCHED: Final = "{kind: vllm, model: meta-llama/Llama-3.1-8B-Instruct%s}"


@dataclass(frozen=True)
class Purpose:
    """What a policy is for, and how it differs from the others."""

    about: tuple[str, ...] = ()  # lines of its head, below the first
    # where nobody names one
    baseline: str = BASELINE
    candidate: str = CANDIDATE
    metrics: Mapping[str, str | None] = field(default_factory=lambda: DEFAULT_METRICS)
    thresholds: Mapping[str, str] = field(default_factory=dict)
    pairs: int = 5
    extension: int | None = 10
    restart: str = "each"
    duration: str = "2m"
    budget: str = ""
    window: int | None = None
    inconclusive: str = "fail"


GENERAL: Final = Purpose()
PURPOSES: Final[dict[str, Purpose]] = {
    "pr": Purpose(
        about=(
            "For every pull request: both servers are running already, one look at three pairs, under ten minutes.",
            "What it can't tell doesn't block: smaller slowdowns are for the nightly gate (--for nightly).",
        ),
        metrics=dict.fromkeys(DEFAULT_METRICS, "20%"), pairs=3, extension=None, restart="never", duration="60s",
        budget="at most 10 min", inconclusive="neutral",
    ),
    "nightly": Purpose(
        about=(
            "For every night: five runs of tonight's build against the newest twenty of the nights before. SPEC is the",
            "spec's file, and URL the server; the same seeds each night make the same requests.",
            "  for n in 1 2 3 4 5; do",
            '    tailgate run SPEC --target URL --seed $n --out "runs/tonight/$(date +%F)-$n"',
            "  done",
            "  tailgate gate --policy THIS --baseline 'runs/history/*' --candidate 'runs/tonight/*'",
            "  mv runs/tonight/* runs/history/     # after a PASS",
            "Without --baseline and --candidate it measures the two sides below instead.",
        ),
        window=20,
    ),
    "release": Purpose(
        about=(
            "Before a release: a new server for every run, so that no launch's luck decides, and limits of its own.",
            "Both sides must be targets that Tailgate starts: a server that is only a URL can't be restarted.",
        ),
        baseline=_LAUNCHED % "", candidate=_LAUNCHED % ", args: {max-num-seqs: 256}",
        thresholds={"ttft": "p99 < 800ms", "errors": "< 0.5%"}, duration="5m",
    ),
}  # fmt: skip


def policies() -> dict[str, Policy]:
    """The policy of each purpose, as `gate init --for` writes it."""
    return {
        name: parse_policy(yaml.safe_load(_body(purpose, "", "", None)), name) for name, purpose in PURPOSES.items()
    }


def write(
    path: Path, baseline: str | None, candidate: str | None, spec: str | None, proposal: "Proposal | None" = None,
    purpose: Purpose = GENERAL,
) -> None:  # fmt: skip
    """Write the policy; see `text`.

    Raises:
        UserError: the file exists or can't be written, or a side is nothing that YAML can hold.
    """
    content = text(baseline, candidate, spec, proposal, purpose)
    try:
        with path.open("x") as file:
            file.write(content)
    except FileExistsError:
        raise UserError("exists already", where=str(path), remedy="Name another file.") from None
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(path)) from error


def text(
    baseline: str | None, candidate: str | None, spec: str | None, proposal: "Proposal | None" = None,
    purpose: Purpose = GENERAL,
) -> str:  # fmt: skip
    """The policy of a purpose, with the metrics and pairs that a pilot proposed, if any, and its notes."""
    if proposal is not None:
        pairs = proposal.pairs
        purpose = replace(purpose, metrics=proposal.metrics, pairs=pairs, extension=2 * pairs)
    notes = () if proposal is None else proposal.notes
    body = _body(purpose, baseline or purpose.baseline, candidate or purpose.candidate, spec, notes)
    try:
        policy = parse_policy(yaml.safe_load(body), "command line")
    except yaml.YAMLError as error:
        remedy = "Name a URL, sim:PRESET, or a target as a spec has it."
        raise UserError("can't be written as YAML", where="--baseline, --candidate, --spec", remedy=remedy) from error
    spread = ORDINARY_SPREAD if proposal is None else proposal.spreads
    first = (
        f"# Finds slowdowns above about {100 * finds(policy, spread):.0f} % (in four of five cases, where runs of one"
        f" server differ by {_spread_in_words(spread)}); smaller ones may go unseen."
    )
    explained = "A gate's policy: tailgate gate --policy THIS. docs/gate.md explains every key."
    return "".join(f"{line}\n" for line in (first, *(f"# {line}" for line in (*purpose.about, explained)))) + body


def _spread_in_words(spread: float | Mapping[str, float]) -> str:
    if isinstance(spread, float):
        return f"{100 * spread:.0f} %"
    each = ", ".join(f"{100 * high:.1f} % in {key}" for key, high in spread.items())
    return f"as much as the pilot leaves possible: {each}"


def _body(purpose: Purpose, baseline: str, candidate: str, spec: str | None, notes: Sequence[str] = ()) -> str:
    metrics = "\n".join(f"  {key}: {margin}" for key, margin in purpose.metrics.items())
    comments = "".join(f"# {note}\n" for note in notes)
    common = _spec(purpose) if spec is None else f"spec: {spec}    # what both sides have in common\n"
    extension = "null" if purpose.extension is None else purpose.extension
    return f"""\
name: gate

# The two sides: a URL, sim:GPU/MODEL, or a target as in a spec, e.g.
#   {_LAUNCHED % ", args: {max-num-seqs: 256}"}
# Not needed to judge stored runs (--baseline GLOB --candidate GLOB).
baseline: {baseline}
candidate: {candidate}

{common}
# Loads, if one is not enough. Latencies are judged at the calm points, throughput and cost at a saturated one.
# points: {{interactive: 8/s, busy: 0.85x, saturated: closed 256}}

{comments}metrics:                    # at most four decide: PASS needs all of them, FAIL is corrected for their number
{metrics}
  # ttft.p99: 10%           # needs 299 requests a run, or more where they resemble their neighbours
  # output_tokens_per_s: -3%               # at a saturated point only
  # cost.per_million_output: 3%            # the same, and gpus

{_thresholds(purpose)}
errors: 0.1%                # FAIL if provably more fail than on the baseline, and this much more
{_key("pairs", purpose.pairs)}# AB, BA, AB, ...: one seed a pair
{_key("extension", extension)}# pairs in all, if the first look can't tell; null: one look, sharper
{_key("restart", purpose.restart)}# each: a new server for every run; block: for every change of sides; never
repeat_invalid: 2           # pairs measured again because their measuring (not the target) failed
{_optional("budget", purpose.budget, "[at most 40 min, at most $15]")}# dollars need gpus
# launch: 120s              # how long one launch takes, for the estimate
# under_test: [version]     # facts that may differ; what `baseline` and `candidate` say differently may anyway
{_key("inconclusive", purpose.inconclusive)}# fail | neutral: what CI makes of it
seed: 1
{_optional("window", purpose.window, "20")}# of stored runs: the newest of the baseline's that count
{_optional("history", purpose.window and "gate-history.jsonl", "gate-history.jsonl")}# one line a verdict, for the trend
"""


def _spec(purpose: Purpose) -> str:
    return f"""\
spec:                       # what both sides have in common: a spec, or the name of one (spec: chat.yaml)
  # gpus: {{type: h100-sxm, count: 1}}        # for dollars
  workload:
    profile: chat-gateway   # one that open and closed loops can have
    arrivals: {{rate: 8/s}}
    {_key("duration", purpose.duration, 24)}# of each run
    warmup: 15s             # each time: a server that has just started is slow
"""


def _thresholds(purpose: Purpose) -> str:
    """In force, or as a hint."""
    shown = purpose.thresholds or PURPOSES["release"].thresholds
    mark = "" if purpose.thresholds else "# "
    limits = "".join(f"{mark}  {key}: {limit}\n" for key, limit in shown.items())
    return f"{f'{mark}thresholds:':<28}# limits of the candidate's own, as in an SLO\n{limits}"


def _optional(key: str, value: object, example: str) -> str:
    """In force where there is a value, else as a hint."""
    return _key(key, value) if value else _key(f"# {key}", example)


def _key(key: str, value: object, width: int = 28) -> str:
    return f"{f'{key}: {value}':<{width - 1}} "
