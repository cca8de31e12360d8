"""How much error a gate may make, and at which look at the data.

One look: 5 % for a wrong PASS, 2.5 % for a wrong FAIL. Two looks (an extension that was declared beforehand):
the same in total, a part of it spent at the first. The second look's part is what the first one left, worked
out from the joint distribution of both looks' t-statistics: they share the first pairs, so it is more than the
plain difference. Sequential tests in this manner: Pocock (1977), Lan and DeMets (1983).

Interleaved pairs spend less than they may on a PASS. The order AB, BA, AB cancels drift, but where a run resembles
the one before it (correlation r) it puts the last of one pair next to the first of the other on the same side, and
neighbouring differences are correlated by r (1 - r) / 2, at most 1/8: the t-test then errs more often than it says.
With a nominal 3.3 % it stays below 5 % whatever r is; `tailgate gate --self-test` shows it.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np

PASS_ERROR: Final = 0.05
FAIL_ERROR: Final = 0.025
PASS_ERROR_PAIRED: Final = 0.033
# Parts of the budgets spent at the first of two looks. docs/gate-operating-tables.md has the operating curve they give.
PASS_FIRST: Final = 0.5
FAIL_FIRST: Final = 0.6
_NODES: Final = 40


@dataclass(frozen=True)
class Design:
    """Pairs at the first look, and at the second if there may be one."""

    pairs: int  # at the first look
    extended: int | None = None  # at the second, all together; None without an extension
    look: Literal[1, 2] = 1
    paired: bool = True  # interleaved pairs, not stored runs

    @property
    def looks(self) -> int:
        return 1 if self.extended is None else 2

    def pass_tail(self) -> float:
        """Nominal one-sided error of the bound that a PASS needs, at this look."""
        return self._tail(PASS_ERROR_PAIRED if self.paired else PASS_ERROR, PASS_FIRST)

    def fail_tail(self, among: int = 1) -> float:
        """Nominal one-sided error of the bound that a FAIL needs; divided by the hypotheses that Holm has left."""
        return self._tail(FAIL_ERROR / among, FAIL_FIRST)

    def _tail(self, budget: float, first_part: float) -> float:
        if self.extended is None:
            return budget
        if self.look == 1:
            return budget * first_part
        return second_tail(self.pairs, self.extended, budget * first_part, budget)


@lru_cache(maxsize=256)
def second_tail(n: int, total_n: int, first: float, budget: float) -> float:
    """Nominal error at the second look such that both looks together err in `budget` of cases.

    The second look's t-statistic is of all `total_n` pairs, of which the first `n` made the first look.
    """
    from scipy.special import stdtrit

    low, high = max(budget - first, 1e-9), budget
    for _ in range(24):
        middle = (low + high) / 2
        spent = first + _only_second(n, total_n, float(stdtrit(n - 1, 1 - first)), middle)
        low, high = (low, middle) if spent > budget else (middle, high)
    return low


def _only_second(n: int, total_n: int, point: float, tail: float) -> float:
    """P(first t <= point and second t > its point for `tail`), when the true difference is what is tested.

    With U the scaled mean of all, V the contrast of the two parts (both standard normal), W1 and W2 the parts'
    sums of squares (chi-square), the second statistic exceeds its point where U > lower(V, W1, W2) and the first
    one doesn't where U <= upper(V, W1): U is integrated in closed form, the others by quadrature.
    """
    from scipy.special import chdtri, ndtr, ndtri, stdtrit

    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    u, w = (nodes + 1) / 2, weights / 2
    more = total_n - n
    v = ndtri(u)[:, None, None]
    w1 = chdtri(n - 1, 1 - u)[None, :, None]
    # A single further pair has no sum of squares of its own.
    w2 = chdtri(more - 1, 1 - u)[None, None, :] if more > 1 else np.zeros((1, 1, 1))
    weight = w[:, None, None] * w[None, :, None] * (w[None, None, :] if more > 1 else 1.0)
    lower = float(stdtrit(total_n - 1, 1 - tail)) * np.sqrt((v * v + w1 + w2) / (total_n - 1))
    upper = (point * np.sqrt(w1 / (n - 1)) - v * math.sqrt(more / total_n)) / math.sqrt(n / total_n)
    return float((weight * np.maximum(ndtr(upper) - ndtr(lower), 0.0)).sum())
