"""One run, worked out once: figures, who failed, who was good. Everything that judges or shows starts here.

It combines `rundata`, `arrivals`, `metrics` and `slo`; it decides nothing (`checks`, `judge_slo`) and writes
nothing (`summary` and the documents).
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from loadgen.records import HungUp
from reports import telemetry
from reports.arrivals import Scan, scan
from reports.metrics import Distribution, Figures, distribution, figures, of_gaps, with_failures
from reports.rundata import Floats, Mask, Run, load_run, slowest_rows
from reports.slo import Condition, Slo, parse
from reports.window import Throughput, output_tokens_inside, throughput

# Where an undefined figure can't break its condition: a one-chunk answer has no TPOT and no gap to stall in.
_VACUOUS = frozenset({"tpot", "stall"})
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
        """Rows an injector turned to, whatever became of them."""
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
    def abandoned(self) -> Mask:
        """Users who hung up after their first token: neither good nor bad."""
        return self.run.is_text("status", "cancelled") & np.isfinite(self.run.column("first_token_ns"))

    @cached_property
    def censored(self) -> Mask:
        """Requests that were cut off since the run ended early: what would have become of them, nobody knows."""
        if "hung_up" not in self.run.requests.column_names:  # written before the reason was kept
            return np.zeros(len(self.run), np.bool_)
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
        good = self.judged & self.run.ok
        shared = np.ones(len(self.run), np.bool_)
        for name, slo in self.class_slos.items():
            if slo.good:
                rows = self.run.is_text("class", name)
                good &= self._meets_all(slo) | ~rows
                shared &= ~rows
        return good & (self._meets_all(self.slo) | ~shared)

    def _meets_all(self, slo: Slo) -> Mask:
        met = np.ones(len(self.run), np.bool_)
        for condition in slo.good:
            met &= meets(condition, self.figures.ms[condition.metric])
        return met

    @cached_property
    def class_slos(self) -> dict[str, Slo]:
        """Objectives of single classes (`workload.classes.NAME.slo`); their `good` replaces the run's for them."""
        classes = (self.run.manifest.spec.get("workload") or {}).get("classes") or {}
        found = {name: parse(one.get("slo"), f"classes.{name}.slo") for name, one in classes.items()}
        return {str(name): slo for name, slo in found.items() if slo or slo.good}

    @property
    def has_good(self) -> bool:
        """Whether anything says what makes a request good besides ending ok."""
        return bool(self.slo.good) or any(slo.good for slo in self.class_slos.values())

    @cached_property
    def throughput(self) -> Throughput | None:
        """Rates over the steady window."""
        return throughput(self.run, self.scan)

    @cached_property
    def good_tokens_inside(self) -> float:
        """Output tokens of good requests that arrived inside the steady window."""
        tokens, _ = output_tokens_inside(self.run, self.scan)
        return float(tokens[self.good].sum())

    @cached_property
    def latencies(self) -> dict[str, Distribution]:
        """By figure, over the ok requests of the measure phase; `itl` among them."""
        wanted = self.run.ok & self.run.measured
        found = {name: distribution(ms, wanted, self.figures.order) for name, ms in self.figures.ms.items()}
        found["itl"] = of_gaps(self.scan.gaps, self.scan.sample, self.figures.order)
        return found

    @cached_property
    def latencies_failed_as_inf(self) -> dict[str, Distribution]:
        """As `latencies`, failures infinitely late; for the figures that a gate judges."""
        wanted = self.run.ok & self.run.measured
        return {
            name: with_failures(self.figures.ms[name], wanted, self.failed, self.figures.order)
            for name in ("ttft", "ttft_from_send", "e2e")
        }

    @cached_property
    def server(self) -> telemetry.Telemetry | None:
        """The server's own metrics, if they were sampled."""
        return None if "server.parquet" in self.run.problems else telemetry.read_server(self.run.path)

    @cached_property
    def gpu(self) -> telemetry.Telemetry | None:
        """The GPUs' samples, if there are any."""
        return None if "gpu.parquet" in self.run.problems else telemetry.read_gpu(self.run.path)

    @cached_property
    def dispatch_lag_ms(self) -> Floats:
        """Lateness of the injector: dispatched - scheduled, or - the hand-over in a closed loop."""
        return self._after_due("dispatched_ns")

    @cached_property
    def send_lag_ms(self) -> Floats:
        """Dispatch lag and connection set-up together."""
        return self._after_due("sent_ns")

    def _after_due(self, event: str) -> Floats:
        """How long after its due time an event came, for the requests of the measure phase that had it."""
        lag = (self.run.column(event) - self.run.due_ns)[self.run.measured] / 1e6
        return np.maximum(lag[~np.isnan(lag)], 0.0)


def meets(condition: Condition, ms: Floats) -> Mask:
    """Where a figure meets a condition."""
    match condition.op:
        case "<":
            met = ms < condition.limit
        case "<=":
            met = ms <= condition.limit
        case ">":
            met = ms > condition.limit
        case _:
            met = ms >= condition.limit
    return met | np.isnan(ms) if condition.metric in _VACUOUS else met


def analyse(run_dir: Path | str) -> Analysis:
    """Work out a collected run directory.

    Raises:
        UserError: files are missing or damaged, or the manifest's SLO does not parse.
    """
    run = load_run(run_dir)
    found = scan(run, bin_ns(run), slowest_rows(run, HOW_MANY))
    return Analysis(run, found, figures(run, found), parse(run.manifest.spec.get("slo")))


def bin_ns(run: Run) -> int:
    """Width of the time bins: a round number of seconds with about _BINS bins over the run."""
    end = max(run.window_ns[1], run.manifest.ended_ns or 0) / 1e9
    steps = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
    return int(1e9 * next((step for step in steps if end / step <= _BINS), steps[-1]))
