"""What a gate can judge: figures of a run's summary, which way is worse, the margin each has by default, and why some
runs have no figure that can be compared.

Percentiles that a target could improve by failing count failures as infinitely late (docs/metrics.md). A mean can't: a
single failure would make it infinite. It is over the requests that ended ok, and the error rule judges the others.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tailgate.reports.compare.runs import StoredRun
from tailgate.reports.metrics.catalogue import LATENCIES, METRICS, Metric
from tailgate.reports.summary.findings import FindingKind
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.validation import meant

STATISTICS: Final = ("mean", "p50", "p90", "p95", "p99", "p99.9")
# Sides whose chunks hold several tokens this much more often than the other's have gaps that mean other things.
MULTI_TOKEN_SHARE: Final = 0.01
# Of a closed loop's users' time: what they do besides waiting dilutes a slowdown by as much.
WAITING_SHARE: Final = 0.9
_MARGIN: Final = re.compile(r"\s*([+-]?)(\d+(?:\.\d+)?)\s*%\s*")


@dataclass(frozen=True)
class GateMetric(Metric):
    """One metric that gates, of latencies one statistic."""

    # what is acceptable, as a fraction of the baseline (positive, whichever way is worse)
    margin: float = field(kw_only=True)

    @property
    def latency(self) -> bool:
        """Whether it is a latency; other figures are decided by what the target can carry."""
        return self.judged == "latency"

    @property
    def figure(self) -> str:
        """`ttft` of `ttft.p99`; of other figures the key."""
        return self.key.partition(".")[0] if self.latency else self.key

    @property
    def percentile(self) -> float | None:
        """99 of `ttft.p99`."""
        statistic = self.key.partition(".p")[2] if self.latency else ""
        return float(statistic) if statistic else None

    @property
    def ok_only(self) -> bool:
        """Whether it leaves out failures that its percentiles count."""
        return self.failures_count and self.percentile is None

    @property
    def log_margin(self) -> float:
        """The margin as a difference of logarithms in the direction that is worse."""
        return -math.log1p(-self.margin) if self.higher else math.log1p(self.margin)

    def worse_log(self, value: float) -> float:
        """The value's logarithm, turned so that larger is worse."""
        return -math.log(value) if self.higher else math.log(value)

    def ratio(self, worse_log: float) -> float:
        """Candidate / baseline of a difference of such logarithms."""
        return math.exp(-worse_log if self.higher else worse_log)


def gate_metric(key: str, margin: str | None = None) -> GateMetric:
    """A metric of a policy; a ValueError says what of it can't be understood."""
    metric = _catalogued(key)
    return GateMetric(**vars(metric), margin=default_margin(metric) if margin is None else _margin(metric, margin))


def _catalogued(key: str) -> Metric:
    latencies = {metric.key: metric for metric in LATENCIES if metric.gated}
    others = [metric.key for metric in METRICS.values() if metric.gated and metric.key not in latencies]
    figure, _, statistic = key.partition(".")
    if key in others:
        return METRICS[key]
    if figure in latencies and statistic in STATISTICS:
        return latencies[figure].at(statistic, latencies[figure].failures_count and statistic != "mean")
    if key in latencies:
        raise ValueError(f"{key}: which statistic? write e.g. `{key}.p90` ({', '.join(STATISTICS)})")
    hint = meant(key, [*(f"{name}.{statistic}" for name in latencies for statistic in STATISTICS), *others])
    listed = f"{', '.join(latencies)} with one of {', '.join(STATISTICS)}; {', '.join(others)}"
    raise ValueError(f"unknown metric {key!r} ({hint if hint.startswith('did') else f'known: {listed}'})")


def default_margin(metric: Metric) -> float:
    """5 % for means and medians, 10 % for the tail, 3 % for what a target can carry and what it costs."""
    if metric.judged != "latency":
        return 0.03
    return 0.05 if metric.key.endswith((".mean", ".p50")) else 0.10


def _margin(metric: Metric, text: str) -> float:
    key, higher, match = metric.key, metric.higher, _MARGIN.fullmatch(str(text))
    if match is None:
        number = str(text).strip().lstrip("+-")
        share = number if re.fullmatch(r"\d{1,2}(\.\d+)?", number) else "3" if higher else "5"
        raise ValueError(f"{key}: {text!r} is not a margin (write e.g. {'-' if higher else ''}{share}%)")
    margin = float(match[2]) / 100
    if (match[1] == "-") != higher and match[1]:
        way = "less is worse: write it with a minus" if higher else "more is worse: write it without a minus"
        raise ValueError(f"{key}: {text!r} points the wrong way ({way})")
    if not 0 < margin < 1:
        raise ValueError(f"{key}: a margin lies between 0 and 100 %, not {text!r}")
    return margin


def require_load(metric: GateMetric, where: str) -> UserError:
    """The error of gating a figure that the load decides, not the target."""
    return UserError(
        f"load-limited: in an open loop below saturation both sides serve what is offered, so that {metric.key} can't"
        " tell a slower target",
        where=where,
        remedy="Add a saturated point (points: {saturated: closed 256}).",
    )


def lacking(metric: GateMetric, *sides: tuple[Sequence[float | None], Sequence[StoredRun]]) -> str:
    """Why a figure is missing although there could be one: too few requests for a percentile."""
    for values, runs in sides:
        for value, run in zip(values, runs, strict=True):
            if value is not None:
                continue
            require_figure(metric, run)
            needs = _needs(metric, run) or 0
            had = run.summary.latency_ms[metric.figure].n
            return f"{metric.label} needs {needs:,} requests a run, {run.path.name} had {had:,}"
    return ""


def require_figure(metric: GateMetric, run: StoredRun) -> None:
    """Refuse a run that lacks a figure, unless its requests were only too few for a percentile."""
    if run.value(metric) is None and _needs(metric, run) is None:
        raise UserError(
            f"{run.path.name} ({run.label}) has no {metric.key}", where=f"metrics.{metric.key}", remedy=_remedy(metric)
        )


def _needs(metric: GateMetric, run: StoredRun) -> int | None:
    if metric.percentile is None:
        return None
    return run.summary.percentile_needs.get(metric.figure, {}).get(f"p{metric.percentile:g}")


def _remedy(metric: GateMetric) -> str:
    if metric.key.startswith("cost"):
        return "Give the price of its GPUs (gpus: {type: h100-sxm} or {price_per_hour: 2.49})."
    if metric.key.startswith("energy"):
        return "Energy needs GPU telemetry on both sides."
    if metric.key == "goodput":
        return "Goodput needs an SLO that says what a good request is (slo: {good: ...})."
    return "Gate a figure that both sides have."


def load_limited(runs: Sequence[StoredRun]) -> str:
    """Why it was not up to the target what was carried: users who did something else than wait for it."""
    for run in runs:
        if run.overloaded:  # an open loop beyond what the target carries
            continue
        share = run.waiting_share
        if share is None:
            return f"load-limited: {run.path.name} doesn't tell how much of their time its users waited"
        if share < WAITING_SHARE:
            return (
                f"load-limited: the users of {run.path.name} waited for answers in {100 * share:.0f} % of their time"
                f" (at least {100 * WAITING_SHARE:.0f} %): what was carried was up to them too"
            )
    return ""


def usage_refused(metric: GateMetric, runs: Sequence[StoredRun]) -> str:
    """Why a figure that counts tokens can't be compared; empty if it can."""
    if not metric.counts_tokens:
        return ""
    for run in runs:
        if wrong := run.summary.streaming.usage_contradicted:
            return (
                f"the server's usage contradicts the stream in {wrong:,} answers of {run.path.name}: how many tokens"
                " came is an estimate"
            )
        if missing := run.summary.streaming.usage_missing:
            return f"{missing:,} answers of {run.path.name} came without usage: how many tokens came is an estimate"
    return ""


def tpot_refused(baseline: Sequence[StoredRun], candidate: Sequence[StoredRun]) -> str:
    """Why TPOT can't be compared; empty if it can. Where it is a bound on both sides alike, its ratio still tells."""
    if not any(run.summary.streaming.tpot_is_bound for run in (*baseline, *candidate)):
        return ""
    if differ := _several_tokens_differ(baseline, candidate):
        return f"{differ}, and no one tells how many tokens came first: TPOT is a lower bound. Gate e2e and stall"
    return ""


def _several_tokens_differ(baseline: Sequence[StoredRun], candidate: Sequence[StoredRun]) -> str:
    """In words, where the chunks of one side hold several tokens more often than the other's."""
    shares = [[share for run in side if (share := run.multi_token_share) is not None] for side in (baseline, candidate)]
    if not all(shares):
        return ""
    a, b = (sum(side) / len(side) for side in shares)
    if abs(a - b) <= MULTI_TOKEN_SHARE:
        return ""
    return (
        f"{100 * a:.1f} % of the baseline's chunks hold several tokens, {100 * b:.1f} % of the candidate's (speculative"
        " decoding, stream_interval)"
    )


def itl_refused(baseline: Sequence[StoredRun], candidate: Sequence[StoredRun]) -> str:
    """Why the gaps between chunks can't be compared; empty if they can."""
    if differ := _several_tokens_differ(baseline, candidate):
        return f"{differ}: their gaps mean different things. Gate tpot and stall"
    for run in (*baseline, *candidate):
        if any(finding.kind == FindingKind.GATEWAY_COALESCED for finding in run.summary.findings):
            return f"a gateway sends tokens bundled ({run.path.name}). Gate tpot and stall"
    return ""
