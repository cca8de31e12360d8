"""A pilot: the baseline against itself a few times, to see how much runs differ; and what can be decided then.

Runs of one seed: what differs between them is what a pair's difference will be made of.
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from harness.gate.sides import Experiment
from harness.load import Watcher
from harness.run import execute
from reports.build import build
from reports.gate_design import Design
from reports.gate_metrics import GateMetric, gate_metric
from reports.gate_policy import DEFAULT_METRICS
from reports.gate_stats import pairs_to_settle
from workloads.errors import UserError

SHOWN: Final = ("ttft.p50", "ttft.p90", "ttft.p99", "tpot.mean", "tpot.p90", "itl.p99", "e2e.p90")
_MARGINS: Final = (0.03, 0.05, 0.075, 0.10, 0.15, 0.20, 0.30)
_MOST_PAIRS: Final = 10


@dataclass(frozen=True)
class Spread:
    """How much a metric differs from run to run, and what that allows.

    Attributes:
        metric: which, with the margin that is proposed.
        cv: run-to-run coefficient of variation, median-unbiased for the few runs there are.
        pairs: pairs after which an unchanged system passes in four of five cases; None beyond any use.
    """

    metric: GateMetric
    cv: float
    pairs: int | None


async def pilot(found: Experiment, runs: int, out: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Run the baseline `runs` times at the first point; the summaries.

    Raises:
        UserError: a run could not be made, or its measuring failed.
    """
    summaries = []
    for number in range(1, runs + 1):
        say(f"pilot run {number} of {runs}")
        folder = out / f"pilot{number:02}"
        # One seed for the requests, but the embedded engine's jitter is each run's own.
        own_jitter = found.spec("baseline", found.points[0], number).target
        spec = found.spec("baseline", found.points[0], 1).model_copy(update={"target": own_jitter})
        await execute(spec, folder, ["tailgate", "gate", "init", "--pilot", str(runs)], Watcher())
        summary = await asyncio.to_thread(build, folder)
        if not summary["valid"]:
            raise UserError(f"the pilot's measuring failed: {summary['why']}", where=str(folder))
        summaries.append(summary)
    return summaries


def spreads(summaries: Sequence[Mapping[str, Any]], keys: Sequence[str] = SHOWN) -> list[Spread]:
    """What the pilot's runs say about each metric that all of them have."""
    found = []
    for key in keys:
        metric = gate_metric(key, DEFAULT_METRICS.get(key))
        values = [metric.value(summary) for summary in summaries]
        known = [value for value in values if value is not None and 0 < value < math.inf]
        if len(known) == len(values) >= 2:
            found.append(_spread(metric, np.log(known)))
    return found


def _spread(metric: GateMetric, logs: "np.typing.NDArray[np.float64]") -> Spread:
    from scipy.special import chdtri

    df = len(logs) - 1
    cv = float(logs.std(ddof=1)) * math.sqrt(df / float(chdtri(df, 0.5)))
    for margin in [metric.margin, *(m for m in _MARGINS if m > metric.margin)]:
        wide = GateMetric(metric.key, margin, metric.path, metric.higher)
        pairs = needed_pairs(cv, wide)
        if pairs is not None and pairs <= _MOST_PAIRS:
            return Spread(wide, cv, pairs)
    return Spread(GateMetric(metric.key, _MARGINS[-1], metric.path, metric.higher), cv, needed_pairs(cv, metric))


def needed_pairs(cv: float, metric: GateMetric) -> int | None:
    """Pairs after which an unchanged system passes in four of five cases at this spread."""
    design = Design(_MOST_PAIRS)
    return pairs_to_settle(math.sqrt(2) * cv, 0.0, metric.log_margin, (design.pass_tail(), design.fail_tail()))


def proposal(found: Sequence[Spread]) -> tuple[dict[str, str | None], int, list[str]]:
    """(metrics with margins, pairs, notes) for a policy."""
    chosen = [one for one in found if one.metric.key in DEFAULT_METRICS]
    metrics: dict[str, str | None] = {one.metric.key: f"{100 * one.metric.margin:g}%" for one in chosen}
    most = max((one.pairs or _MOST_PAIRS for one in chosen), default=5)
    notes = ["Run to run, the pilot's runs of the baseline differed by (coefficient of variation):"]
    for one in found:
        needs = f"{one.pairs} pairs" if one.pairs is not None else "more pairs than are worth it"
        notes.append(
            f"  {one.metric.key} {100 * one.cv:.1f} %: a margin of {100 * one.metric.margin:g} % needs {needs}"
        )
    # Half of them at the first look, all with the extension.
    return metrics, min(max(5, math.ceil(most / 2)), _MOST_PAIRS), notes
