"""The commented policy that `tailgate gate init` writes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tailgate.reports.verdicts.gate.policy import DEFAULT_METRICS
from tailgate.workloads.common.errors import UserError

_SPEC = """\
spec:                       # what both sides have in common: a spec, or the name of one (spec: chat.yaml)
  # gpus: {type: h100-sxm, count: 1}        # for dollars
  workload:
    profile: chat-gateway   # one that open and closed loops can have
    arrivals: {rate: 8/s}
    duration: 2m
    warmup: 15s             # each time: a server that has just started is slow
"""


def write(
    path: Path, baseline: str, candidate: str, spec: str | None, metrics: Mapping[str, str | None] | None = None,
    pairs: int = 5, notes: Sequence[str] = (),
) -> None:  # fmt: skip
    try:
        with path.open("x") as file:
            file.write(text(baseline, candidate, spec, metrics or DEFAULT_METRICS, pairs, notes))
    except FileExistsError:
        raise UserError("exists already", where=str(path), remedy="Name another file.") from None
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(path)) from error


def text(
    baseline: str, candidate: str, spec: str | None, metrics: Mapping[str, str | None], pairs: int, notes: Sequence[str]
) -> str:
    gating = "\n".join(f"  {key}: {margin}" for key, margin in metrics.items())
    comments = "".join(f"# {note}\n" for note in notes)
    common = _SPEC if spec is None else f"spec: {spec}    # what both sides have in common\n"
    return f"""\
# A gate's policy: tailgate gate --policy THIS. docs/gate.md explains every key.
name: gate

# The two sides: a URL, sim:GPU/MODEL, or a target as in a spec, e.g.
#   {{kind: vllm, model: meta-llama/Llama-3.1-8B-Instruct, args: {{max-num-seqs: 256}}}}
# Not needed to judge stored runs (--baseline GLOB --candidate GLOB).
baseline: {baseline}
candidate: {candidate}

{common}
# Loads, if one is not enough. Latencies are judged at the calm points, throughput and cost at a saturated one.
# points: {{interactive: 8/s, busy: 0.85x, saturated: closed 256}}

{comments}metrics:                    # at most four decide: PASS needs all of them, FAIL is corrected for their number
{gating}
  # ttft.p99: 10%           # needs 299 requests a run, or more where they resemble their neighbours
  # output_tokens_per_s: -3%               # at a saturated point only
  # cost.per_million_output: 3%            # the same, and gpus

# thresholds:               # limits of the candidate's own, as in an SLO
#   ttft: p99 < 800ms
#   errors: < 0.5%

errors: 0.1%                # FAIL if provably more fail than on the baseline, and this much more
pairs: {pairs}                    # AB, BA, AB, ...: one seed a pair
extension: {2 * pairs}               # pairs in all, if the first look can't tell; null: one look, sharper
restart: each               # each: a new server for every run; block: for every change of sides; never
repeat_invalid: 2           # pairs measured again because their measuring (not the target) failed
# budget: [at most 40 min, at most $15]   # dollars need gpus
# launch: 120s              # how long one launch takes, for the estimate
# under_test: [version]     # facts that may differ; what `baseline` and `candidate` say differently may anyway
inconclusive: fail          # fail | neutral: what CI makes of it
seed: 1
# history: gate-history.jsonl               # one line a verdict, for the trend
"""
