"""Validity: was the load generator late to send and to read, and so late that the load was another one?

Lateness that every figure's own error accounts for (`reports.validity.own_error`) is `noted`: it names the cause. In
runs whose records don't tell that error the same bounds fail a run.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.rundir.run import Run
from tailgate.reports.telemetry.client import busiest_second, lag_percentile
from tailgate.reports.validity.client import FEWER_USERS, Check, at_most, ways_back
from tailgate.workloads.statistics import arrivals

DISPATCH_LAG_MS: Final = 5.0
TURNAROUND_LAG_MS: Final = 20.0
RECEIVE_LAG_MS: Final = {"kernel": 5.0, "user": 1.0, "virtual": 0.0}
COALESCED_SHARE: Final = 0.005
BUSY_SHARE: Final = 0.85
DISPERSION_SHARE: Final = 0.1
MOVED_SHARE: Final = 0.02


def lateness_checks(analysis: Analysis) -> Iterator[Check]:
    """All of them, in the order of the table in docs/metrics.md."""
    for check in _causes(analysis):
        is_cause = analysis.scan.bounded and check.status == "fail"
        yield replace(check, status="noted") if is_cause else check
    if analysis.scan.bounded and (moved := _other_bursts(analysis)):
        yield moved


def _causes(analysis: Analysis) -> Iterator[Check]:
    """What widens the client's own error of a figure. Of runs that don't tell that error, tests of their own."""
    yield _dispatch_lag(analysis)
    if analysis.run.manifest.loop == "closed":
        yield _turnaround_lag(analysis.run)
    yield _receive_lag(analysis.run)
    yield from _coalesced(analysis)
    yield _busy(analysis.run)


def _dispatch_lag(analysis: Analysis) -> Check:
    limit = analysis.slo.ttft_limit_ms
    bound = max(DISPATCH_LAG_MS, 0.01 * limit if limit else 0.0)
    lag = analysis.dispatch_lag_ms
    # The plain percentile, without a floor: a check must be able to fail a short run.
    value = float(np.percentile(lag, 99, method="inverted_cdf")) if len(lag) else None
    return at_most(
        "dispatch_lag", value, bound, "ms", "p99 of the dispatch lag",
        "Lower the rate, add --injectors, or free a core for the load generator.",
    )  # fmt: skip


def _turnaround_lag(run: Run) -> Check:
    _, in_flight, returns = ways_back(run)
    bound = max(TURNAROUND_LAG_MS, 0.1 * in_flight / returns / 1e6 if returns else 0.0)
    return at_most(
        "turnaround_lag", lag_percentile(run, "turnaround_lag", 99), bound, "ms",
        "p99 of how late users came back for their next request", FEWER_USERS,
    )  # fmt: skip


def _receive_lag(run: Run) -> Check:
    if run.manifest.stamp == "mixed":
        why = "the kernel did not stamp every read as it was asked to, so it is unknown how late answers were read"
        return Check("receive_lag", "fail", None, None, "ms", why, "Run it again; another process may have interfered.")
    bound = RECEIVE_LAG_MS[run.manifest.stamp]
    return at_most(
        "receive_lag", lag_percentile(run, "receive_lag", 99), bound, "ms",
        f"p99 of how late answers were read ({run.manifest.stamp} time stamps)",
        "Free a core for the load generator, or add --injectors.",
    )  # fmt: skip


def _coalesced(analysis: Analysis) -> Iterator[Check]:
    run, remedy = analysis.run, "Free a core for the load generator, or add --injectors."
    chunks = run.column("chunks")[run.measured]
    total, merged = chunks.sum(), run.column("client_coalesced")[run.measured].sum()
    bound = 100 * COALESCED_SHARE
    why = "share of tokens that were read late together with others, so that their own times are not known"
    yield at_most("coalesced_arrivals", 100 * merged / total if total else None, bound, "%", why, remedy)
    first = np.asarray(run.requests["first_token_coalesced"].to_numpy())[run.measured & (run.column("chunks") > 0)]
    why = "share of first tokens that were read late together with others"
    yield at_most("coalesced_first_tokens", 100 * float(first.mean()) if len(first) else None, bound, "%", why, remedy)


def _busy(run: Run) -> Check:
    share = busiest_second(run)
    return at_most(
        "injector_busy", None if share is None else 100 * share, 100 * BUSY_SHARE, "%",
        "largest share of one second in which the injector's thread was computing",
        "Add --injectors, or spread the load over machines (tailgate worker).",
    )  # fmt: skip


def _other_bursts(analysis: Analysis) -> Check | None:
    """A failed check where late sending made other bursts than planned: queues, and so all figures, are not the plan's.

    Judged by the index of dispersion at 1 s; of a handful of requests near a second's edge it says nothing.
    """
    run = analysis.run
    due, begun = run.column("scheduled_ns"), run.column("dispatched_ns")
    rows = run.measured & np.isfinite(due) & np.isfinite(begun)
    if run.manifest.loop != "open" or not rows.any():
        return None
    start_ns = run.window_ns[0]
    planned, sent = ((times[rows] - start_ns) / 1e9 for times in (due, begun))
    windows = int(run.duration_s)
    moved = np.abs(arrivals.counts_in(sent, 1.0, windows) - arrivals.counts_in(planned, 1.0, windows)).sum() / 2
    as_planned, as_sent = (arrivals.dispersion(times, 1.0, run.duration_s).value for times in (planned, sent))
    if as_planned is None or as_sent is None or moved <= MOVED_SHARE * len(planned):
        return None
    # Of a plan more even than Poisson's process, in terms of that: the dispersion of even arrivals is 0.
    change = 100 * abs(as_sent - as_planned) / max(as_planned, 1.0)
    if change <= 100 * DISPERSION_SHARE:
        return None
    return Check(
        "bursts", "fail", change, 100 * DISPERSION_SHARE, "%",
        "requests were sent in other bursts than planned: change of the dispersion of arrivals at 1 s",
        "Lower the rate, add --injectors, or free a core for the load generator.",
    )  # fmt: skip
