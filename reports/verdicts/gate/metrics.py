"""What a gate can judge: figures of a run's summary, which way is worse, the margin each has by default, and why some
runs have no figure that can be compared.

Percentiles that a target could improve by failing count failures as infinitely late (docs/metrics.md). A mean can't: a
single failure would make it infinite. It is over the requests that ended ok, and the error rule judges the others.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.validation import meant

if TYPE_CHECKING:
    from tailgate.reports.verdicts.gate.runs import GateRun

LATENCIES: Final = ("ttft", "ttft_from_send", "itl", "tpot", "stall", "e2e", "normalized_e2e")
STATISTICS: Final = ("mean", "p50", "p90", "p95", "p99", "p99.9")
# Decided by what the target can carry: below saturation an open loop serves what it is offered, on both sides.
LOAD_LIMITED: Final = {
    "output_tokens_per_s": (("throughput", "output_tokens_per_s"), True),
    "total_tokens_per_s": (("throughput", "total_tokens_per_s"), True),
    "requests_per_s": (("throughput", "requests_per_s"), True),
    "goodput": (("slo", "goodput_rps"), True),
    "cost.per_million_output": (("cost", "per_million_output"), False),
    "cost.per_million_total": (("cost", "per_million_total"), False),
    "energy.j_per_output_token": (("energy", "j_per_output_token"), False),
}
_FAILURES_COUNT: Final = ("ttft", "ttft_from_send", "e2e")
_LABELS: Final = {
    "ttft": "TTFT", "ttft_from_send": "TTFT from send", "itl": "ITL", "tpot": "TPOT", "stall": "stall", "e2e": "E2E",
    "normalized_e2e": "E2E per token", "output_tokens_per_s": "output tokens/s", "total_tokens_per_s": "tokens/s",
    "requests_per_s": "requests/s", "goodput": "goodput", "cost.per_million_output": "$ per million output tokens",
    "cost.per_million_total": "$ per million tokens", "energy.j_per_output_token": "J per output token",
}  # fmt: skip
# Sides whose chunks hold several tokens this much more often than the other's have gaps that mean other things.
MULTI_TOKEN_SHARE: Final = 0.01
# Of a closed loop's users' time: what they do besides waiting dilutes a slowdown by as much.
WAITING_SHARE: Final = 0.9
_MARGIN: Final = re.compile(r"\s*([+-]?)(\d+(?:\.\d+)?)\s*%\s*")


@dataclass(frozen=True)
class GateMetric:
    """One figure that gates.

    Attributes:
        key: as in a policy, e.g. `ttft.p99`.
        margin: what is acceptable, as a fraction of the baseline (positive, whichever way is worse).
        path: where it stands in a summary.
        higher: whether more is better.
    """

    key: str
    margin: float
    path: tuple[str, ...]
    higher: bool

    @property
    def latency(self) -> bool:
        """Whether it is a latency; other figures are decided by what the target can carry."""
        return self.key not in LOAD_LIMITED

    @property
    def figure(self) -> str:
        """`ttft` of `ttft.p99`; of other figures the key."""
        return self.key.partition(".")[0] if self.latency else self.key

    @property
    def percentile(self) -> float | None:
        """99 of `ttft.p99`."""
        found = re.fullmatch(r".*\.p(\d+(?:\.\d+)?)", self.key) if self.latency else None
        return float(found[1]) if found else None

    @property
    def ok_only(self) -> bool:
        """Whether it leaves out failures that its percentiles count."""
        return self.figure in _FAILURES_COUNT and self.percentile is None

    @property
    def label(self) -> str:
        """As people read it."""
        statistic = f" {self.key.partition('.')[2]}" if self.latency else ""
        return _LABELS[self.figure] + statistic

    @property
    def unit(self) -> str:
        """Of its values."""
        if self.latency:
            return "ms"
        return "$" if self.key.startswith("cost") else "J" if self.key.startswith("energy") else "/s"

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

    def value(self, summary: Mapping[str, Any]) -> float | None:
        """The run's figure: infinite where failures make it so, None where it has none (or not enough requests)."""
        found: Any = summary
        for name in self.path:
            found = found.get(name) if isinstance(found, Mapping) else None
        if found == "inf":
            return math.inf
        return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def gate_metric(key: str, margin: str | None = None) -> GateMetric:
    """A metric of a policy.

    Raises:
        ValueError: no such figure, or the margin can't be understood.
    """
    figure, _, statistic = key.partition(".")
    path: tuple[str, ...]
    if key in LOAD_LIMITED:
        path, higher = LOAD_LIMITED[key]
    elif figure in LATENCIES and (statistic or "mean") in STATISTICS:
        if not statistic:
            raise ValueError(f"{key}: which statistic? write e.g. `{key}.p90` ({', '.join(STATISTICS)})")
        path, higher = (_source(figure, statistic), figure, statistic), False
    else:
        known = [*(f"{name}.{one}" for name in LATENCIES for one in STATISTICS), *LOAD_LIMITED]
        hint = meant(key, known)
        listed = f"{', '.join(LATENCIES)} with one of {', '.join(STATISTICS)}; {', '.join(LOAD_LIMITED)}"
        raise ValueError(f"unknown metric {key!r} ({hint if hint.startswith('did') else f'known: {listed}'})")
    wanted = _margin(key, margin, higher) if margin is not None else default_margin(key)
    return GateMetric(key, wanted, path, higher)


def default_margin(key: str) -> float:
    """5 % for means and medians, 10 % for the tail, 3 % for what a target can carry and what it costs."""
    if key in LOAD_LIMITED:
        return 0.03
    return 0.05 if key.endswith((".mean", ".p50")) else 0.10


def _source(figure: str, statistic: str) -> str:
    return "latency_failed_as_inf_ms" if figure in _FAILURES_COUNT and statistic != "mean" else "latency_ms"


def _margin(key: str, text: str, higher: bool) -> float:
    match = _MARGIN.fullmatch(str(text))
    if match is None:
        number = str(text).strip().lstrip("+-")
        meant_share = number if re.fullmatch(r"\d{1,2}(\.\d+)?", number) else "3" if higher else "5"
        raise ValueError(f"{key}: {text!r} is not a margin (write e.g. {'-' if higher else ''}{meant_share}%)")
    share = float(match[2]) / 100
    if (match[1] == "-") != higher and match[1]:
        way = "less is worse: write it with a minus" if higher else "more is worse: write it without a minus"
        raise ValueError(f"{key}: {text!r} points the wrong way ({way})")
    if not 0 < share < 1:
        raise ValueError(f"{key}: a margin lies between 0 and 100 %, not {text!r}")
    return share


def require_load(metric: GateMetric, where: str) -> UserError:
    """The error of gating a figure that the load decides, not the target."""
    return UserError(
        f"load-limited: in an open loop below saturation both sides serve what is offered, so that {metric.key} can't"
        " tell a slower target",
        where=where,
        remedy="Add a saturated point (points: {saturated: closed 256}).",
    )


def lacking(metric: GateMetric, *sides: "tuple[Sequence[float | None], Sequence[GateRun]]") -> str:
    """Why a figure is missing although there could be one: too few requests for a percentile.

    Raises:
        UserError: a side never has it.
    """
    for values, runs in sides:
        for value, run in zip(values, runs, strict=True):
            if value is not None:
                continue
            require_figure(metric, run)
            needs = _needs(metric, run) or 0
            had = run.summary["latency_ms"][metric.figure]["n"]
            return f"{metric.label} needs {needs:,} requests a run, {run.path.name} had {had:,}"
    return ""


def require_figure(metric: GateMetric, run: "GateRun") -> None:
    """Whether a run has a figure, or lacks it only since its requests were too few for a percentile.

    Raises:
        UserError: it lacks it for another reason.
    """
    if metric.value(run.summary) is None and _needs(metric, run) is None:
        raise UserError(
            f"{run.path.name} ({run.side}) has no {metric.key}", where=f"metrics.{metric.key}", remedy=_remedy(metric)
        )


def _needs(metric: GateMetric, run: "GateRun") -> int | None:
    if metric.percentile is None:
        return None
    needs = (run.summary.get("percentile_needs") or {}).get(metric.figure) or {}
    found = needs.get(metric.key.partition(".")[2])
    return None if found is None else int(found)


def _remedy(metric: GateMetric) -> str:
    if metric.key.startswith("cost"):
        return "Give the price of its GPUs (gpus: {type: h100-sxm} or {price_per_hour: 2.49})."
    if metric.key.startswith("energy"):
        return "Energy needs GPU telemetry on both sides."
    if metric.key == "goodput":
        return "Goodput needs an SLO that says what a good request is (slo: {good: ...})."
    return "Gate a figure that both sides have."


def load_limited(runs: "Sequence[GateRun]") -> str:
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


def itl_refused(base: "Sequence[GateRun]", other: "Sequence[GateRun]") -> str:
    """Why the gaps between chunks can't be compared; empty if they can."""
    shares = [[r.multi_token_share for r in side if r.multi_token_share is not None] for side in (base, other)]
    if all(shares):
        a, b = (sum(side) / len(side) for side in shares)
        if abs(a - b) > MULTI_TOKEN_SHARE:
            return (
                f"{100 * a:.1f} % of the baseline's chunks hold several tokens, {100 * b:.1f} % of the candidate's"
                " (speculative decoding, stream_interval): their gaps mean different things. Gate tpot and stall"
            )
    for run in (*base, *other):
        if any(finding["kind"] == "gateway_coalesced" for finding in run.summary.get("findings", ())):
            return f"a gateway sends tokens bundled ({run.path.name}). Gate tpot and stall"
    return ""
