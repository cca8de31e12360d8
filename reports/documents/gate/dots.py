"""The pairs of a metric as a line of dots in plain text: for job summaries, pull requests and terminals."""

import math
from typing import Final

from tailgate.reports.verdicts.gate.comparison import MetricVerdict
from tailgate.reports.verdicts.gate.wording import percent

_WIDTH: Final = 41


def dots(metric: MetricVerdict) -> str:
    """One dot a pair between the ends that are written: `│` is no change, `┊` the margin; digits are several pairs.

    Empty without pairs.
    """
    if not metric.ratios:
        return ""
    shifts = [math.log(ratio) for ratio in metric.ratios]
    margin = math.log(metric.limit)
    low, high = min(*shifts, -1.5 * abs(margin)), max(*shifts, 1.5 * abs(margin))

    def place(shift: float) -> int:
        return round((shift - low) / (high - low) * (_WIDTH - 1))

    marks = ["·"] * _WIDTH
    marks[place(0.0)], marks[place(margin)] = "│", "┊"
    counts: dict[int, int] = {}
    for shift in shifts:
        counts[place(shift)] = counts.get(place(shift), 0) + 1
    for at, count in counts.items():
        marks[at] = "●" if count == 1 else str(min(count, 9))
    return f"{percent(math.exp(low)):>9} {''.join(marks)} {percent(math.exp(high))}"
