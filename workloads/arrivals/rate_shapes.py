"""How the arrival rate changes over time: a mean rate times shapes, each a small class.

A shape gives factors on cells of time: `edges` (K + 1 times in seconds, the first 0) and `levels` (K
factors). Smooth shapes are cut into cells fine against their own time scale. Shapes multiply. The steps of
a person's own stages, a spike and a daily pattern are taken as written; a random shape has mean 1 and is
scaled so that the mean rate over the run's span is the one asked for.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tailgate.workloads.common.arrays import Floats
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.sampling import portable_math
from tailgate.workloads.sampling.distributions import ProbabilityDistribution
from tailgate.workloads.sampling.random_streams import RandomStream

RandomStreams = Callable[..., RandomStream]
"""Makes the stream of a name within one purpose: `streams("gaps")`."""


class Shape(Protocol):
    """Factors on the rate over time."""

    @property
    def random(self) -> bool:
        """Whether the factors are drawn; then they are scaled to mean 1 over the span."""

    def cells(self, stream: RandomStream, until_s: float) -> tuple[Floats, Floats]:
        """Edges (K + 1, from 0 to at least until_s) and levels (K). A longer `until_s` only appends."""


@dataclass(frozen=True)
class Rates:
    """A mean rate in requests per second and the shapes that modulate it.

    With `scaled`, a random rate has exactly this mean over the run's span; else only on average.
    """

    mean: float
    shapes: tuple[Shape, ...] = ()
    scaled: bool = True

    def cumulative(self, streams: RandomStreams, until_s: float, span_s: float) -> tuple[Floats, Floats, Floats]:
        """Times (s, K + 1), the number of arrivals expected until each, and the rates (1/s, K) between them."""
        edges, fixed, drawn, factor = self._levels(streams, max(until_s, span_s), span_s)
        rates = self.mean * fixed * (drawn * factor)
        return edges, np.concatenate([[0.0], np.cumsum(rates * (edges[1:] - edges[:-1]))]), rates

    def scaling(self, streams: RandomStreams, span_s: float) -> float:
        return self._levels(streams, span_s, span_s)[3]

    def _levels(self, streams: RandomStreams, horizon: float, span_s: float) -> tuple[Floats, Floats, Floats, float]:
        """Edges, levels of the shapes that are fixed and of those that are drawn, and what scales the latter."""
        edges, fixed, drawn = np.array([0.0, horizon]), np.ones(1), np.ones(1)
        for k, shape in enumerate(self.shapes):
            shape_edges, shape_levels = shape.cells(streams("shape", k), horizon)
            merged = np.union1d(edges, shape_edges[shape_edges < horizon])
            fixed, drawn = (_on(merged, edges, levels) for levels in (fixed, drawn))
            factor = _on(merged, shape_edges, shape_levels)
            if shape.random:
                drawn = drawn * factor
            else:
                fixed = fixed * factor
            edges = merged
        scale = 1.0
        if self.scaled and any(shape.random for shape in self.shapes):
            inside = np.clip(np.minimum(edges[1:], span_s) - edges[:-1], 0.0, None)
            # Running sums, whose order is fixed; a plain sum's is not the same on every machine.
            wanted, got = (float(np.cumsum(part * inside)[-1]) for part in (fixed, drawn * fixed))
            if got < 0.25 * wanted:
                raise UserError(
                    f"the random rate is on for too little of the {span_s:g} s to reach {self.mean:g} requests/s",
                    where="workload.arrivals",
                    remedy="Run longer, take another seed, or shorten its pauses",
                )
            scale = wanted / got
        return edges, fixed, drawn, scale


@dataclass(frozen=True)
class Steps:
    """Levels that hold from their starts on; `starts[0]` is 0, and the last level holds to the end."""

    starts: tuple[float, ...]
    levels: tuple[float, ...]
    random: bool = False

    def cells(self, stream: RandomStream, until_s: float) -> tuple[Floats, Floats]:
        return np.array([*self.starts, max(until_s, self.starts[-1]) + 1.0]), np.array(self.levels)


@dataclass(frozen=True)
class Spike:
    """1, rising linearly to `factor` over `rise_s`, holding, and falling back over `decay_s`: a launch surge."""

    at_s: float
    factor: float
    rise_s: float
    hold_s: float
    decay_s: float
    random: bool = False

    def cells(self, stream: RandomStream, until_s: float) -> tuple[Floats, Floats]:
        top, fall = self.at_s + self.rise_s, self.at_s + self.rise_s + self.hold_s
        end = fall + self.decay_s
        knots = [(0.0, 1.0), (self.at_s, 1.0), (top, self.factor), (fall, self.factor), (end, 1.0)]
        return _from_knots(knots, max(until_s, end) + 1.0)


@dataclass(frozen=True)
class Daily:
    """A daily curve of 24 hourly factors (linear between mid-hours) times a weekly one of 7.

    `day_s` compresses a day; `start_hour` and `start_day` (0 = Monday) say where the run begins.
    """

    hours: tuple[float, ...]
    days: tuple[float, ...]
    day_s: float = 86400.0
    start_hour: float = 0.0
    start_day: int = 0
    random: bool = False

    def cells(self, stream: RandomStream, until_s: float) -> tuple[Floats, Floats]:
        """288 cells a day; factors are scaled to mean 1 over the week."""
        cell_s = self.day_s / 288
        count = int(np.ceil(until_s / cell_s)) + 1
        days = (np.arange(float(count)) + 0.5) / 288 + self.start_hour / 24.0
        whole = np.floor(days)
        hour = (days - whole) * 24.0
        ring = np.array([self.hours[-1], *self.hours, self.hours[0]]) / (float(np.cumsum(self.hours)[-1]) / 24)
        level = portable_math.interpolate(hour, np.arange(26.0) - 0.5, ring)
        week = np.array(self.days) / (float(np.cumsum(self.days)[-1]) / len(self.days))
        level = level * week[(whole.astype(np.int64) + self.start_day) % len(self.days)]
        return np.arange(count + 1.0) * cell_s, level


@dataclass(frozen=True)
class Modulated:
    """A slow random rate: log-normal with coefficient of variation `cv`, correlated over `correlation_s`.

    m(t) = exp(s x(t) - s^2/2), s^2 = ln(1 + cv^2), x an Ornstein-Uhlenbeck process of unit variance (a
    doubly stochastic, or Cox, process: Cox, "Some Statistical Methods Connected with Series of Events",
    1955). Its index of dispersion grows with the window w as about rate * w * cv^2 while w is below the
    correlation time, which independent gaps can't do.
    """

    cv: float
    correlation_s: float
    random: bool = True

    def cells(self, stream: RandomStream, until_s: float) -> tuple[Floats, Floats]:
        cell_s = self.correlation_s / 16
        count = int(np.ceil(until_s / cell_s)) + 1
        # 1 - exp(-1/16) and its square root are constants; a library exp would differ in the last bit.
        keep = float(portable_math.exp(np.array([-1.0 / 16]))[0])
        kick = float(np.sqrt(1.0 - keep * keep))
        shocks = stream.normal(count).tolist()
        path, x = [], shocks[0]
        for shock in shocks[1:]:
            path.append(x)
            x = keep * x + kick * shock
        path.append(x)
        variance = float(portable_math.log(np.array([1.0 + self.cv * self.cv]))[0])
        spread = float(np.sqrt(variance))
        return np.arange(count + 1.0) * cell_s, portable_math.exp(spread * np.array(path) - variance / 2)


@dataclass(frozen=True)
class OnOff:
    """A rate that is on and off for random times by turns, scaled to mean 1; the run begins inside some period.

    Exponential times make it the interrupted Poisson process, the simplest MMPP (Fischer and
    Meier-Hellstern, "The Markov-modulated Poisson process (MMPP) cookbook", 1993); `off_level` above 0 makes
    it the two-state MMPP.
    """

    on_s: ProbabilityDistribution
    off_s: ProbabilityDistribution
    off_level: float = 0.0
    random: bool = True

    def cells(self, stream: RandomStream, until_s: float) -> tuple[Floats, Floats]:
        # A fixed block size, so that a longer run only appends.
        edges, levels, end = [0.0], [], 0.0
        begin, first = float(stream.uniform(1)[0]), True
        while end <= until_s:
            pairs = np.stack([self.on_s.numbers(stream, 256), self.off_s.numbers(stream, 256)], axis=1)
            lengths = pairs.reshape(-1).tolist()
            if first:
                # Begin uniformly inside the first 64 periods: long ones are met more often.
                skip = begin * float(np.cumsum(lengths[:64])[-1])
                lengths, parity = _skip(lengths, skip)
                first = False
            for k, length in enumerate(lengths):
                end += length
                edges.append(end)
                levels.append(1.0 if (k + parity) % 2 == 0 else self.off_level)
            parity = (parity + len(lengths)) % 2
        return np.array(edges), np.array(levels) / self._mean()

    def _mean(self) -> float:
        middles = (np.arange(1000) + 0.5) / 1000
        on, off = (float(np.cumsum(law.quantile(middles))[-1]) for law in (self.on_s, self.off_s))
        return (on + self.off_level * off) / (on + off)


def _skip(lengths: list[float], skip: float) -> tuple[list[float], int]:
    k = 0
    while skip >= lengths[k]:
        skip -= lengths[k]
        k += 1
    return [lengths[k] - skip, *lengths[k + 1 :]], k % 2


def line(knots: list[tuple[float, float]]) -> Steps:
    """Steps that follow straight lines through (time, level) knots, 200 cells a sloping piece."""
    edges, levels = _from_knots(knots, knots[-1][0])
    return Steps(tuple(edges[:-1].tolist()), tuple(levels.tolist()))


def _from_knots(knots: list[tuple[float, float]], until_s: float) -> tuple[Floats, Floats]:
    edges, levels = [], []
    for (t0, y0), (t1, y1) in itertools.pairwise(knots):
        if t1 <= t0:
            continue
        cells = 1 if y0 == y1 else 200
        for k in range(cells):
            edges.append(t0 + (t1 - t0) * k / cells)
            levels.append(y0 + (y1 - y0) * (k + 0.5) / cells)
    edges += [knots[-1][0], max(until_s, knots[-1][0]) + 1.0]
    levels.append(knots[-1][1])
    return np.array(edges), np.array(levels)


def _on(edges: Floats, shape_edges: Floats, shape_levels: Floats) -> Floats:
    """Levels of a shape on a finer grid."""
    slot = np.searchsorted(shape_edges, edges[:-1], side="right") - 1
    return shape_levels[np.clip(slot, 0, len(shape_levels) - 1)]
