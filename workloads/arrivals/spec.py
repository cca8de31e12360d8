"""How a spec describes arrivals, and the process that comes of it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from workloads.arrivals import rate as shapes
from workloads.arrivals.process import Arrivals, Process
from workloads.arrivals.rate import Rates, Shape
from workloads.arrivals.renewal import Constant, Gamma, Poisson, Renewal, Weibull
from workloads.lengths import Length, parse
from workloads.units import Duration, Rate
from workloads.validation import Strict


class ModulationSpec(Strict):
    """A slow random rate: see `rate.Modulated`."""

    cv: float = Field(gt=0, le=5)
    correlation: Duration = Field(gt=0)


class OnOffSpec(Strict):
    """Pauses: seconds on and seconds off, as laws (`lognormal(2.74, 0.43)`); see `rate.OnOff`."""

    on: Length
    off: Length
    off_level: float = Field(0.0, ge=0, lt=1)


class ArrivalSpec(Strict):
    """The arrival process of an open loop."""

    process: Literal["constant", "poisson", "gamma", "weibull"] = "poisson"
    rate: Rate | None = None
    shape: float | None = Field(None, gt=0.005, le=1000)
    modulation: tuple[ModulationSpec, ...] = ()
    on_off: OnOffSpec | None = None

    @model_validator(mode="after")
    def _shape_fits(self) -> Self:
        if self.process in ("gamma", "weibull") and self.shape is None:
            raise ValueError(
                f"a {self.process} process needs `shape`: 1 is Poisson, below 1 is burstier (gamma: CV = 1/sqrt(shape))"
            )
        if self.process in ("constant", "poisson") and self.shape is not None:
            raise ValueError(f"`shape` is of gamma and weibull, not of {self.process}")
        return self

    def mean_rate(self) -> float | None:
        """Requests per second, the mean of a random rate; None where the spec leaves it open."""
        return self.rate


def build(spec: ArrivalSpec) -> Arrivals:
    """The process; the rate must be known.

    Raises:
        ValueError: no rate.
    """
    if spec.rate is None:
        raise ValueError("arrivals.rate is missing (write e.g. 12/s)")
    return Process(_law(spec), Rates(spec.rate, tuple(_shapes(spec))))


def _law(spec: ArrivalSpec) -> Renewal:
    match spec.process:
        case "constant":
            return Constant()
        case "poisson":
            return Poisson()
        case "gamma":
            return Gamma(spec.shape or 1.0)
        case "weibull":
            return Weibull(spec.shape or 1.0)


def _shapes(spec: ArrivalSpec) -> list[Shape]:
    found: list[Shape] = [shapes.Modulated(m.cv, m.correlation) for m in spec.modulation]
    if spec.on_off is not None:
        found.append(shapes.OnOff(parse(spec.on_off.on), parse(spec.on_off.off), spec.on_off.off_level))
    return found
