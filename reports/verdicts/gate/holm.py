"""All comparisons together: which of them FAIL (Holm 1979), and what would settle those that can't be told.

Holm's step-down procedure takes the p-values in rising order, each against the budget divided by how many are left,
and stops at the first that is too large. What comes after it would have had to beat the same level, so that is
the level it has: it FAILs exactly if `p < holm` and its estimate reaches the margin.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from tailgate.reports.stats.between_runs import Shift, detectable, pairs_to_settle
from tailgate.reports.stats.sequential_design import Design
from tailgate.reports.verdicts.gate.comparison import Compared, MetricVerdict


def holm(found: Sequence[Compared], design: Design) -> list[MetricVerdict]:
    """Decide which of the comparisons FAIL, over all that have a p-value."""
    order = sorted((place for place, one in enumerate(found) if one.verdict.p is not None), key=lambda i: _p(found[i]))
    decided = [one.verdict for one in found]
    level = 0.0
    stopped = False
    for step, place in enumerate(order):
        if not stopped:
            level = design.fail_tail(len(order) - step)
            stopped = _p(found[place]) >= level
        decided[place] = _decided(found[place], level, design, len(order))
    return decided


def _p(one: Compared) -> float:
    return 1.0 if one.verdict.p is None else one.verdict.p


def _decided(one: Compared, level: float, design: Design, among: int) -> MetricVerdict:
    told, p = replace(one.verdict, holm=level), _p(one)
    if one.beyond and p < level:
        told = replace(told, result="fail", remedy="")
    elif one.beyond and p < design.fail_tail():
        why = f"alone it would be a FAIL (p = {p:.2g}); as one of {among} metrics it needs p < {level:.2g} (Holm)"
        told = replace(told, why=f"{told.why}; {why}" if told.why else why)
    if one.shift is None:
        return told
    seen = detectable(one.shift, one.margin, level)
    settle = _settle(one.shift, one.margin, (design.pass_tail(), level))
    return replace(
        told, detectable=math.exp(-seen if told.higher else seen),
        settle_pairs=settle if told.result == "can't tell" and not told.remedy else None,
    )  # fmt: skip


def _settle(shift: Shift, margin: float, tails: tuple[float, float]) -> int | None:
    deviation = float(shift.error) * math.sqrt(shift.n)
    return pairs_to_settle(deviation, float(shift.mean), margin, tails, shift.df / (shift.n - 1))
