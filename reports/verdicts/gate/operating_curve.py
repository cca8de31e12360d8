"""The gate's operating curve: how often its decision is right, by simulation over a grid of conditions.

Every set of runs is drawn in logarithms: a run's figure is the truth, a drift over the whole gate that both sides
share, and noise of the given run-to-run spread, which may be correlated from run to run (first-order autoregressive
in the order in which they are made: AB, BA, AB, ...). What decides is what judges real runs: `gate_stats.paired`,
`gate_compare.passes`, `gate_design.Design`; Holm's procedure is spelled out for all sets at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Final

import numpy as np

from tailgate.reports.stats.between_runs import paired, t_point
from tailgate.reports.stats.order_statistics import share_bounds
from tailgate.reports.stats.sequential_design import Design
from tailgate.reports.verdicts.gate.comparison import passes
from tailgate.reports.verdicts.gate.metrics import GateMetric
from tailgate.reports.verdicts.gate.policy import Policy
from tailgate.workloads.common.arrays import Floats, Mask

SPREADS: Final = (0.01, 0.02, 0.04, 0.08)
DRIFTS: Final = (0.0, 0.03)
CORRELATIONS: Final = (0.0, 0.5)
# True slowdowns, in margins.
EFFECTS: Final = (0.0, 0.5, 1.0, 1.5, 2.0)
# One look at 3, 5 and 10 pairs; and five with the extension to ten, as a policy has it unless it says otherwise.
DESIGNS: Final = (Design(3), Design(5), Design(10), Design(5, 10))
MARGIN: Final = 0.05
SETS: Final = 20_000


@dataclass(frozen=True)
class Rate:
    """How often something happened among the simulated sets, with an exact 95 % interval."""

    hits: int
    sets: int

    @property
    def share(self) -> float:
        """Of all sets."""
        return self.hits / self.sets

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper and Pearson."""
        return share_bounds(self.hits, self.sets, tail=0.025)


@dataclass(frozen=True)
class Cell:
    """One condition and what came of it.

    Attributes:
        design: pairs and looks.
        spread: run-to-run coefficient of variation.
        drift: over the whole gate, shared by both sides.
        correlation: of successive runs' noise.
        slowdown: the truth, as a fraction.
        margin: what was acceptable.
        passed, failed, unsure: verdicts, at the last look that was needed.
        passed_first, failed_first: at the first look.
    """

    design: Design
    spread: float
    drift: float
    correlation: float
    slowdown: float
    margin: float
    passed: Rate
    failed: Rate
    unsure: Rate
    passed_first: Rate
    failed_first: Rate


def grid(sets: int = SETS, seed: int = 0, margin: float = MARGIN) -> Iterator[Cell]:
    """Every condition of the grid, one metric of `margin`."""
    for spread, drift, correlation in product(SPREADS, DRIFTS, CORRELATIONS):
        most = max(design.extended or design.pairs for design in DESIGNS)
        noise = differences(sets, most, spread, drift, correlation, seed)
        for design, effect in product(DESIGNS, EFFECTS):
            slowdown = effect * margin
            outcome = decide([(noise + np.log1p(slowdown), np.log1p(margin))], design)
            yield _cell(design, spread, drift, correlation, slowdown, margin, outcome)


def one(
    design: Design, spread: float, slowdown: float, margin: float = MARGIN, sets: int = SETS, seed: int = 0
) -> Cell:
    """One condition without drift or correlation."""
    noise = differences(sets, design.extended or design.pairs, spread, 0.0, 0.0, seed)
    outcome = decide([(noise + np.log1p(slowdown), np.log1p(margin))], design)
    return _cell(design, spread, 0.0, 0.0, slowdown, margin, outcome)


def whole_policy(policy: Policy, spread: float, sets: int = SETS, seed: int = 0) -> Cell:
    """All metrics of a policy together, nothing changed; the metrics' noise is independent, which is the worst case."""
    design = Design(policy.pairs, policy.extended)
    most = design.extended or design.pairs
    metrics: Sequence[tuple[str, GateMetric]] = policy.tests()
    data = [
        (differences(sets, most, spread, 0.0, 0.0, seed + place), metric.log_margin)
        for place, (_, metric) in enumerate(metrics)
    ]
    return _cell(design, spread, 0.0, 0.0, 0.0, metrics[0][1].margin, decide(data, design))


def differences(sets: int, pairs: int, spread: float, drift: float, correlation: float, seed: int) -> Floats:
    """Log-ratios of simulated pairs when nothing has changed; shape (sets, pairs)."""
    noise = spread * _standard(sets, 2 * pairs, correlation, seed)
    noise = noise + np.linspace(0.0, np.log1p(drift), 2 * pairs)
    runs = noise.reshape(sets, pairs, 2)
    # AB, BA, AB, ...: in every second pair the candidate goes first.
    turned = np.where(np.arange(pairs) % 2 == 0, 1.0, -1.0)
    return np.asarray((runs[:, :, 1] - runs[:, :, 0]) * turned)


@cache
def _standard(sets: int, runs: int, correlation: float, seed: int) -> Floats:
    """Standard normal noise of successive runs; shape (sets, runs)."""
    white = np.random.default_rng([seed, runs]).standard_normal((sets, runs))
    for place in range(1, runs):
        white[:, place] = correlation * white[:, place - 1] + np.sqrt(1 - correlation**2) * white[:, place]
    return white


@dataclass(frozen=True)
class Outcomes:
    """By set: PASS and FAIL at the last look needed, and at the first."""

    passed: Mask
    failed: Mask
    passed_first: Mask
    failed_first: Mask


def decide(data: Sequence[tuple[Floats, float]], design: Design) -> Outcomes:
    """The verdicts over (differences, log margin) of each metric; the same rules as for real runs."""
    passed, failed = _look(
        [(d[:, : design.pairs], margin) for d, margin in data], Design(design.pairs, design.extended)
    )
    first = passed, failed
    if design.extended is not None:
        second = Design(design.pairs, design.extended, look=2)
        again = _look([(d[:, : design.extended], margin) for d, margin in data], second)
        open_still = ~(passed | failed)
        passed, failed = passed | (open_still & again[0]), failed | (open_still & again[1])
    return Outcomes(passed, failed, *first)


def _look(data: Sequence[tuple[Floats, float]], design: Design) -> tuple[Mask, Mask]:
    from scipy.special import stdtr

    shifts = [paired(d) for d, _ in data]
    margins = [margin for _, margin in data]
    point = t_point(design.pass_tail(), shifts[0].df)
    all_pass = np.logical_and.reduce([passes(s, m, point) for s, m in zip(shifts, margins, strict=True)])
    # Holm, for all sets at once: p-values in rising order, each against its own level.
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.stack([stdtr(s.df, -s.mean / s.error) for s in shifts])
    order = np.argsort(p, axis=0)
    levels = np.array([design.fail_tail(len(data) - step) for step in range(len(data))])
    rejected = np.logical_and.accumulate(np.take_along_axis(p, order, 0) < levels[:, None], axis=0)
    beyond = np.stack([s.mean >= m for s, m in zip(shifts, margins, strict=True)])
    any_fail = (rejected & np.take_along_axis(beyond, order, 0)).any(axis=0)
    return all_pass & ~any_fail, any_fail


def _cell(
    design: Design, spread: float, drift: float, correlation: float, slowdown: float, margin: float, found: Outcomes
) -> Cell:
    def rate(mask: Mask) -> Rate:
        return Rate(int(np.count_nonzero(mask)), len(mask))

    return Cell(
        design, spread, drift, correlation, slowdown, margin,
        passed=rate(found.passed), failed=rate(found.failed), unsure=rate(~(found.passed | found.failed)),
        passed_first=rate(found.passed_first), failed_first=rate(found.failed_first),
    )  # fmt: skip
