"""What an objective came to, as a summary holds it; how it is judged is `reports.summary.objectives`."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final, Literal

from tailgate.reports.summary.latency import Interval
from tailgate.workloads.common.formatting import plain

BY_SHARE: Final = "judged by the share of requests beyond the limit"


class Judgement(StrEnum):
    """Whether an objective is met, as stored; a run's verdict (PASS, FAIL, INCONCLUSIVE) follows from them."""

    MET = "met"
    BROKEN = "broken"
    UNDECIDED = "can't tell"


@dataclass(frozen=True)
class BeyondLimit:
    """What a percentile's limit is about, and known of any sample: how many lie over it, and how many may.

    `p90 < 800 ms` allows 10 % over 800 ms. Of ITL gaps are counted, else requests; failures are infinitely late.
    """

    over: int
    of: int
    counted: Literal["requests", "gaps"]
    limit_ms: float
    op: str  # the objective's own: with `<` and `<=` more than `share` break it, else fewer do
    share: float
    # one-sided 95 % bounds of the true share; None of gaps
    at_least: float | None = None
    at_most: float | None = None

    def in_words(self) -> str:
        """`36 of 40 over 800 ms; 10 % allowed`."""
        gaps = " gaps" if self.counted == "gaps" else ""
        asked = "allowed" if self.op in ("<", "<=") else "needed"
        counts = f"{self.over:,} of {self.of:,}{gaps} over {plain(self.limit_ms)} ms"
        return f"{counts}; {plain(round(100 * self.share, 6))} % {asked}"

    def bounds_in_words(self) -> str:
        """`77.8 % to 96.5 % over`; a dash without bounds."""
        if self.at_least is None or self.at_most is None:
            return "-"
        return f"{100 * self.at_least:.3g} % to {100 * self.at_most:.3g} % over"


def counts_in_words(value: float | None, why: str, beyond: BeyondLimit | None) -> str:
    return beyond.in_words() if beyond and (value is None or math.isinf(value) or why == BY_SHARE) else ""


@dataclass(frozen=True)
class Objective:
    """One objective of the SLO, judged; see `reports.summary.objectives.Judged`.

    `result` is `met`, `broken` or `can't tell`; `unit` that of value, bounds and limit (`ms`, `/s` or `fraction`).
    `found` says in words what was found, also where a percentile has no value of its own: `36 of 40 over 800 ms`.
    """

    objective: str
    result: Judgement
    value: float | None
    lower_bound: float | None
    upper_bound: float | None
    limit: float
    unit: str
    why: str
    as_measured: bool = False
    beyond: BeyondLimit | None = None
    found: str = ""
    own_error: Interval | None = None  # the least and the most that the client's own error leaves possible of `value`

    OPTIONAL: ClassVar = ("beyond", "own_error")
