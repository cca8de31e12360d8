"""One run, worked out once: figures, who failed, who was good. Everything that judges or shows starts here.

It combines `rundir.run`, `arrivals`, `requests` and `slo`. Judging (`validity`, `summary.objectives`) and writing
(`summary`, `documents`) happen elsewhere.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from tailgate.loadgen.records import HungUp
from tailgate.reports.metrics import own_error
from tailgate.reports.metrics.arrivals import Scan, scan
from tailgate.reports.metrics.requests import (
    OTHER_SIDE,
    Figures,
    LatencyDistribution,
    Side,
    figures,
    in_time_order,
    of_gaps,
    with_failures,
)
from tailgate.reports.metrics.slo import HOLDS, Slo, parse
from tailgate.reports.metrics.throughput import Throughput, output_tokens_inside, throughput
from tailgate.reports.rundir import telemetry
from tailgate.reports.rundir.replicas import several_behind
from tailgate.reports.rundir.run import Run, load_run, slowest_rows
from tailgate.reports.stats.order_statistics import PERCENTILES
from tailgate.workloads.common.arrays import Floats, Mask

# Figures that a one-chunk answer has not got, so that it can't break a condition on them.
_OF_SEVERAL_CHUNKS = frozenset({"tpot", "stall"})
# Time bins of the report: at most about this many over the whole run.
_BINS = 150
# The slowest requests, which are shown one by one.
HOW_MANY = 20


@dataclass(frozen=True)
class Analysis:
    """A run with its figures. Masks have one entry per row of `run.requests`."""

    run: Run
    scan: Scan
    figures: Figures
    slo: Slo

    @cached_property
    def attempted(self) -> Mask:
        """Rows that an injector turned to, whatever their outcome."""
        return ~self.run.is_text("status", "not_sent", "lost")

    @cached_property
    def offered(self) -> Mask:
        """Requests of the measure phase whose time came: the denominator of every share.

        Rows beyond an early end, and turns that never got a time since their session ended before, did not.
        """
        scheduled = self.run.column("scheduled_ns")
        came = self.attempted | (scheduled < self.run.window_ns[1]) | self.run.is_text("status", "lost")
        return self.run.measured & came

    @cached_property
    def sent_rps(self) -> float | None:
        """Requests per second that were turned to inside the steady window, whenever they had been due."""
        seconds, sent = self.run.duration_s, self.run.inside(self.run.column("dispatched_ns"))
        return float(np.count_nonzero(sent) / seconds) if seconds else None

    @cached_property
    def abandoned(self) -> Mask:
        """Users who hung up after their first token: neither good nor bad."""
        return self.run.is_text("status", "cancelled") & np.isfinite(self.run.column("first_token_ns"))

    @cached_property
    def censored(self) -> Mask:
        """Requests that were cut off by an early end of the run: their outcome is unknown."""
        return self.run.is_text("hung_up", HungUp.STOPPED)

    @cached_property
    def judged(self) -> Mask:
        """Offered requests that count as good or bad."""
        return self.offered & ~self.abandoned & ~self.censored

    @cached_property
    def failed(self) -> Mask:
        """Judged requests that did not end ok: infinitely late where failures count."""
        return self.judged & ~self.run.ok

    @cached_property
    def good(self) -> Mask:
        """Judged requests that ended ok and met every per-request condition of their class's or the run's SLO."""
        return self.judged & self.met

    @cached_property
    def met(self) -> Mask:
        """Good requests of any phase: the tokens of one that began in the warm-up may arrive in the window."""
        return self._meeting(benefit_of_doubt=False)

    @cached_property
    def surely_met(self) -> Mask:
        """Requests of any phase that are good whatever the client's own error did to them."""
        return self._meeting(benefit_of_doubt=False, side="high")

    @cached_property
    def possibly_met(self) -> Mask:
        """Requests of any phase that are good if the client's own error made them look as bad as it could."""
        return self._meeting(benefit_of_doubt=True, side="low")

    def good_of(self, side: Side) -> Mask:
        """Good requests as best known, or at an end of the client's own error: at the low one they are most."""
        return self.judged & {"best": self.met, "low": self.possibly_met, "high": self.surely_met}[side]

    @cached_property
    def unknown(self) -> Mask:
        """Ok requests of any phase that may be good: a latency of theirs is unknown, since arrivals were not kept."""
        return self._meeting(benefit_of_doubt=True) & ~self.met

    def _meeting(self, benefit_of_doubt: bool, side: Side = "best") -> Mask:
        """Ok requests that meet every condition of their class's or the run's SLO.

        `side` is the end of the client's own error that is held against limits from above; against limits from below
        the other one is.
        """
        meeting = self.run.ok.copy()
        shared = np.ones(len(self.run), np.bool_)
        for name, slo in self.class_slos.items():
            if slo.good:
                rows = self.run.is_text("class", name)
                meeting &= self._meets_all(slo, benefit_of_doubt, side) | ~rows
                shared &= ~rows
        return meeting & (self._meets_all(self.slo, benefit_of_doubt, side) | ~shared)

    def _meets_all(self, slo: Slo, benefit_of_doubt: bool, side: Side) -> Mask:
        meeting = np.ones(len(self.run), np.bool_)
        for condition in slo.good:
            end = side if condition.op in ("<", "<=") else OTHER_SIDE[side]
            ms, unknown = self.figures.of(end)[condition.metric], self.not_known(condition.metric)
            met = np.asarray(HOLDS[condition.op](ms, condition.limit))
            if condition.metric in _OF_SEVERAL_CHUNKS:
                met |= np.isnan(ms) & ~unknown
            meeting &= met | unknown if benefit_of_doubt else met
        return meeting

    def not_known(self, metric: str) -> Mask:
        """Ok requests whose figure exists but isn't known: gaps without arrivals, TPOT without usage."""
        several = self.run.ok & (self.run.column("chunks") > 1)
        match metric:
            case "stall" | "jitter" | "itl":
                return several & ~np.isfinite(self.scan.longest_ms)
            case "tpot":
                return several & np.isnan(self.run.output_tokens)
            case _:
                return np.zeros(len(self.run), np.bool_)

    @cached_property
    def class_slos(self) -> dict[str, Slo]:
        """Objectives of single classes (`workload.classes.NAME.slo`); their `good` replaces the run's for them."""
        classes = (self.run.manifest.spec.get("workload") or {}).get("classes") or {}
        slos = {name: parse(stated.get("slo"), f"classes.{name}.slo") for name, stated in classes.items()}
        return {str(name): slo for name, slo in slos.items() if slo or slo.good}

    @property
    def begin_ns(self) -> Floats:
        """When each request's latency began to count: its planned time, in a closed loop its sending."""
        return self.run.column("scheduled_ns" if self.run.manifest.loop == "open" else "sent_ns")

    @property
    def has_good(self) -> bool:
        """Whether anything says what makes a request good besides ending ok."""
        return bool(self.slo.good) or any(slo.good for slo in self.class_slos.values())

    @cached_property
    def throughput(self) -> Throughput | None:
        return throughput(self.run, self.scan)

    @cached_property
    def good_tokens_inside(self) -> float:
        """Output tokens of good answers that arrived inside the steady window; NaN where that is not known.

        Answers that began in the warm-up count like the others: their tokens are in the window's output too.
        """
        tokens, _ = output_tokens_inside(self.run, self.scan)
        return float(tokens[self.met].sum()) if not self.unknown.any() else float("nan")

    @cached_property
    def latencies(self) -> dict[str, LatencyDistribution]:
        """By figure, over the ok requests of the measure phase; `itl` among them."""
        latencies = {name: self.distribution_of(name, self.run.ok & self.run.measured) for name in self.figures.ms}
        itl = of_gaps(self.scan.gaps, self.scan.sample, self.figures.order)
        if self.scan.bounded:
            itl = replace(itl, errors=own_error.of_gaps(self.scan.gaps_low, self.scan.gaps_high, PERCENTILES))
        latencies["itl"] = itl
        return latencies

    def distribution_of(self, name: str, wanted: Mask, failed: Mask | None = None) -> LatencyDistribution:
        """One figure of some requests, with the client's own error; those of `failed` are infinitely late."""
        figures = self.figures
        late = np.zeros(len(self.run), np.bool_) if failed is None else failed
        found = with_failures(figures.ms[name], wanted, late, figures.order)
        if not self.scan.bounded:
            return found
        low, high = (
            in_time_order(np.where(late, np.inf, side[name]), wanted | late, figures.order)
            for side in (figures.low, figures.high)
        )
        return replace(found, errors=own_error.of_series(low, high, PERCENTILES))

    @cached_property
    def latencies_failed_as_inf(self) -> dict[str, LatencyDistribution]:
        """The latencies that a gate judges, with failures as infinitely late."""
        wanted = self.run.ok & self.run.measured
        return {name: self.distribution_of(name, wanted, self.failed) for name in ("ttft", "ttft_from_send", "e2e")}

    @cached_property
    def server(self) -> telemetry.Telemetry | None:
        """The servers' own samples; None where there are none, or where one URL's are several servers' in turn."""
        return None if self.several_behind else self._sampled

    @cached_property
    def several_behind(self) -> tuple[str, ...]:
        """The URLs behind which several servers answer: found before the load, or told by their samples."""
        sampled = several_behind(self._sampled) if self._sampled is not None else ()
        return tuple(sorted({*sampled, *self.run.manifest.telemetry.get("several_behind", ())}))

    @cached_property
    def _sampled(self) -> telemetry.Telemetry | None:
        return self.run.sampled("server")

    @cached_property
    def gpu(self) -> telemetry.Telemetry | None:
        return self.run.sampled("gpu")

    @cached_property
    def dispatch_lag_ms(self) -> Floats:
        """Lateness of the injector: dispatched - scheduled, or - the hand-over in a closed loop."""
        return self._after_due("dispatched_ns")

    @cached_property
    def send_lag_ms(self) -> Floats:
        return self._after_due("sent_ns")

    def _after_due(self, event: str) -> Floats:
        """How long after its due time an event came, for the requests of the measure phase that had it."""
        lag = (self.run.column(event) - self.run.due_ns)[self.run.measured] / 1e6
        return np.maximum(lag[~np.isnan(lag)], 0.0)


def analyse(run_dir: Path | str) -> Analysis:
    """Work out a collected run directory."""
    return analyse_run(load_run(run_dir))


def analyse_run(run: Run) -> Analysis:
    """Work out a run."""
    arrivals = scan(run, bin_ns(run), slowest_rows(run, HOW_MANY))
    return Analysis(run, arrivals, figures(run, arrivals), parse(run.manifest.spec.get("slo")))


def bin_ns(run: Run) -> int:
    """Width of the time bins: a round number of seconds with about _BINS bins over the run."""
    end = max(run.window_ns[1], run.manifest.ended_ns or 0) / 1e9
    steps = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
    return int(1e9 * next((step for step in steps if end / step <= _BINS), steps[-1]))
