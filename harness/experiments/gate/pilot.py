"""A pilot: the baseline against itself a few times, to see how much runs differ; and what can be decided then.

Runs of one seed: what differs between them is what a pair's difference will be made of.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from tailgate.harness.experiments.core.campaign import Notify
from tailgate.harness.experiments.gate.run_specs import Experiment
from tailgate.harness.load.listener import Watcher
from tailgate.harness.run.execute import execute
from tailgate.reports.build import build
from tailgate.reports.stats.between_runs import POWER
from tailgate.reports.stats.sequential_design import Design
from tailgate.reports.summary.model import Summary
from tailgate.reports.validity.cause import cause
from tailgate.reports.validity.own_error import OWN_ERROR
from tailgate.reports.verdicts.gate.metrics import GateMetric, gate_metric
from tailgate.reports.verdicts.gate.operating_curve import decide, differences
from tailgate.reports.verdicts.gate.policy import DEFAULT_METRICS
from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.common.errors import UserError

SHOWN: Final = ("ttft.p50", "ttft.p90", "ttft.p99", "tpot.mean", "tpot.p90", "itl.p99", "e2e.p90")
_MARGINS: Final = (0.03, 0.05, 0.075, 0.10, 0.15, 0.20, 0.30)
_PAIRS: Final = tuple(range(5, 11))
# Three runs tell a spread badly: what is proposed must do at an upper bound of it, which is right so often.
_SURE: Final = 0.8
_SETS: Final = 4000


@dataclass(frozen=True)
class Spread:
    """How much a metric differs from run to run."""

    metric: GateMetric  # with its margin
    cv: float  # run-to-run coefficient of variation, as seen
    low: float  # bounds of the true one, each right in four of five pilots
    high: float


@dataclass(frozen=True)
class Proposal:
    """What decides, given the spreads."""

    metrics: dict[str, str | None]  # with their margins, as a policy has them
    pairs: int  # of the first look; twice as many with the extension
    passes: float  # share of cases in which an unchanged system passes all, with every spread at its upper bound
    passes_first: float  # at the first look
    notes: list[str]
    spreads: dict[str, float]  # the upper bound of each metric's, which all of this is reckoned with


async def pilot(experiment: Experiment, runs: int, out: Path, notify: Notify) -> list[Summary]:
    """Run the baseline `runs` times at the first point; the summaries."""
    summaries = []
    for number in range(1, runs + 1):
        notify(f"pilot run {number} of {runs}")
        folder = out / f"pilot{number:02}"
        # One seed for the requests, but the embedded engine's jitter is each run's own.
        own_jitter = experiment.spec("baseline", experiment.points[0], number).target
        spec = experiment.spec("baseline", experiment.points[0], 1).model_copy(update={"target": own_jitter})
        await execute(spec, folder, ["tailgate", "gate", "init", "--pilot", str(runs)], Watcher())
        summary = await asyncio.to_thread(build, folder)
        # A gate holds its own metrics against the load generator's own error.
        if failed := [check for check in summary.failed_checks if check.name != OWN_ERROR]:
            raise UserError(f"the pilot's measuring failed: {cause(failed).happened}", where=str(folder))
        summaries.append(summary)
    return summaries


def spreads(summaries: Sequence[Summary], keys: Sequence[str] = SHOWN) -> list[Spread]:
    """What the pilot's runs say about each metric that all of them have."""
    each = []
    for key in keys:
        metric = gate_metric(key, DEFAULT_METRICS.get(key))
        values = [summary.value(metric.path) for summary in summaries]
        usable = [value for value in values if value is not None and 0 < value < math.inf]
        if len(usable) == len(values) >= 2:
            each.append(_spread(metric, np.log(usable)))
    return each


def _spread(metric: GateMetric, logs: Floats) -> Spread:
    """From the runs' logarithms; the bounds by the chi-square distribution of their variance."""
    from scipy.special import chdtri

    df = len(logs) - 1
    cv = float(logs.std(ddof=1))
    low, high = (cv * math.sqrt(df / float(chdtri(df, tail))) for tail in (1 - _SURE, _SURE))
    return Spread(metric, cv, low, high)


def proposal(seen: Sequence[Spread]) -> Proposal:
    """The tightest margins, and the fewest pairs for them, with which an unchanged system passes often enough.

    All metrics together, over both looks, at the upper bounds of their spreads. Margins are widened one step at a
    time, always that of the metric that has least room, until ten pairs (twenty with the extension) are enough.
    """
    chosen = [spread for spread in seen if spread.metric.key in DEFAULT_METRICS]
    if not chosen:
        raise UserError(
            f"none of {', '.join(DEFAULT_METRICS)} came out of every run", where="--pilot",
            remedy="Make the runs longer: see the reports of the pilot's runs.",
        )  # fmt: skip
    while _chances(chosen, _PAIRS[-1])[1] < POWER and (wider := _widened(chosen)) is not None:
        chosen = wider
    tried = {pairs: _chances(chosen, pairs) for pairs in _PAIRS}
    pairs = next((n for n, (_, both) in tried.items() if both >= POWER), _PAIRS[-1])
    first, both = tried[pairs]
    metrics: dict[str, str | None] = {spread.metric.key: f"{100 * spread.metric.margin:g}%" for spread in chosen}
    notes = [*_differed(seen), *_chances_in_words(chosen, pairs, first, both)]
    return Proposal(metrics, pairs, both, first, notes, {spread.metric.key: spread.high for spread in chosen})


def _chances(spreads: Sequence[Spread], pairs: int) -> tuple[float, float]:
    """Share of cases in which an unchanged system passes: at the first look, and after the extension."""
    design = Design(pairs, 2 * pairs)
    data = [
        (differences(_SETS, 2 * pairs, spread.high, 0.0, 0.0, place), spread.metric.log_margin)
        for place, spread in enumerate(spreads)
    ]
    outcomes = decide(data, design)
    return float(outcomes.passed_first.mean()), float(outcomes.passed.mean())


def _widened(spreads: Sequence[Spread]) -> list[Spread] | None:
    """With the next margin of the metric that has least room for its spread; None if none has a wider one."""
    wider = [
        (spread.metric.log_margin / spread.high, place, margin)
        for place, spread in enumerate(spreads)
        for margin in [next((m for m in _MARGINS if m > spread.metric.margin), None)]
        if margin is not None and spread.high > 0
    ]
    if not wider:
        return None
    _, place, margin = min(wider)
    spread = spreads[place]
    widened = replace(spread, metric=replace(spread.metric, margin=margin))
    return [*spreads[:place], widened, *spreads[place + 1 :]]


def _differed(seen: Sequence[Spread]) -> list[str]:
    notes = [
        "Run to run, the pilot's runs of the baseline differed by (coefficient of variation; in brackets bounds of the"
        f" true one, each right in {100 * _SURE:.0f} % of pilots):"
    ]
    return notes + [f"  {s.metric.key} {100 * s.cv:.1f} % ({100 * s.low:.1f} to {100 * s.high:.1f})" for s in seen]


def _chances_in_words(chosen: Sequence[Spread], pairs: int, first: float, both: float) -> list[str]:
    margins = ", ".join(f"{spread.metric.key} {100 * spread.metric.margin:g} %" for spread in chosen)
    notes = [
        f"With the margins {margins} an unchanged system passes in {100 * first:.0f} % of cases after {pairs} pairs,"
        f" and in {100 * both:.0f} % with the extension to {2 * pairs}, if the spreads are at their upper bounds."
    ]
    if both < POWER:
        notes.append("That is too seldom to be of use: make the runs longer, or find out what makes them differ.")
    return notes
