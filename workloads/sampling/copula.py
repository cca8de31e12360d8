"""Pairs of uniform numbers with a given rank correlation: the Gaussian copula.

Two standard normals with correlation r have Spearman's rho = (6/pi) asin(r/2) (Pearson, "On further methods
of determining correlation", 1907), so r = 2 sin(pi rho / 6). Pushed through the normal distribution function
and two quantile functions they keep that rank correlation, whatever the laws.
"""

from typing import Final

import numpy as np

from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.sampling import portable_math

_PI: Final = 3.141592653589793


def correlated(first: Floats, second: Floats, spearman: float) -> Floats:
    """Uniform numbers made of `second` with the given rank correlation to `first`; both in (0, 1).

    Pure arithmetic of the arguments: position by position, repeatable on every machine.
    """
    r = 2.0 * _sine(_PI * spearman / 6.0)
    mixed = r * portable_math.normal_quantile(first) + np.sqrt(1.0 - r * r) * portable_math.normal_quantile(second)
    return np.clip(portable_math.normal_probability(mixed), 2.0**-53, 1.0 - 2.0**-53)


def _sine(x: float) -> float:
    """sin x for |x| <= pi/6, by its series (a library's may differ in the last bit)."""
    term = total = x
    for k in range(1, 12):
        term *= -x * x / ((2 * k) * (2 * k + 1))
        total += term
    return total
