"""The law of arrivals from their times: shape of the gaps, slow modulation of the rate, the rate; with intervals.

    shape        of gamma gaps, from the shares b = g1 / (g1 + g2) of neighbouring gaps: Beta(k, k) whatever the
                 rate is, as long as it changes slowly against two gaps; maximum likelihood, Fisher information
    modulation   log-normal, Ornstein-Uhlenbeck (`arrivals.rate.Modulated`): counts in bins are observations of a
                 hidden log rate, a linear state-space model after taking logarithms; Kalman filter, maximum
                 likelihood, observed information (Durbin and Koopman, "Time Series Analysis by State Space
                 Methods", 2012, ch. 2 and 7)
    rate         of the same model; without modulation, of a renewal process: its count has variance n / k

What stamps on a coarse grid, or too few arrivals, can't tell is refused with the reason.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from workloads.describe import dispersion
from workloads.errors import UserError
from workloads.fit.estimate import Estimate, log_normal, point

Floats = npt.NDArray[np.float64]

LEAST_ARRIVALS: Final = 200
_COUNT_PER_BIN: Final = 40.0
_LEAST_BINS: Final = 60
_LEAST_CORRELATIONS: Final = 20.0
_DAY_S: Final = 86400.0


@dataclass(frozen=True)
class ArrivalFit:
    """Rate per second; shape of gamma gaps; coefficient of variation and correlation time of the rate.

    `cv` and `correlation_s` are None where the rate does not vary beyond chance; `notes` say what could not be
    told.
    """

    rate: Estimate
    shape: Estimate | None
    cv: Estimate | None
    correlation_s: Estimate | None
    notes: tuple[str, ...]


def fit_arrivals(times_s: Floats, span_s: float) -> ArrivalFit:
    """Fit ascending times in [0, span).

    Raises:
        UserError: fewer than 200 arrivals.
    """
    n = len(times_s)
    if n < LEAST_ARRIVALS:
        raise UserError(f"{n} arrivals are too few to fit their law ({LEAST_ARRIVALS} at least)", where="log")
    notes: list[str] = []
    shape = _shape(times_s, notes)
    noise = 1.0 / shape.value if shape is not None else 1.0
    width = _COUNT_PER_BIN * max(noise, 1.0) * span_s / n
    bins = int(span_s / width)
    renewal_rate = log_normal(float(np.log(n / span_s)), float(np.sqrt(noise / n)))
    if bins < _LEAST_BINS:
        notes.append(f"too few arrivals to tell a slow change of the rate ({bins} bins of 40)")
        return ArrivalFit(renewal_rate, shape, None, None, tuple(notes))
    counts = np.bincount((times_s / width).astype(np.int64), minlength=bins)[:bins].astype(np.float64)
    if not _overdispersed(counts, noise):
        return ArrivalFit(renewal_rate, shape, None, None, tuple(notes))
    found = _modulation(counts, width, noise)
    if found is None or span_s / found[2].value < _LEAST_CORRELATIONS:
        cv, correlation = _too_slow(times_s, span_s, noise)
        notes.append(
            f"the rate varies too slowly for a log of {span_s:.0f} s to tell how: the modulation is set to the "
            "dispersion at one window and has no interval, nor has the rate"
        )
        return ArrivalFit(point(n / span_s), shape, point(cv), point(correlation), tuple(notes))
    rate, cv_found, correlation_found = found
    return ArrivalFit(rate, shape, cv_found, correlation_found, tuple(notes))


def _too_slow(times_s: Floats, span_s: float, noise: float) -> tuple[float, float]:
    """A modulation correlated over a tenth of the log whose dispersion is the log's at one window.

    The window is a minute, or longer where arrivals are sparse: noise + rate w cv^2 g(w / tau), with
    g(x) = 2 (x - 1 + e^-x) / x^2.
    """
    rate, correlation = len(times_s) / span_s, span_s / 10.0
    window = min(max(60.0, _COUNT_PER_BIN / rate), span_s / 15.0)
    # A log's own mean is subtracted from its counts: what varies over the whole of it is not seen.
    kept = _averaged(window / correlation) - _averaged(span_s / correlation)
    excess = max((dispersion(times_s, window, span_s).value or noise) - noise, 1e-6)
    return min(float(np.sqrt(excess / (rate * window * kept))), 5.0), correlation


def _averaged(x: float) -> float:
    """The variance of an Ornstein-Uhlenbeck process of variance 1 averaged over x correlation times."""
    return 2.0 * (x - 1.0 + float(np.exp(-x))) / (x * x)


def fit_days(times_s: Floats, span_s: float) -> tuple[tuple[float, ...], Estimate] | None:
    """The shape of a day (24 factors from the log's first arrival on) and the rate; None below two whole days.

    The interval of the rate takes days as the sample; below four days there is none.
    """
    days = int(span_s // _DAY_S)
    if days < 2:
        return None
    hours = np.bincount((times_s / 3600.0).astype(np.int64), minlength=24 * days)[: 24 * days].reshape(days, 24)
    rates = hours.sum(axis=1) / _DAY_S
    mean = float(rates.mean())
    factors = tuple(float(f"{factor:.3g}") for factor in (hours.mean(axis=0) / 3600.0 / mean).tolist())
    if days < 4:
        return factors, point(mean)
    from scipy.stats import t

    error = float(t.ppf(0.975, days - 1)) * float(rates.std(ddof=1)) / float(np.sqrt(days))
    return factors, Estimate(mean, max(mean - error, 0.0), mean + error)


def _shape(times_s: Floats, notes: list[str]) -> Estimate | None:
    """The shape of gamma gaps from the shares of neighbouring gaps."""
    from scipy.optimize import brentq
    from scipy.special import digamma, polygamma

    gaps = np.diff(times_s)
    ties = float((gaps <= 0).mean())
    positive = gaps[gaps > 0]
    resolution = float(positive.min()) if len(positive) else 0.0
    if ties > 0.02 and resolution > 1e-6:
        notes.append(f"stamps are too coarse to tell the law of gaps ({100 * ties:.0f} % ties)")
        return None
    pairs = gaps[: len(gaps) // 2 * 2].reshape(-1, 2)
    pairs = pairs[(pairs > 0).all(axis=1)]
    if len(pairs) < LEAST_ARRIVALS // 4:
        notes.append("too few gaps to tell their law")
        return None
    shares = pairs[:, 0] / pairs.sum(axis=1)
    mean_log = float(np.mean(np.log(shares) + np.log1p(-shares)))

    def score(log_k: float) -> float:
        k = float(np.exp(log_k))
        return mean_log - 2.0 * float(digamma(k)) + 2.0 * float(digamma(2.0 * k))

    low, high = np.log(1e-3), np.log(1e4)
    if score(low) * score(high) > 0:
        notes.append("the gaps are all alike: no gamma law")
        return None
    log_k = float(brentq(score, low, high))
    k = float(np.exp(log_k))
    information = len(shares) * (2.0 * float(polygamma(1, k)) - 4.0 * float(polygamma(1, 2.0 * k)))
    return log_normal(log_k, 1.0 / (k * float(np.sqrt(information))))


def _overdispersed(counts: Floats, noise: float) -> bool:
    """Whether counts vary more than a renewal process's at some scale (chi-square, 1 in 1,000 in all)."""
    from scipy.stats import chi2

    scales = [m for m in (1, 2, 4, 8, 16) if len(counts) // m >= 15]
    for m in scales:
        grouped = counts[: len(counts) // m * m].reshape(-1, m).sum(axis=1)
        index = float(grouped.var(ddof=1) / grouped.mean())
        bound = noise * float(chi2.ppf(1.0 - 0.001 / len(scales), len(grouped) - 1)) / (len(grouped) - 1)
        if index > bound:
            return True
    return False


def _modulation(counts: Floats, width: float, noise: float) -> tuple[Estimate, Estimate, Estimate] | None:
    """Rate, coefficient of variation and correlation time, or None where the likelihood has no summit."""
    from scipy.optimize import minimize

    begin = _first_guess(counts, width, noise)

    def loss(parameters: Floats) -> float:
        return -_log_likelihood(counts, width, noise, parameters)

    best = minimize(loss, begin, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-4, "maxiter": 2000})
    if not best.success:
        return None
    hessian = _hessian(loss, best.x)
    try:
        covariance = np.linalg.inv(hessian)
    except np.linalg.LinAlgError:
        return None
    if not (np.diag(covariance) > 0).all():
        return None
    mu, log_s, log_tau = best.x.tolist()
    s = float(np.exp(log_s))
    # Mean rate exp(mu + s^2/2): its gradient in (mu, log s) is (1, s^2).
    gradient = np.array([1.0, s * s, 0.0])
    rate_error = float(np.sqrt(gradient @ covariance @ gradient))
    # cv = sqrt(exp(s^2) - 1); d ln cv / d ln s = s^2 exp(s^2) / (exp(s^2) - 1).
    slope = s * s * float(np.exp(s * s)) / float(np.expm1(s * s))
    log_cv, cv_error = 0.5 * float(np.log(np.expm1(s * s))), slope * float(np.sqrt(covariance[1, 1]))
    # What is known of the slow process is known from about span / (2 tau) independent pieces of it.
    span, tau = width * len(counts), float(np.exp(log_tau))
    freedom = max(span / (2.0 * tau), 3.0)
    rate = log_normal(mu + s * s / 2.0, rate_error, freedom)
    # The speed of return 1/tau comes out too large by 4/span on average where the mean is fitted too
    # (Tang and Chen, "Parameter estimation and bias correction for diffusion processes", J. Econometrics 149, 2009).
    speed = max(1.0 / tau - 4.0 / span, 0.2 / tau)
    return (
        rate,
        log_normal(log_cv, cv_error, freedom),
        log_normal(-float(np.log(speed)), float(np.sqrt(covariance[2, 2])), freedom),
    )


def _first_guess(counts: Floats, width: float, noise: float) -> Floats:
    mean = float(counts.mean())
    centred = counts / mean - 1.0
    variance = max(float(centred.var()) - noise / mean, 1e-3)
    lagged = [float((centred[:-lag] * centred[lag:]).mean()) for lag in range(1, len(counts) // 8)]
    below = next((lag for lag, value in enumerate(lagged, start=1) if value < variance / np.e), len(lagged) + 1)
    s = np.sqrt(np.log1p(variance))
    return np.array([np.log(mean / width) - s * s / 2, np.log(s), np.log(max(below, 0.7) * width)])


def _log_likelihood(counts: Floats, width: float, noise: float, parameters: Floats) -> float:
    """Of (mean log rate, log s, log correlation time), given counts in bins of `width` seconds.

    log((x + 1/2) / width) = mu + s z + error; the error's variance is noise / expected count, the expected count
    that of the rate predicted from the bins before.
    """
    mu, s, tau = float(parameters[0]), float(np.exp(parameters[1])), float(np.exp(parameters[2]))
    if not (1e-4 < s < 3.0 and width / 50 < tau < 1e4 * width * len(counts)):
        return -1e12
    x = width / tau
    keep = float(np.exp(-x))
    # The hidden state z is the process at a bin's beginning, a count sees its mean over the bin:
    # z' = keep z + e1, mean = b z + e2, with the covariances of an Ornstein-Uhlenbeck process and its integral.
    b = (1.0 - keep) / x
    var_1, var_2, cov_12 = 1.0 - keep * keep, 2.0 * (x - 1.0 + keep) / (x * x) - b * b, b * (1.0 - keep)
    state, variance, total = 0.0, 1.0, 0.0
    for count in counts.tolist():
        # E ln(x + noise/2) is ln(mean) up to second order where the count's variance is noise * mean.
        seen = float(np.log((count + noise / 2.0) / width)) - mu
        error = noise / max(width * float(np.exp(mu + s * b * state)), 0.5)
        innovation = seen - s * b * state
        spread = s * s * (b * b * variance + var_2) + error
        total -= 0.5 * (innovation * innovation / spread + float(np.log(spread)))
        both = s * (keep * b * variance + cov_12)
        state = keep * state + both / spread * innovation
        variance = keep * keep * variance + var_1 - both * both / spread
    return total


def _hessian(function: Any, at: Floats) -> Floats:
    """Second derivatives by central differences."""
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
