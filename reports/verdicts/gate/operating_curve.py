"""The gate's operating curve: how often its decision is right, by simulation over a grid of conditions.

Every set of runs is drawn in logarithms: a run's figure is the truth, a drift over the whole gate that both sides
share, and noise of the given run-to-run spread, which may be correlated from run to run (first-order autoregressive
in the order in which they are made: AB, BA, AB, ...). What decides is what judges real runs: `between_runs.paired`,
`comparison.passes`, `sequential_design.Design`; Holm's procedure is spelled out for all sets at once.

For the error rule every set has a share of failing requests a run: the truth, or (errors come in bursts)
gamma-distributed about it, with a given coefficient of variation from run to run. `reports.stats.proportions` decides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Final

import numpy as np

from tailgate.reports.stats.between_runs import Shift, paired, t_point
from tailgate.reports.stats.order_statistics import share_bounds
from tailgate.reports.stats.proportions import Counts, fisher_more, p_more_by_runs
from tailgate.reports.stats.sequential_design import Design
from tailgate.reports.verdicts.gate.comparison import passes
from tailgate.reports.verdicts.gate.error_rule import ERROR_TAIL
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
# Of the error rule: requests a run, and the share of the baseline's that fail.
REQUESTS: Final = 1000
SHARE: Final = 0.01
# Coefficients of variation of the runs' shares beyond chance, and the candidate's share in multiples of the baseline's.
BURSTS: Final = (0.0, 1.0, 2.0)
TIMES: Final = (1.0, 2.0, 3.0)
ALLOWED: Final = 0.001


@dataclass(frozen=True)
class Frequency:
    """How often something happened among the simulated sets, with an exact 95 % interval (Clopper and Pearson)."""

    hits: int
    sets: int

    @property
    def share(self) -> float:
        return self.hits / self.sets

    @property
    def interval(self) -> tuple[float, float]:
        return share_bounds(self.hits, self.sets, tail=0.025)


@dataclass(frozen=True)
class CurvePoint:
    """One condition and what came of it."""

    design: Design
    spread: float  # run-to-run coefficient of variation
    drift: float  # over the whole gate, shared by both sides
    correlation: float  # of successive runs' noise
    slowdown: float  # the truth, as a fraction
    margin: float  # what was acceptable
    # verdicts, at the last look that was needed
    passed: Frequency
    failed: Frequency
    unsure: Frequency
    # at the first look
    passed_first: Frequency
    failed_first: Frequency


def grid(sets: int = SETS, seed: int = 0, margin: float = MARGIN) -> Iterator[CurvePoint]:
    """Every condition of the grid, one metric of `margin`."""
    for spread, drift, correlation in product(SPREADS, DRIFTS, CORRELATIONS):
        most = max(design.extended or design.pairs for design in DESIGNS)
        noise = differences(sets, most, spread, drift, correlation, seed)
        for design, effect in product(DESIGNS, EFFECTS):
            slowdown = effect * margin
            outcome = decide([(noise + np.log1p(slowdown), np.log1p(margin))], design)
            yield _curve_point(design, spread, drift, correlation, slowdown, margin, outcome)


def single_condition(
    design: Design, spread: float, slowdown: float, margin: float = MARGIN, sets: int = SETS, seed: int = 0
) -> CurvePoint:
    """One condition without drift or correlation."""
    noise = differences(sets, design.extended or design.pairs, spread, 0.0, 0.0, seed)
    outcome = decide([(noise + np.log1p(slowdown), np.log1p(margin))], design)
    return _curve_point(design, spread, 0.0, 0.0, slowdown, margin, outcome)


def whole_policy(policy: Policy, spread: float, sets: int = SETS, seed: int = 0) -> CurvePoint:
    """All metrics of a policy together, nothing changed; the metrics' noise is independent, which is the worst case."""
    design = Design(policy.pairs, policy.extended)
    most = design.extended or design.pairs
    metrics: Sequence[tuple[str, GateMetric]] = policy.tests()
    data = [
        (differences(sets, most, spread, 0.0, 0.0, seed + place), metric.log_margin)
        for place, (_, metric) in enumerate(metrics)
    ]
    return _curve_point(design, spread, 0.0, 0.0, 0.0, metrics[0][1].margin, decide(data, design))


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
    margins = [margin for _, margin in data]
    passed, failed = look(
        [paired(d[:, : design.pairs]) for d, _ in data], margins, Design(design.pairs, design.extended)
    )
    first = passed, failed
    if design.extended is not None:
        second = Design(design.pairs, design.extended, look=2)
        again = look([paired(d[:, : design.extended]) for d, _ in data], margins, second)
        open_still = ~(passed | failed)
        passed, failed = passed | (open_still & again[0]), failed | (open_still & again[1])
    return Outcomes(passed, failed, *first)


def look(shifts: Sequence[Shift], margins: Sequence[float], design: Design) -> tuple[Mask, Mask]:
    """(PASS, FAIL) by set, from each metric's shift over all sets."""
    from scipy.special import stdtr

    point = t_point(design.pass_tail(), shifts[0].df)
    all_pass = np.logical_and.reduce([passes(s, m, point) for s, m in zip(shifts, margins, strict=True)])
    # Holm, for all sets at once: p-values in rising order, each against its own level.
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.stack([stdtr(s.df, -s.mean / s.error) for s in shifts])
    order = np.argsort(p, axis=0)
    levels = np.array([design.fail_tail(len(shifts) - step) for step in range(len(shifts))])
    rejected = np.logical_and.accumulate(np.take_along_axis(p, order, 0) < levels[:, None], axis=0)
    beyond = np.stack([s.mean >= m for s, m in zip(shifts, margins, strict=True)])
    any_fail = (rejected & np.take_along_axis(beyond, order, 0)).any(axis=0)
    return all_pass & ~any_fail, any_fail


def _curve_point(
    design: Design, spread: float, drift: float, correlation: float, slowdown: float, margin: float, outcomes: Outcomes
) -> CurvePoint:
    def rate(mask: Mask) -> Frequency:
        return Frequency(int(np.count_nonzero(mask)), len(mask))

    return CurvePoint(
        design, spread, drift, correlation, slowdown, margin,
        passed=rate(outcomes.passed), failed=rate(outcomes.failed), unsure=rate(~(outcomes.passed | outcomes.failed)),
        passed_first=rate(outcomes.passed_first), failed_first=rate(outcomes.failed_first),
    )  # fmt: skip


@dataclass(frozen=True)
class ErrorCurvePoint:
    """One condition: `bursts` is the shares' CV, `times` how many times as many fail; and how often that FAILs."""

    design: Design
    bursts: float
    times: float
    failed: Frequency


def error_grid(sets: int, seed: int = 0) -> Iterator[ErrorCurvePoint]:
    """Every condition, REQUESTS a run, SHARE of the baseline's failing.

    A fifth of the sets do where more fail: what is found there needs no third digit, and takes the longest.
    """
    most = max(design.extended or design.pairs for design in DESIGNS)
    for bursts in BURSTS:
        baseline = _failures(sets, most, bursts, SHARE, seed)
        for times in TIMES:
            some = sets if times == 1 else max(sets // 5, 1)
            candidate = _failures(some, most, bursts, times * SHARE, seed + 1)
            for design in DESIGNS:
                failed = failing(baseline[:some], candidate, design)
                yield ErrorCurvePoint(design, bursts, times, Frequency(int(np.count_nonzero(failed)), some))


def _failures(sets: int, pairs: int, bursts: float, share: float, seed: int) -> Floats:
    rng = np.random.default_rng([seed, round(10 * bursts), round(1e4 * share)])
    each = rng.gamma(1 / bursts**2, share * bursts**2, (sets, pairs)) if bursts else np.full((sets, pairs), share)
    return rng.binomial(REQUESTS, np.minimum(each, 1.0)).astype(np.float64)


def failing(baseline: Floats, candidate: Floats, design: Design) -> Mask:
    """Which sets FAIL at any look: a look's part of the error, and more than is allowed."""
    failed = np.zeros(len(baseline), np.bool_)
    for pairs in (design.pairs, design.extended):
        if pairs is not None:
            failed |= _errors_fail(baseline[:, :pairs], candidate[:, :pairs], ERROR_TAIL / design.looks)
    return failed


def _errors_fail(baseline: Floats, candidate: Floats, tail: float) -> Mask:
    trials = np.full(baseline.shape, float(REQUESTS))
    sides: list[Counts] = [(baseline, trials), (candidate, trials)]
    more = (candidate.sum(-1) - baseline.sum(-1)) / trials.sum(-1)
    failed = np.asarray((p_more_by_runs([sides]) <= tail) & (more > 0) & (more >= ALLOWED))
    n = baseline.shape[1] * REQUESTS
    for place in np.flatnonzero(failed):
        failed[place] = fisher_more((int(baseline[place].sum()), n), (int(candidate[place].sum()), n)) <= tail
    return failed
