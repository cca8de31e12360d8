"""How often a whole policy is right, by simulation: all of its metrics together, in pairs or against stored nights.

A policy with a `window` is simulated as a nightly gate uses it: NIGHT_RUNS runs of tonight against as many of each
earlier night, up to the window, with the trend taken into account. Runs of one night may have a shift in common, which
no test of a few nights can tell from a change. What decides is what judges real runs (`operating_curve`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tailgate.reports.stats.between_runs import POWER, drifting
from tailgate.reports.stats.sequential_design import Design
from tailgate.reports.verdicts.gate.operating_curve import Frequency, Outcomes, decide, differences, look
from tailgate.reports.verdicts.gate.policy import Policy
from tailgate.workloads.common.arrays import Floats, Mask

# The run-to-run coefficient of variation that is reckoned with where nothing is known of it.
ORDINARY_SPREAD: Final = 0.04
NIGHT_RUNS: Final = 5
_MOST_SLOWDOWN: Final = 20.0


@dataclass(frozen=True)
class PolicyPoint:
    """What a policy does at one run-to-run spread."""

    spread: float
    nights: float  # coefficient of variation of what the runs of a night have in common; 0 where runs are paired
    passed: Frequency  # PASS, nothing changed
    failed: Frequency  # FAIL, nothing changed
    passed_at_margin: Frequency  # PASS where one metric is worse by its margin: the worst of them
    finds: float  # true slowdown of one metric that FAILs in POWER of cases: the worst of them, as a fraction


def policy_point(policy: Policy, spread: float, sets: int, nights: float = 0.0) -> PolicyPoint:
    """Simulate one spread."""
    noise = _noise(policy, [spread] * len(policy.tests()), nights, sets)
    same = _outcomes(policy, noise, 0, 0.0)
    metrics = [metric for _, metric in policy.tests()]
    at_margin = [_outcomes(policy, noise, place, m.log_margin).passed for place, m in enumerate(metrics)]
    return PolicyPoint(
        spread, nights, _rate(same.passed), _rate(same.failed), max(map(_rate, at_margin), key=lambda rate: rate.share),
        _found(policy, noise),
    )  # fmt: skip


def finds(policy: Policy, spread: float | Mapping[str, float] = ORDINARY_SPREAD, sets: int = 4000) -> float:
    """The true slowdown, as a fraction, that FAILs in POWER of cases, whichever metric has it.

    `spread` is the run-to-run coefficient of variation, of all metrics or of each by its key.
    """
    keys = [metric.key for _, metric in policy.tests()]
    each = [spread if isinstance(spread, float) else spread[key] for key in keys]
    return _found(policy, _noise(policy, each, 0.0, sets))


def _rate(mask: Mask) -> Frequency:
    return Frequency(int(np.count_nonzero(mask)), len(mask))


def _noise(policy: Policy, spreads: Sequence[float], nights: float, sets: int) -> list[Floats]:
    """Of each metric: differences of pairs, or the stored runs' logarithms, oldest first, tonight's last."""
    most = policy.extended or policy.pairs
    if policy.window is None:
        return [differences(sets, most, spread, 0.0, 0.0, place) for place, spread in enumerate(spreads)]
    rng, runs = np.random.default_rng(0), policy.window + NIGHT_RUNS
    each = []
    for spread in spreads:
        shared = nights * rng.standard_normal((sets, -(-runs // NIGHT_RUNS)))
        each.append(spread * rng.standard_normal((sets, runs)) + np.repeat(shared, NIGHT_RUNS, axis=1)[:, -runs:])
    return each


def _outcomes(policy: Policy, noise: list[Floats], slower: int, log_slowdown: float) -> Outcomes:
    """The verdicts where one metric is worse by so much and the others are as they were."""
    shifts = [log_slowdown if place == slower else 0.0 for place in range(len(noise))]
    margins = [metric.log_margin for _, metric in policy.tests()]
    if policy.window is None:
        data = [(d + shift, margin) for d, shift, margin in zip(noise, shifts, margins, strict=True)]
        return decide(data, Design(policy.pairs, policy.extended))
    at = -(np.arange(policy.window + NIGHT_RUNS)[::-1] // NIGHT_RUNS).astype(np.float64)
    w = policy.window
    estimates = [
        drifting(d[:, :w], at[:w], d[:, w:] + shift, at[w:]) for d, shift in zip(noise, shifts, strict=True)
    ]  # fmt: skip
    passed, failed = look(estimates, margins, Design(len(at), paired=False))
    return Outcomes(passed, failed, passed, failed)


def _found(policy: Policy, noise: list[Floats]) -> float:
    return max(_found_of(policy, noise, place) for place in range(len(noise)))


def _found_of(policy: Policy, noise: list[Floats], slower: int) -> float:
    """By bisection: on the same noise a larger slowdown fails wherever a smaller one does."""
    low, high = 0.0, float(np.log(_MOST_SLOWDOWN))
    while high - low > 1e-4:
        middle = (low + high) / 2
        seen = _outcomes(policy, noise, slower, middle).failed.mean() >= POWER
        low, high = (low, middle) if seen else (middle, high)
    return float(np.expm1(high))
