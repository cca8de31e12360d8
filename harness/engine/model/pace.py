"""How long each step really takes: the model's time, and what makes one launch, and one step, unlike another.

    end = begin + model(step) * launch * jitter * drift(begin) * start(begin) / speed  [+ stalls in between]

All of it is off by default: then every factor is 1 and a step takes exactly what the model says. Random numbers are
those of the workloads' streams, so that the same seed gives the same bits on every machine.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tailgate.harness.engine.model.step_law import StepShape
from tailgate.workloads.sampling import portable_math
from tailgate.workloads.sampling.random_streams import RandomField, RandomStream

_AT_ONCE = 4096  # random numbers drawn at a time
_DRIFT_KNOT_S = 60.0
_COLD_FACTOR = 3.0


class StepLength(Protocol):
    """What knows how long a step should take, e.g. `step_time.StepTime`."""

    def seconds(self, step: StepShape) -> float:
        """Seconds of one step."""


@dataclass(frozen=True, slots=True)
class Variation:
    """What varies; 0 is off. Spreads are standard deviations of a log duration (0.02: about 2 %).

    `launch_spread` is drawn once a launch, `jitter` at every step; `drift` is a slow wandering, drawn each minute with
    straight lines between. Every `stall_every_s` the engine stands still for `stall_s`. In the first `slow_start_s`
    after a launch steps take three times as long at first, in a straight line down to the usual.
    """

    jitter: float = 0.0
    launch_spread: float = 0.0
    drift: float = 0.0
    stall_every_s: float = 0.0
    stall_s: float = 0.0
    slow_start_s: float = 0.0


@dataclass(slots=True)
class StepPace:
    """One launch of one replica. Times are of the caller's clock; the launch was at `launched_s`.

    `end` may be asked as often as one likes; `advance` says that the step was done, and draws the next one's jitter.
    """

    step_time: StepLength
    variation: Variation = Variation()
    seed: int = 0
    replica: int = 1
    launch: int = 0
    launched_s: float = 0.0
    speed: float = 1.0
    _plain: bool = field(init=False)
    _floor_s: float = field(init=False)
    _launch_factor: float = field(init=False, default=1.0)
    _jitter: list[float] = field(init=False, default_factory=list)  # the next ones, the first last
    _stream: RandomStream | None = field(init=False, default=None)
    _knots: dict[int, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        varies = self.variation
        self._floor_s = self.step_time.seconds(StepShape())
        self._plain = varies == Variation(jitter=varies.jitter)
        if varies.launch_spread:
            drawn = self._drawn("launch").normal(1)
            self._launch_factor = _factors(drawn, varies.launch_spread)[0]
        if varies.jitter:
            self._stream = self._drawn("jitter")
            self._refill()

    def end(self, begin_s: float, step: StepShape) -> float:
        """When a step ends that begins at `begin_s`."""
        seconds = self.step_time.seconds(step)
        if self._jitter:
            seconds *= self._jitter[-1]
        if self.speed != 1.0:
            seconds /= self.speed
        if self._plain:
            return begin_s + seconds
        return self._with_stalls(begin_s, begin_s + seconds * self._factor(begin_s))

    @property
    def floor_s(self) -> float:
        """No step is shorter; 0 where that is not known."""
        return self._floor_s / self.speed if self._plain and not self._jitter else 0.0

    def advance(self) -> None:
        """Go on to the next step."""
        if self._jitter:
            self._jitter.pop()
            if not self._jitter:
                self._refill()

    def _factor(self, at_s: float) -> float:
        varies, factor = self.variation, self._launch_factor
        age = at_s - self.launched_s
        if age < varies.slow_start_s:
            factor *= _COLD_FACTOR - (_COLD_FACTOR - 1.0) * max(age, 0.0) / varies.slow_start_s
        if varies.drift:
            knot = int(age // _DRIFT_KNOT_S)
            share = age / _DRIFT_KNOT_S - knot
            factor *= self._knot(knot) * (1.0 - share) + self._knot(knot + 1) * share
        return factor

    def _knot(self, number: int) -> float:
        value = self._knots.get(number)
        if value is None:
            field_ = RandomField(self.seed, "engine", "drift", self.replica, self.launch)
            normal = portable_math.normal_quantile(field_.uniform(np.array([number])))
            value = self._knots[number] = _factors(normal, self.variation.drift)[0]
        return value

    def _with_stalls(self, begin_s: float, end_s: float) -> float:
        every, each = self.variation.stall_every_s, self.variation.stall_s
        if not every or not each:
            return end_s
        before = (begin_s - self.launched_s) // every
        while (until := (end_s - self.launched_s) // every) > before:  # a stall may reach the next one
            end_s += each * (until - before)
            before = until
        return end_s

    def _drawn(self, purpose: str) -> RandomStream:
        return RandomStream(self.seed, "engine", purpose, self.replica, self.launch)

    def _refill(self) -> None:
        assert self._stream is not None
        self._jitter = _factors(self._stream.normal(_AT_ONCE), self.variation.jitter)[::-1]


def _factors(normal: np.ndarray[tuple[int], np.dtype[np.float64]], sigma: float) -> list[float]:
    """Lognormal factors of mean 1."""
    factors: list[float] = portable_math.exp(sigma * normal - sigma**2 / 2).tolist()
    return factors
