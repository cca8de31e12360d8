"""Validity: did our own measuring fail? Each check has its figure, its bound and its remedy.

Decided before anyone looks at the result, and only for faults of the measurement: a target that errs or
dies is not one. A check that could not be made is `unchecked` and says why; it doesn't pass silently.
Checks of the injector's own records are here; those of the server's counters are `reports.validity.server`, those of
the deployment's state and of the files `reports.validity.state`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.rundir.run import Run
from tailgate.reports.telemetry.client import client_column, lag_counts, lag_sum_ns
from tailgate.workloads.common.arrays import Floats, Mask

OFFERED_SHARE: Final = 0.01
# Of a closed loop: what a user's way back may take on the mean, whatever the share.
RETURN_MS: Final = 2.0
BOOKKEEPING_SHARE: Final = 0.005
CLOCK_STEP_MS: Final = 0.1
LOST_SHARE: Final = 0.001

FEWER_USERS: Final = (
    "Free a core for the load generator, use fewer users, or spread them over machines (tailgate worker)."
)

CheckStatus = Literal["ok", "fail", "unchecked", "noted"]


@dataclass(frozen=True)
class Check:
    """One validity check."""

    name: str  # stable identifier, e.g. `dispatch_lag`
    # `ok`, `fail`, `unchecked` (could not be made: see `why`), or `noted`: beyond its bound, which by itself fails no
    # run, since every figure has its own error (`reports.validity.own_error`)
    status: CheckStatus
    value: float | None = None  # what was found, in `unit`; None if it could not be found out
    bound: float | None = None  # largest acceptable value
    unit: str = ""
    why: str = ""  # what it means, or why it could not be made
    remedy: str = ""  # what to do when it fails

    @property
    def holds(self) -> bool:
        """Whether it was made and voids nothing."""
        return self.status in ("ok", "noted")

    def reason(self) -> str:
        """One line for `invalid_reasons`."""
        figures = ""
        if self.value is not None and self.bound:
            figures = f"{self.value:.4g} {self.unit}, at most {self.bound:.4g} {self.unit} is allowed; "
        return f"{self.name}: {figures}{self.why}. {self.remedy}".rstrip(". ") + "."


def at_most(name: str, value: float | None, bound: float, unit: str, why: str, remedy: str) -> Check:
    """A check that holds up to a bound; unchecked without a value."""
    status: CheckStatus = "unchecked" if value is None else "ok" if value <= bound else "fail"
    return Check(name, status, value, bound, unit, why, remedy)


def client_checks(analysis: Analysis) -> Iterator[Check]:
    """All checks of the load generator's own records, in the order of the table in docs/metrics.md."""
    yield _finished(analysis.run)
    yield _offered_load(analysis)
    yield _client_resources(analysis.run)
    yield _bookkeeping(analysis.run)
    yield _clock(analysis.run)
    yield _lost(analysis)


def _finished(run: Run) -> Check:
    missing = int(np.count_nonzero(run.is_text("status", "not_sent", "lost")))
    lost = " or not recorded" if run.is_text("status", "lost").any() else ""
    gone = f"{missing:,} of {len(run):,} requests were not sent{lost}" if missing else "no request is missing"
    reason = f" ({run.manifest.state_reason})" if run.manifest.state_reason else ""
    match run.manifest.state:
        case "interrupted" | "running":
            how = "killed" if run.manifest.recovered else "stopped early"
            text = f"{how}{reason}: {gone}"
            if run.manifest.recovered and not run.manifest.t0_unix_ns and missing == len(run):
                text = f"killed{reason} before its load began: nothing was sent"
            return Check("interrupted", "fail", float(missing), 0.0, "rows", text, "Run it again to its end.")
        case "failed":
            text = f"the run failed{reason}: {gone}; what was measured before is kept"
            remedy = "See events.jsonl and the server's log in the run directory."
            return Check(run.manifest.failed_side or "failed", "fail", None, None, "", text, remedy)
        case "aborted":
            return Check("interrupted", "ok", 0.0, 0.0, "", f"the run stopped itself{reason}: {gone}")
    return Check("interrupted", "ok", 0.0, 0.0, "", "the run came to its end")


def _offered_load(analysis: Analysis) -> Check:
    name, why = "offered_load", "share of due requests that were never attempted"
    if analysis.run.manifest.loop == "closed":
        return _offered_by_users(analysis.run)
    offered = int(np.count_nonzero(analysis.offered))
    if not offered:
        return Check(name, "unchecked", None, 100 * OFFERED_SHARE, "%", "nothing was due in the measure phase")
    skipped = int(np.count_nonzero(analysis.offered & ~analysis.attempted))
    return at_most(
        name, 100 * skipped / offered, 100 * OFFERED_SHARE, "%", why,
        "Look for errors of the injector in events.jsonl; lower the rate or add --injectors.",
    )  # fmt: skip


def _offered_by_users(run: Run) -> Check:
    """A closed loop offers its users' requests: time in which a user could have asked and had not is not offered."""
    late, in_flight, returns = ways_back(run)
    if not returns or not in_flight:
        why = "no user came back for a second request"
        return Check("offered_load", "unchecked", None, 100 * OFFERED_SHARE, "%", why)
    whole = in_flight + late
    return at_most(
        "offered_load", 100 * late / whole, 100 * max(OFFERED_SHARE, RETURN_MS * 1e6 * returns / whole), "%",
        "share of the users' time between a request's end (and their thinking) and their next request", FEWER_USERS,
    )  # fmt: skip


def ways_back(run: Run) -> tuple[float, float, float]:
    """(summed turn-around lag, summed time in flight, in ns; how many users' returns), all from the measure phase on.

    Up to the run's end: who had not come back by the end of the measure phase is booked behind it.
    """
    rows = client_column(run, "t_ns") + client_column(run, "dur_ns") > run.window_ns[0]
    counts = lag_counts(run, "turnaround_lag", rows)
    return lag_sum_ns(counts), float(client_column(run, "in_flight_ns")[rows].sum()), float(counts.sum())


def _client_resources(run: Run) -> Check:
    rows = np.flatnonzero(run.is_text("status", "client_error"))
    where = ""
    if len(rows):
        numbers, counts = np.unique(run.column("injector")[rows], return_counts=True)
        error = run.requests["error"][int(rows[0])].as_py()
        where = f" ({error}; " + ", ".join(f"injector {n:g}: {c:,}" for n, c in zip(numbers, counts, strict=True)) + ")"
    return at_most(
        "client_resources", float(len(rows)), 0.0, "requests",
        f"{len(rows):,} requests for which the load generator had no descriptor, local port or memory{where}",
        "Raise the limit of open files (ulimit -n), widen net.ipv4.ip_local_port_range or name more target addresses.",
    )  # fmt: skip


def _bookkeeping(run: Run) -> Check:
    """What the injector counted while it ran against the records: requests that ended, and time in flight.

    Both have the same readings of the clock, so that they agree to the nanosecond however busy the machine was: only
    rows that are missing or wrong set them apart. Of intervals that a killed injector took along, nothing is compared.
    """
    name, bound = "bookkeeping", 100 * BOOKKEEPING_SHARE
    why = "what the injector counted (requests that ended, their time in flight) against the records of them"
    if not run.client.num_rows:
        return Check(name, "unchecked", None, bound, "%", "client.parquet has no rows")
    injector, begin, end = run.column("injector"), run.column("dispatched_ns"), run.column("end_ns")
    whole = np.isfinite(begin) & np.isfinite(end)
    residence = ended = 0.0
    for number in np.unique(client_column(run, "injector")):
        mine = whole & (injector == number)
        (until_end, ends), (until_begin, _) = (_sampled(run, number, times[mine]) for times in (end, begin))
        residence += float(until_end.sum() - until_begin.sum())
        ended += np.count_nonzero(ends)
    gap = _apart(float(client_column(run, "in_flight_ns").sum()), residence)
    if not run.manifest.recovered:  # which of its last requests a killed injector had counted, nobody knows
        gap = max(gap, _apart(float(client_column(run, "finished").sum()), ended))
    return at_most(name, 100 * gap, bound, "%", why, "Records are missing or wrong: please report it with its folder.")


def _apart(one: float, other: float) -> float:
    most = max(one, other)
    return abs(one - other) / most if most > 0 else 0.0


def _sampled(run: Run, injector: float, t_ns: Floats) -> tuple[Floats, Mask]:
    """How much of an injector's sampled intervals lies before each time, and whether it is in one of them."""
    rows = client_column(run, "injector") == injector
    start, length = client_column(run, "t_ns")[rows], client_column(run, "dur_ns")[rows]
    order = np.argsort(start)
    start, length = start[order], length[order]
    done = np.cumsum(length)
    edges = np.ravel(np.column_stack([start, start + length]))
    before = np.asarray(np.interp(t_ns, edges, np.ravel(np.column_stack([done - length, done]))))
    at = np.searchsorted(start, t_ns, side="right") - 1
    return before, (at >= 0) & (t_ns < (start + length)[at])


def _clock(run: Run) -> Check:
    # Older runs were looked at once a second only.
    looks = "clock_jump_ns" in run.client.column_names
    steps = [0.0, *(client_column(run, "clock_jump_ns").tolist() if looks else [])]
    for number in np.unique(client_column(run, "injector")):
        rows = client_column(run, "injector") == number
        order = np.argsort(client_column(run, "t_ns")[rows])
        offsets = client_column(run, "clock_step_ns")[rows][order]
        steps.append(float(np.abs(np.diff(offsets, prepend=0.0)).max()))
    value = max(steps) / 1e6 if run.client.num_rows else None
    return at_most(
        "clock", value, CLOCK_STEP_MS, "ms", "largest step of the wall clock against the monotonic one",
        "Stop time synchronisation from stepping the clock during a run.",
    )  # fmt: skip


def _lost(analysis: Analysis) -> Check:
    run = analysis.run
    lost = int(np.count_nonzero(run.is_text("status", "lost")))
    return at_most(
        "lost_rows", 100 * lost / max(len(run), 1), 100 * LOST_SHARE, "%",
        f"{lost:,} requests were handed to an injector that never reported them",
        "See events.jsonl: an injector or worker died.",
    )  # fmt: skip
