"""How a spec describes arrivals, and the process made from it."""

from itertools import pairwise
from typing import Literal, Self

from pydantic import Field, model_validator

from tailgate.workloads.arrivals import rate_shapes as shapes
from tailgate.workloads.arrivals.process import Arrivals, Clients, Process
from tailgate.workloads.arrivals.rate_shapes import Rates, Shape
from tailgate.workloads.arrivals.renewal import Constant, Gamma, Poisson, Renewal, Weibull
from tailgate.workloads.common.units import Duration, Rate, parse_rate
from tailgate.workloads.common.validation import Strict
from tailgate.workloads.sampling.distribution_grammar import Length, parse


class ModulationSpec(Strict):
    """A slow random rate: see `rate_shapes.Modulated`."""

    cv: float = Field(gt=0, le=5)
    correlation: Duration = Field(gt=0)


class BurstSpec(Strict):
    """Bursts and pauses, their lengths in seconds as distributions (`lognormal(2.74, 0.43)`); see `rate_shapes.OnOff`.

    `pause_level` is the rate in a pause, as a share of that in a burst.
    """

    burst: Length
    pause: Length
    pause_level: float = Field(0.0, ge=0, lt=1)


class RateStage(Strict):
    """A rate held `for` a while, reached in a straight line over the first `ramp` of it."""

    rate: float | str
    for_: Duration = Field(gt=0, alias="for")
    ramp: Duration = 0.0

    @model_validator(mode="after")
    def _ramp_fits(self) -> Self:
        parse_stage_rate(self.rate)
        if self.ramp > self.for_:
            raise ValueError(f"a ramp of {self.ramp:g} s doesn't fit into a stage of {self.for_:g} s")
        return self


class SpikeSpec(Strict):
    """A surge to `factor` times the rate: see `rate_shapes.Spike`. Times count from the run's start."""

    at: Duration
    factor: float = Field(gt=1, le=1000)
    rise: Duration = 0.0
    hold: Duration = 0.0
    decay: Duration = 0.0


class DailySpec(Strict):
    """The shape of a day (24 hourly factors) and of a week (7, from Monday); `rate` is the mean over a week.

    `day` compresses it: `day: 24m` runs a day in 24 minutes. The run begins at `start_hour` of `start_day`.
    """

    hours: tuple[float, ...] = Field(min_length=24, max_length=24)
    days: tuple[float, ...] = Field((1.0,) * 7, min_length=7, max_length=7)
    day: Duration = Field(86400.0, gt=0)
    start_hour: float = Field(0.0, ge=0, lt=24)
    start_day: int = Field(0, ge=0, le=6)

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if min(self.hours) < 0 or min(self.days) < 0 or max(self.hours) == 0 or max(self.days) == 0:
            raise ValueError("factors must be at least 0, and not all of them 0")
        return self


class ClientsSpec(Strict):
    """The arrivals of `count` clients, merged; client k has a share of the rate proportional to k^-skew.

    `shapes` is the distribution of the clients' shapes (the process must be gamma or weibull); without it all have the
    process's own. Random rates are each client's own.
    """

    count: int = Field(ge=1, le=10_000)
    skew: float = Field(1.0, ge=0, le=5)
    shapes: Length | None = None


class ArrivalSpec(Strict):
    """The arrival process of an open loop."""

    process: Literal["constant", "poisson", "gamma", "weibull"] = "poisson"
    rate: Rate | None = None
    shape: float | None = Field(None, gt=0.005, le=1000)
    modulation: tuple[ModulationSpec, ...] = ()
    bursts: BurstSpec | None = None
    stages: tuple[RateStage, ...] = ()
    spike: SpikeSpec | None = None
    daily: DailySpec | None = None
    clients: ClientsSpec | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        shaped = self.process in ("gamma", "weibull")
        drawn = self.clients is not None and self.clients.shapes is not None
        if shaped and self.shape is None and not drawn:
            raise ValueError(
                f"a {self.process} process needs `shape`: 1 is Poisson, below 1 is burstier (gamma: CV = 1/sqrt(shape))"
            )
        if not shaped and (self.shape is not None or drawn):
            raise ValueError(f"`shape` is for gamma and weibull, not for {self.process}")
        if self.stages and self.rate is not None:
            raise ValueError("`stages` have their own rates: leave `rate` out")
        return self

    def mean_rate(self) -> float | None:
        """Requests per second: `rate`, or the mean over the stages; None where the spec leaves it open."""
        if self.stages:
            return self._stage_arrivals() / self.stages_s()
        return self.rate

    def stages_s(self) -> float:
        return float(sum(stage.for_ for stage in self.stages))

    def _stage_arrivals(self) -> float:
        knots = stage_knots(self.stages)
        return sum((t1 - t0) * (y0 + y1) / 2 for (t0, y0), (t1, y1) in pairwise(knots))


def parse_stage_rate(value: float | str) -> float:
    """A stage's rate, which unlike others may be 0."""
    return 0.0 if value in (0, "0", "0/s") else parse_rate(value)


def stage_knots(stages: tuple[RateStage, ...]) -> list[tuple[float, float]]:
    """Corners (time, rate) of the line that the stages make."""
    knots: list[tuple[float, float]] = []
    at, level = 0.0, 0.0
    for stage in stages:
        goal = parse_stage_rate(stage.rate)
        knots += [(at, level if stage.ramp else goal), (at + stage.ramp, goal), (at + stage.for_, goal)]
        at, level = at + stage.for_, goal
    return knots


def build(spec: ArrivalSpec) -> Arrivals:
    rate = spec.mean_rate()
    if rate is None:
        raise ValueError("arrivals.rate is missing (write e.g. 12/s)")
    rate = 1.0 if spec.stages else rate
    gaps, modulation, clients = law(spec.process, spec.shape), tuple(_shapes(spec)), spec.clients
    if clients is None:
        return Process(gaps, Rates(rate, modulation))
    drawn = None if clients.shapes is None else parse(clients.shapes)
    return Clients(clients.count, clients.skew, rate, gaps, drawn, modulation)


def law(process: str, shape: float | None) -> Renewal:
    match process:
        case "constant":
            return Constant()
        case "poisson":
            return Poisson()
        case "gamma":
            return Gamma(shape or 1.0)
        case _:
            return Weibull(shape or 1.0)


def _shapes(spec: ArrivalSpec) -> list[Shape]:
    built: list[Shape] = [shapes.Modulated(slow.cv, slow.correlation) for slow in spec.modulation]
    if bursts := spec.bursts:
        built.append(shapes.OnOff(parse(bursts.burst), parse(bursts.pause), bursts.pause_level))
    if spec.stages:
        built.append(shapes.line(stage_knots(spec.stages)))
    if spike := spec.spike:
        built.append(shapes.Spike(spike.at, spike.factor, spike.rise, spike.hold, spike.decay))
    if daily := spec.daily:
        built.append(shapes.Daily(daily.hours, daily.days, daily.day, daily.start_hour, daily.start_day))
    return built
