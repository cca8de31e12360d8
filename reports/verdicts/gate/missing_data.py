"""Why a figure of these runs can not be compared: one lacks it, it means other things, or is not up to the target."""

from collections.abc import Sequence
from typing import Final

from tailgate.reports.verdicts.gate.metrics import GateMetric
from tailgate.reports.verdicts.gate.runs import GateRun
from tailgate.workloads.common.errors import UserError

# Sides whose chunks hold several tokens this much more often than the other's have gaps that mean other things.
MULTI_TOKEN_SHARE: Final = 0.01
# Of a closed loop's users' time: what they do besides waiting dilutes a slowdown by as much.
WAITING_SHARE: Final = 0.9


def lacking(metric: GateMetric, *sides: tuple[Sequence[float | None], Sequence[GateRun]]) -> str:
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


def require_figure(metric: GateMetric, run: GateRun) -> None:
    """Whether a run has a figure, or lacks it only since its requests were too few for a percentile.

    Raises:
        UserError: it lacks it for another reason.
    """
    if metric.value(run.summary) is None and _needs(metric, run) is None:
        raise UserError(
            f"{run.path.name} ({run.side}) has no {metric.key}", where=f"metrics.{metric.key}", remedy=_remedy(metric)
        )


def _needs(metric: GateMetric, run: GateRun) -> int | None:
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


def load_limited(runs: Sequence[GateRun]) -> str:
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


def itl_refused(base: Sequence[GateRun], other: Sequence[GateRun]) -> str:
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
