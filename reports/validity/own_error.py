"""Validity: is the client's own error too large for what the run was asked?

It was asked its objectives; without any, the p50 and p99 of TTFT and ITL. An objective that holds, or is broken,
whatever the client did to its figure stands, however wide the interval. Lags, shared reads and a busy thread are not
tests of their own: they name the cause.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.catalogue import METRICS
from tailgate.reports.metrics.own_error import CERTIFIED_MS, CERTIFIED_SHARE, Ends, certified
from tailgate.reports.telemetry.client import kept_from_running
from tailgate.reports.validity.client import Check

OWN_ERROR: Final = "own_error"
_ASKED: Final = (("ttft", 50), ("ttft", 99), ("itl", 50), ("itl", 99))
_REMEDY: Final = "Free a core for the load generator, or run it on a machine of its own."
_PRIORITY: Final = (
    " It has no priority over other processes here: run it as root, with --cap-add SYS_NICE in a container, or with"
    " LimitNICE=-15 in a systemd unit."
)


class BoundedFigure(NamedTuple):
    """What the client's own error may spoil. Without value and ends (a share, too few requests) any is too much."""

    label: str
    value_ms: float | None
    ends_ms: Ends | None

    @property
    def half_ms(self) -> float:
        return math.inf if self.ends_ms is None else (self.ends_ms[1] - self.ends_ms[0]) / 2

    @property
    def certified(self) -> bool:
        return self.value_ms is not None and self.ends_ms is not None and certified(self.value_ms, self.ends_ms)


def own_error_check(analysis: Analysis, undecided: Sequence[BoundedFigure] | None, causes: Iterable[Check]) -> Check:
    """The check.

    Args:
        analysis: the run's.
        undecided: figures of objectives that would be decided, were it not for the client; None without objectives.
        causes: those of the client's checks that are beyond their usual bounds.
    """
    if not analysis.scan.bounded:
        why = "this run's records don't say which arrivals are exact: the rules of its time apply"
        return Check(OWN_ERROR, "unchecked", why=why)
    figures = list(_asked(analysis)) if undecided is None else undecided
    wide = [figure for figure in figures if not figure.certified]
    if not wide:
        return Check(OWN_ERROR, "ok", why="the load generator's own error changes no answer")
    known = [figure for figure in wide if figure.value_ms is not None and figure.ends_ms is not None]
    worst = max(known or wide, key=lambda figure: figure.half_ms / max(figure.value_ms or 0.0, 1e-9))
    cause = max(causes, key=_excess, default=None)
    remedy = cause.remedy if cause is not None else _REMEDY
    because = kept_from_running(analysis.run)
    if because:
        remedy = _REMEDY
    elif cause is not None and cause.value:
        because = f"{cause.why}: {cause.value:.4g} {cause.unit}"
    if (analysis.run.manifest.injector_nice or 0) >= 0:
        remedy += _PRIORITY
    because = f" ({because})" if because else ""
    if worst.value_ms is None or worst.ends_ms is None:
        why = f"what the load generator itself did to {worst.label} decides whether its objective is met{because}"
        return Check(OWN_ERROR, "fail", why=why, remedy=remedy)
    why = f"{worst.label} is {worst.value_ms:.4g} ms, known only to ± {worst.half_ms:.3g} ms{because}"
    bound = max(CERTIFIED_MS, CERTIFIED_SHARE * worst.value_ms)
    return Check(OWN_ERROR, "fail", worst.half_ms, bound, "ms", why, remedy)


def _excess(check: Check) -> float:
    return (check.value or 0.0) / check.bound if check.bound else 0.0


def _asked(analysis: Analysis) -> Iterable[BoundedFigure]:
    for name, q in _ASKED:
        latency = analysis.latencies[name]
        value, ends = latency.at(q).value, latency.errors.get(f"p{q}")
        if value is not None and ends is not None:
            yield BoundedFigure(f"{METRICS[name].label} p{q}", value, ends)
