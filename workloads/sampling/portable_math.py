"""Logarithm, exponential, normal quantile and the like, with the same bits on every machine.

NumPy's and libm's own differ in the last bit between processors (AVX-512, FMA, another libc), and a plan
must not. Everything here is made of IEEE 754 additions, multiplications, divisions and square roots, one
NumPy operation each (so no compiler can fuse two), which are exactly rounded everywhere. Accuracy is a few
units in the last place: enough for sampling, not meant as a mathematics library.
"""

from functools import cache
from typing import Final

import numpy as np

from tailgate.workloads.common.arrays import Floats

_LN2_HI: Final = 6.93147180369123816490e-01  # ln 2 in two parts: the first has 33 bits, so k * _LN2_HI is exact
_LN2_LO: Final = 1.90821492927058770002e-10
_LOG_TERMS: Final = tuple(2.0 / (2 * i + 1) for i in range(1, 12))
_EXP_TERMS: Final = tuple(
    1.0 / f for f in (1, 1, 2, 6, 24, 120, 720, 5040, 40320, 362880, 3628800, 39916800, 479001600, 6227020800)
)


def log(x: Floats) -> Floats:
    """Natural logarithm of positive, finite, normal numbers, any shape."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < np.sqrt(0.5)
    mantissa = np.where(low, mantissa * 2.0, mantissa)
    k = (exponent - low).astype(np.float64)
    # atanh series: log m = 2 (z + z^3/3 + ...), z = (m-1)/(m+1), |z| <= 0.1716
    z = (mantissa - 1.0) / (mantissa + 1.0)
    square = z * z
    tail = np.full_like(z, _LOG_TERMS[-1])
    for term in reversed(_LOG_TERMS[:-1]):
        tail *= square
        tail += term
    tail *= square * z
    value: Floats = k * _LN2_HI + (2.0 * z + (tail + k * _LN2_LO))
    return value


def exp(x: Floats) -> Floats:
    """e to the x; x is taken into [-700, 700]."""
    x = np.clip(x, -700.0, 700.0)
    k = np.rint(x * 1.4426950408889634)
    rest = (x - k * _LN2_HI) - k * _LN2_LO
    value = np.full_like(rest, _EXP_TERMS[-1])
    for term in reversed(_EXP_TERMS[:-1]):
        value *= rest
        value += term
    return np.ldexp(value, k.astype(np.int64))


def power(x: Floats, exponent: float) -> Floats:
    """x to the exponent, for positive x; powers too small for a double come out as e^-700."""
    return exp(log(x) * exponent)


# Wichura, "Algorithm AS 241: The Percentage Points of the Normal Distribution", Applied Statistics 37 (1988).
_CENTRE: Final = (
    (
        3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
        4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3,
    ),
    (
        1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
        2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3,
    ),
)  # fmt: skip
_MIDDLE: Final = (
    (
        1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
        1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4,
    ),
    (
        1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
        1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9,
    ),
)  # fmt: skip
_TAIL: Final = (
    (
        6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
        2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7,
    ),
    (
        1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
        7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15,
    ),
)  # fmt: skip


def normal_quantile(p: Floats) -> Floats:
    """The standard normal value with probability p below it; p in (0, 1)."""
    q = p - 0.5
    value = q * _ratio(_CENTRE, 0.180625 - q * q)
    out = np.abs(q) > 0.425
    if out.any():
        tail_p = p[out]
        r = np.sqrt(-log(np.minimum(tail_p, 1.0 - tail_p)))
        far = np.where(r <= 5.0, _ratio(_MIDDLE, r - 1.6), _ratio(_TAIL, r - 5.0))
        value[out] = np.where(q[out] < 0, -far, far)
    return value


def normal_probability(z: Floats) -> Floats:
    """The probability below z of a standard normal; the inverse of `normal_quantile` to about 1e-15.

    A linear guess from a table of the quantile function, refined by two Newton steps with the normal density.
    """
    z = np.clip(z, -8.0, 8.0)
    p = np.clip(interpolate(z, *_table()), 1e-15, 1.0 - 1e-15)
    for _ in range(2):
        error = normal_quantile(p) - z
        density = exp(-0.5 * z * z) * 0.3989422804014327
        p = np.clip(p - error * density, 1e-15, 1.0 - 1e-15)
    return p


def interpolate(x: Floats, xs: Floats, ys: Floats) -> Floats:
    """Piecewise-linear through (xs, ys), xs ascending; ends are held. Like `np.interp`, but repeatable.

    Where xs has a repeated value (a jump), its last point counts.
    """
    slot = np.clip(np.searchsorted(xs, x, side="right") - 1, 0, len(xs) - 2)
    left, width = xs[slot], xs[slot + 1] - xs[slot]
    share = np.divide(x - left, width, out=np.zeros_like(x), where=width > 0)
    share = np.clip(share, 0.0, 1.0)
    low = ys[slot]
    return low + share * (ys[slot + 1] - low)


def gamma_function(x: float) -> float:
    return float(exp(np.array([log_gamma_function(x)]))[0])


def log_gamma_function(x: float) -> float:
    """ln Gamma(x) for x > 0: Stirling's series after shifting x above 20 (absolute error below 1e-14)."""
    shift = 1.0
    while x < 20.0:
        shift *= x
        x += 1.0
    inverse = 1.0 / x
    square = inverse * inverse
    series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680)))
    log_x, log_shift = log(np.array([x, shift])).tolist()
    return float((x - 0.5) * log_x - x + 0.9189385332046727 + series - log_shift)


def _ratio(terms: tuple[tuple[float, ...], tuple[float, ...]], r: Floats) -> Floats:
    top, bottom = (np.full_like(r, t[-1]) for t in terms)
    for above, below in zip(reversed(terms[0][:-1]), reversed(terms[1][:-1]), strict=True):
        top *= r
        top += above
        bottom *= r
        bottom += below
    return top / bottom


@cache
def _table() -> tuple[Floats, Floats]:
    half = exp(-np.linspace(1.0, 50.0, 2000) * (_LN2_HI + _LN2_LO))
    p = np.concatenate([half[::-1], (1.0 - half)[1:]])
    p = np.unique(np.concatenate([p, np.linspace(0.001, 0.999, 4001)]))
    return normal_quantile(p), p
