"""The error rule's part of the operating curve: how often it FAILs by chance, and how often it finds more errors.

Every set of runs has a share of failing requests a run: the truth, or (errors come in bursts) gamma-distributed about
it, with a given coefficient of variation from run to run. What decides is `reports.stats.proportions`, as for real
runs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from tailgate.reports.stats.proportions import Counts, fisher_more, p_more_by_runs
from tailgate.reports.stats.sequential_design import Design
from tailgate.reports.verdicts.gate.error_rule import ERROR_TAIL
from tailgate.reports.verdicts.gate.operating_curve import DESIGNS, Rate
from tailgate.workloads.common.arrays import Floats, Mask

REQUESTS: Final = 1000
SHARE: Final = 0.01
# Coefficients of variation of the runs' shares beyond chance, and the candidate's share in multiples of the baseline's.
BURSTS: Final = (0.0, 1.0, 2.0)
TIMES: Final = (1.0, 2.0, 3.0)
ALLOWED: Final = 0.001


@dataclass(frozen=True)
class ErrorCell:
    """One condition: `bursts` is the shares' CV, `times` how many times as many fail; and how often that FAILs."""

    design: Design
    bursts: float
    times: float
    failed: Rate


def error_grid(sets: int, seed: int = 0) -> Iterator[ErrorCell]:
    """Every condition, REQUESTS a run, SHARE of the baseline's failing.

    A fifth of the sets do where more fail: what is found there needs no third digit, and takes the longest.
    """
    most = max(design.extended or design.pairs for design in DESIGNS)
    for bursts in BURSTS:
        base = _failures(sets, most, bursts, SHARE, seed)
        for times in TIMES:
            some = sets if times == 1 else max(sets // 5, 1)
            other = _failures(some, most, bursts, times * SHARE, seed + 1)
            for design in DESIGNS:
                failed = failing(base[:some], other, design)
                yield ErrorCell(design, bursts, times, Rate(int(np.count_nonzero(failed)), some))


def _failures(sets: int, pairs: int, bursts: float, share: float, seed: int) -> Floats:
    rng = np.random.default_rng([seed, round(10 * bursts), round(1e4 * share)])
    each = rng.gamma(1 / bursts**2, share * bursts**2, (sets, pairs)) if bursts else np.full((sets, pairs), share)
    return rng.binomial(REQUESTS, np.minimum(each, 1.0)).astype(np.float64)


def failing(base: Floats, other: Floats, design: Design) -> Mask:
    """Which sets FAIL at any look: a look's part of the error, and more than is allowed."""
    failed = np.zeros(len(base), np.bool_)
    for pairs in (design.pairs, design.extended):
        if pairs is not None:
            failed |= _look(base[:, :pairs], other[:, :pairs], ERROR_TAIL / design.looks)
    return failed


def _look(base: Floats, other: Floats, tail: float) -> Mask:
    trials = np.full(base.shape, float(REQUESTS))
    sides: list[Counts] = [(base, trials), (other, trials)]
    more = (other.sum(-1) - base.sum(-1)) / trials.sum(-1)
    failed = np.asarray((p_more_by_runs([sides]) <= tail) & (more > 0) & (more >= ALLOWED))
    n = base.shape[1] * REQUESTS
    for place in np.flatnonzero(failed):
        failed[place] = fisher_more((int(base[place].sum()), n), (int(other[place].sum()), n)) <= tail
    return failed
