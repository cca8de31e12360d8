"""Pauses between turns and numbers of turns, from sessions that a log's end may have cut.

A follow-up is seen only if its pause is over before the log ends, so the pauses seen are too short and the sessions
have too few turns. The distribution of pauses is the product-limit estimate for truncated data, which compares each
pause only with those that could have been seen in its place (Lynden-Bell, MNRAS 155, 1971; Woodroofe, Annals of
Statistics 13, 1985). The chance that a turn has a follow-up is then the number of follow-ups seen over the number that
would be seen if every turn had one.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from tailgate.workloads.common.arrays import Floats, Ints
from tailgate.workloads.fit.goodness_of_fit import FittedValue, point

_RESAMPLES: Final = 100
_AT_RISK: Final = 0.02
_LEAST_AT_RISK: Final = 50
_LONG: Final = 0.95
_LONGEST: Final = 0.25
_LEAST_SESSIONS: Final = 50


@dataclass(frozen=True)
class Turns:
    """Each request's session and turn, from 0, and the seconds to the log's end and to its session's next request.

    The latter are infinite where no other request is seen.
    """

    session: Ints
    turn: Ints
    left_s: Floats
    pause_s: Floats

    def within_reach(self) -> "Turns":
        """The turns, where a pause too long to be seen from all but a few (2 %, and 50) ends its session."""
        least = max(_LEAST_AT_RISK, int(_AT_RISK * len(self.left_s)))
        reach = float(np.sort(self.left_s)[-min(least, len(self.left_s))])
        pause_s = np.where(self.pause_s <= reach, self.pause_s, np.inf)
        return Turns(self.session, self.turn, np.minimum(self.left_s, reach), pause_s)


@dataclass(frozen=True)
class FollowUps:
    """`pauses_s` ascending with their cumulative `shares`; `going_on[j]`: the share of turns j with another."""

    pauses_s: Floats
    shares: Floats
    going_on: Floats

    def pause(self, share: float) -> float:
        return float(self.pauses_s[min(int(np.searchsorted(self.shares, share)), len(self.pauses_s) - 1)])

    def share_up_to(self, pause_s: float) -> float:
        return float(np.concatenate([[0.0], self.shares])[np.searchsorted(self.pauses_s, pause_s, side="right")])

    def turns_mean(self) -> float:
        return 1.0 + float(np.cumprod(self.going_on).sum())

    def sample(self, n: int) -> tuple[Floats, Ints]:
        """n pauses and n numbers of turns at evenly spaced quantiles of their distributions."""
        u = (np.arange(n) + 0.5) / n
        place = np.minimum(np.searchsorted(self.shares, u), len(self.pauses_s) - 1)
        return self.pauses_s[place], 1 + np.searchsorted(-np.cumprod(self.going_on), -u)


def follow_ups(turns: Turns, weights: Floats | None = None) -> FollowUps:
    """The distributions of pauses and follow-ups, with `weights` counting each session so many times."""
    each = np.ones(len(turns.turn)) if weights is None else weights[turns.session]
    seen = np.isfinite(turns.pause_s)
    pause, left, weight = turns.pause_s[seen], turns.left_s[seen], each[seen]
    order = np.argsort(pause, kind="stable")
    pause, weight = pause[order], weight[order]
    up_to = np.cumsum(weight)
    # At risk at p: seen, not longer than p, and the log left at least p.
    by_left = np.argsort(left, kind="stable")
    out_of_reach = np.concatenate([[0.0], np.cumsum(each[seen][by_left])])[
        np.searchsorted(left[by_left], pause, side="left")
    ]
    risk = up_to - out_of_reach
    factors = np.where(weight > 0, 1.0 - weight / np.maximum(risk, 1e-300), 1.0)
    factors[np.flatnonzero(weight > 0)[:1]] = 1.0  # the shortest has nothing below it
    shares = np.concatenate([np.cumprod(factors[::-1])[::-1][1:], [1.0]])
    chance = np.concatenate([[0.0], shares])[np.searchsorted(pause, turns.left_s, side="right")]
    most = int(turns.turn.max()) + 1
    expected = np.bincount(turns.turn, weights=each * chance, minlength=most)
    got = np.bincount(turns.turn[seen], weights=each[seen], minlength=most)
    going_on = np.clip(np.divide(got, expected, out=np.zeros(most), where=expected > 0), 0.0, 1.0)
    return FollowUps(pause, shares, going_on)


def estimates(turns: Turns, law: FollowUps, tick_s: float) -> tuple[FittedValue, FittedValue]:
    """Mean number of turns and median pause, with errors from resampled sessions (bootstrap).

    There are no intervals where one pause in twenty is longer than a quarter of the log, so that too few are seen
    whole, nor for fewer than 50 sessions.
    """
    mean, median, sessions = law.turns_mean(), law.pause(0.5), int(turns.session.max()) + 1
    if law.pause(_LONG) > _LONGEST * float(turns.left_s.max()) or sessions < _LEAST_SESSIONS:
        return point(mean), point(median)
    from scipy.stats import t

    rng, within = np.random.default_rng(0), float(t.ppf(0.975, _RESAMPLES - 1))
    resamples = [
        follow_ups(turns, np.bincount(rng.integers(0, sessions, sessions), minlength=sessions).astype(np.float64))
        for _ in range(_RESAMPLES)
    ]
    error = within * float(np.std([resample.turns_mean() for resample in resamples], ddof=1))
    # What the share below the median may be, read off the law (Woodruff, JASA 47, 1952); a pause is known to a tick.
    apart = within * float(np.std([resample.share_up_to(median) for resample in resamples], ddof=1))
    low, high = (law.pause(share) for share in (max(0.5 - apart, 0.0), min(0.5 + apart, 1.0)))
    return FittedValue(mean, mean - error, mean + error), FittedValue(median, low - tick_s / 2.0, high + tick_s / 2.0)
