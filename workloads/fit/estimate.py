"""An estimate with its 95 % interval, and the exact interval of a quantile."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """A figure with the ends of its two-sided 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether the interval says anything."""
        return bool(np.isfinite(self.high))

    def as_dict(self) -> dict[str, float]:
        """For JSON and YAML, rounded to six significant digits."""
        return {key: float(f"{getattr(self, key):.6g}") for key in ("value", "low", "high")}


def log_normal(log_value: float, log_error: float, freedom: float | None = None) -> Estimate:
    """An estimate whose logarithm is about normal with the given standard error (with `freedom`: Student's t)."""
    from scipy.stats import t

    spread = (Z95 if freedom is None else float(t.ppf(0.975, freedom))) * log_error
    return Estimate(float(np.exp(log_value)), float(np.exp(log_value - spread)), float(np.exp(log_value + spread)))


def point(value: float) -> Estimate:
    """An estimate whose interval can't be given."""
    return Estimate(value, 0.0, float("inf"))


def quantile(values: npt.NDArray[Any], share: float) -> Estimate | None:
    """A quantile with its interval from order statistics (binomial, no law assumed); None where n is too small."""
    from scipy.stats import binom

    ordered, n = np.sort(values), len(values)
    low, high = int(binom.ppf(0.025, n, share)), int(binom.ppf(0.975, n, share)) + 1
    if low < 1 or high > n:
        return None
    value = float(ordered[min(int(np.ceil(share * n)), n) - 1])
    return Estimate(value, float(ordered[low - 1]), float(ordered[high - 1]))
