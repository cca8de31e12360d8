"""A slow random change of the rate (`arrivals.rate.Modulated`: log-normal, Ornstein-Uhlenbeck) from counts in bins.

Counts are observations of a hidden log rate, a linear state-space model after taking logarithms; Kalman filter, maximum
likelihood, observed information (Durbin and Koopman, "Time Series Analysis by State Space Methods", 2012, ch. 2, 7).
"""

from math import exp, log
from typing import Any, Final

import numpy as np

from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.fit.arrivals.binned_counts import Counts, averaged_variance
from tailgate.workloads.fit.goodness_of_fit import FittedValue, log_normal

_LEAST_CV: Final = 0.02
_MOST_ERROR: Final = 1.0


def fit_modulation(counts: Counts) -> tuple[FittedValue, FittedValue] | None:
    """Coefficient of variation and correlation time (s), or None where the likelihood has no summit.

    A summit doesn't count where bins can't resolve it: a correlation time below their width, a coefficient of variation
    of a few per cent, or an uncertainty of more than a factor of e.
    """
    from scipy.optimize import minimize

    def loss(parameters: Floats) -> float:
        return -_log_likelihood(counts, parameters)

    optimum = minimize(
        loss, _first_guess(counts), method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-3, "maxiter": 1000}
    )
    if not optimum.success:
        return None
    try:
        covariance = np.linalg.inv(_hessian(loss, optimum.x))
    except np.linalg.LinAlgError:
        return None
    variances = np.diag(covariance)
    if not (variances > 1e-9).all() or not (np.sqrt(variances[1:]) < _MOST_ERROR).all():
        return None
    s, tau = (float(np.exp(value)) for value in optimum.x[1:])
    if tau < counts.width_s or s < _LEAST_CV:
        return None
    # cv = sqrt(exp(s^2) - 1); d ln cv / d ln s = s^2 exp(s^2) / (exp(s^2) - 1).
    slope = s * s * float(np.exp(s * s)) / float(np.expm1(s * s))
    log_cv, cv_error = 0.5 * float(np.log(np.expm1(s * s))), slope * float(np.sqrt(variances[1]))
    # The log's own mean is fitted too, which takes what varies over the whole of it out of the variance.
    log_cv -= 0.5 * float(np.log1p(-averaged_variance(counts.span_s / tau)))
    # What is known of the slow process is known from few independent pieces of it; pieces of four correlation times
    # are what makes the intervals cover (tests/bench/bench_fit.py).
    freedom = max(counts.span_s / (4.0 * tau), 3.0)
    # The speed of return 1/tau comes out too large by 4/span on average where the mean is fitted too
    # (Tang and Chen, "Parameter estimation and bias correction for diffusion processes", J. Econometrics 149, 2009).
    speed = max(1.0 / tau - 4.0 / counts.span_s, 0.2 / tau)
    return (
        log_normal(log_cv, cv_error, freedom),
        log_normal(-float(np.log(speed)), float(np.sqrt(variances[2])), freedom),
    )


def _first_guess(counts: Counts) -> Floats:
    centred = counts.values / counts.expected - 1.0
    variance = max(float(centred.var()) - counts.noise * float((1.0 / counts.expected).mean()), 1e-3)
    lagged = [float((centred[:-lag] * centred[lag:]).mean()) for lag in range(1, len(centred) // 8)]
    below = next((lag for lag, value in enumerate(lagged, start=1) if value < variance / np.e), len(lagged) + 1)
    s = np.sqrt(np.log1p(variance))
    return np.array([-s * s / 2, np.log(s), np.log(max(below, 0.7) * counts.width_s)])


def _log_likelihood(counts: Counts, parameters: Floats) -> float:
    """The log-likelihood of (mean log factor, log s, log correlation time).

    log((count + noise / 2) / expected) = mu + s z + error; the error's variance is noise / expected count, the expected
    count that of the rate predicted from the bins before.
    """
    mu, s, tau = float(parameters[0]), float(np.exp(parameters[1])), float(np.exp(parameters[2]))
    width, noise = counts.width_s, counts.noise
    if not (1e-4 < s < 3.0 and width / 50 < tau < 1e4 * counts.span_s):
        return -1e12
    x = width / tau
    keep = float(np.exp(-x))
    # The hidden state z is the process at a bin's beginning, a count sees its mean over the bin:
    # z' = keep z + e1, mean = b z + e2, with the covariances of an Ornstein-Uhlenbeck process and its integral.
    b = (1.0 - keep) / x
    var_1, var_2, cov_12 = 1.0 - keep * keep, averaged_variance(x) - b * b, b * (1.0 - keep)
    # The logarithm of a mean is more than the mean of logarithms, by half the variance within the bin.
    mu += s * s * (1.0 - averaged_variance(x)) / 2.0
    # E ln(count + noise/2) is ln(mean) up to second order where the count's variance is noise * mean.
    seen_all = np.log((counts.values + noise / 2.0) / counts.expected) - mu
    level, sb = float(np.exp(mu)), s * b
    state, variance, total = 0.0, 1.0, 0.0
    for seen, expected in zip(seen_all.tolist(), counts.expected.tolist(), strict=True):
        error = noise / max(expected * level * exp(sb * state), 0.5)
        innovation = seen - sb * state
        spread = sb * sb * variance + s * s * var_2 + error
        total -= 0.5 * (innovation * innovation / spread + log(spread))
        both = s * (keep * b * variance + cov_12)
        state = keep * state + both / spread * innovation
        variance = keep * keep * variance + var_1 - both * both / spread
    return total


def _hessian(function: Any, at: Floats) -> Floats:
    n, h = len(at), 1e-2
    out = np.empty((n, n))
    steps = np.eye(n) * h
    for i in range(n):
        for j in range(i, n):
            value = (
                function(at + steps[i] + steps[j])
                - function(at + steps[i] - steps[j])
                - function(at - steps[i] + steps[j])
                + function(at - steps[i] - steps[j])
            ) / (4 * h * h)
            out[i, j] = out[j, i] = value
    return out
