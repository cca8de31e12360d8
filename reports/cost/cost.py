"""What the answers cost: per million tokens, per request, per group, and what was wasted.

Input and output cost add up to the bill: `C_in = $ / (T_in + r T_out)`, `C_out = r C_in`, where r is what an
output token costs in input tokens (default 4, stated with the result). Prompt tokens found in the prefix
cache may be counted at a share of an input token (default 1). Tokens are those of the steady window, as
throughput counts them; the bill is the price of its length. Prices are `reports.cost.prices`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tailgate.reports.cost.prices import Price, price_of
from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.breakdown import Key, key
from tailgate.reports.metrics.throughput import (
    answered_inside,
    ended_inside,
    output_tokens_inside,
    prompt_tokens_inside,
)
from tailgate.reports.rundir.fingerprint import gpu_count
from tailgate.workloads.common.arrays import Floats, Mask

PRICE_RATIO: Final = 4.0
# Requests that the server turned away, or never saw.
_NO_WORK: Final = ("rejected", "http_error", "connect_error", "client_error", "not_sent", "lost")


@dataclass(frozen=True)
class GroupCost:
    """One group's part of the bill, by its tokens."""

    name: str
    usd: float
    share: float
    usd_per_request: float | None
    usd_per_million_output: float | None


@dataclass(frozen=True)
class Cost:
    """The bill of the steady window and what it bought; dollars. NaN where arrivals were not kept."""

    # whose bill it is: the configuration's name; the model with its revision, the server with its version
    label: str
    model: str
    server: str
    gpu: str  # type
    gpus: int
    usd_per_gpu_hour: float
    price_source: str
    usd_per_hour: float  # of the whole deployment
    usd: float  # of the steady window
    price_ratio: float  # r, what an output token costs in input tokens
    cached_ratio: float  # what a cached input token costs in input tokens
    per_million_output: float | None  # the whole bill over the output tokens
    per_million_total: float | None  # over input and output tokens
    per_million_output_at_slo: float | None  # over good requests' output tokens only; None without an SLO
    # per million of each; the parts add up to the bill
    split_input: float | None
    split_cached_input: float | None
    split_output: float | None
    # over ok, and over good requests that ended in the window
    per_request: float | None
    per_good_request: float | None
    by_class: tuple[GroupCost, ...]
    by_tenant: tuple[GroupCost, ...]
    by_tier: tuple[GroupCost, ...]
    wasted: dict[str, float]  # dollars spent on `failed`, `late` (ok but not good) and `cancelled` requests
    # how many `failed` and `cancelled` requests were sent and showed no token before they ended inside the window: what
    # the server did for them is not known, so that their waste is at least that
    unknown_work: dict[str, int]
    idle_share: float | None  # 1 - stated demand / capacity; None unless both are known
    served_rps_at_demand: float | None  # the stated demand, or the stated capacity where that is less
    # what output costs at that rate; None where no capacity is stated and the demand is more than this run served:
    # nothing shows then that the deployment can serve it
    usd_per_million_output_at_demand: float | None


def split(usd: float, tokens_in: float, tokens_out: float, ratio: float) -> tuple[float, float] | None:
    """(dollars per input token, per output token) such that both parts add up to `usd`; None without tokens."""
    weight = tokens_in + ratio * tokens_out
    return (usd / weight, ratio * usd / weight) if weight > 0 else None


def fit_price_ratio(gpu_seconds: Floats, tokens_in: Floats, tokens_out: Floats) -> float | None:
    """r from runs at saturation with different prompt:output mixes; arrays with one entry per run.

    Least squares of `gpu_seconds = a T_in + b T_out`; r = b / a. None with fewer than three runs, or where
    the mixes don't tell the two apart.
    """
    if len(gpu_seconds) < 3:
        return None
    matrix = np.column_stack([tokens_in, tokens_out]).astype(np.float64)
    scale = matrix.max(axis=0)
    if (scale <= 0).any() or np.linalg.cond(matrix / scale) > 100:
        return None
    a, b = np.linalg.lstsq(matrix / scale, gpu_seconds, rcond=None)[0] / scale
    return float(b / a) if a > 0 and b > 0 else None


def idle_share(demand_rps: float, capacity_rps: float) -> float:
    """Share of a deployment's capacity that a demand leaves unused; 0 where demand exceeds it."""
    return max(0.0, 1 - demand_rps / capacity_rps) if capacity_rps > 0 else 0.0


def cost(analysis: Analysis) -> Cost | None:
    """The cost of a run by its spec's `gpus:`; None without a price or a window."""
    gpus: dict[str, Any] = analysis.run.manifest.spec.get("gpus") or {}
    price = price_of(gpus)
    if price is None or analysis.run.duration_s <= 0:
        return None
    return cost_at(analysis, price, gpus)


def cost_at(analysis: Analysis, price: Price, gpus: Mapping[str, Any]) -> Cost:
    run, seconds = analysis.run, analysis.run.duration_s
    # A stated price without a stated or seen number is that of one.
    count = gpu_count(run.manifest) or 1
    ratio = float(gpus.get("price_ratio") or PRICE_RATIO)
    per_hour = price.usd_per_gpu_hour * count
    usd = per_hour / 3600 * seconds
    out, _ = output_tokens_inside(run, analysis.scan)
    prompt = prompt_tokens_inside(run)
    tokens_in, tokens_out = float(prompt.sum()), float(out.sum())
    cached = np.where(answered_inside(run), np.nan_to_num(run.column("cached_tokens")), 0.0)
    share = gpus.get("cached_price_ratio")
    cached_ratio = 1.0 if share is None else float(share)
    weight_in = prompt - (1 - cached_ratio) * np.minimum(cached, prompt)
    parts = split(usd, float(weight_in.sum()), tokens_out, ratio)
    each = weight_in + ratio * out
    spent = usd * each / each.sum() if each.sum() != 0 else np.zeros(len(run))
    ended = ended_inside(run)
    good_is_known = analysis.has_good and not analysis.unknown.any()
    demand, capacity = gpus.get("demand_rps"), gpus.get("capacity_rps")
    served = _served(analysis, demand, capacity)
    target = run.manifest.target
    return Cost(
        label=run.manifest.name,
        model=" ".join(part for part in (target.model, _revision(target.fingerprint)) if part),
        server=f"{target.server} {target.version}".strip(),
        gpu=str(gpus.get("type") or ""),
        gpus=count,
        usd_per_gpu_hour=price.usd_per_gpu_hour,
        price_source=price.source,
        usd_per_hour=per_hour,
        usd=usd,
        price_ratio=ratio,
        cached_ratio=cached_ratio,
        per_million_output=_per_million(usd, tokens_out),
        per_million_total=_per_million(usd, tokens_in + tokens_out),
        per_million_output_at_slo=_per_million(usd, analysis.good_tokens_inside) if good_is_known else None,
        split_input=1e6 * parts[0] if parts else None,
        split_cached_input=1e6 * parts[0] * cached_ratio if parts and cached.any() else None,
        split_output=1e6 * parts[1] if parts else None,
        per_request=_each(usd, ended),
        per_good_request=_each(usd, ended & analysis.met) if good_is_known else None,
        by_class=_by_group(key(analysis, "class"), spent, out, ended),
        by_tenant=_by_group(key(analysis, "tenant"), spent, out, ended),
        by_tier=_by_group(key(analysis, "tier"), spent, out, ended),
        wasted=_wasted(analysis, spent),
        unknown_work=_unknown_work(analysis),
        idle_share=idle_share(float(demand), float(capacity)) if demand and capacity else None,
        served_rps_at_demand=served,
        usd_per_million_output_at_demand=_at_demand(analysis, per_hour, served, tokens_out),
    )


def _revision(fingerprint: object) -> str:
    """The model's revision, wherever in the fingerprint it stands."""
    if isinstance(fingerprint, Mapping):
        revision = fingerprint.get("revision") or fingerprint.get("model_revision")
        return str(revision) if revision else next(filter(None, map(_revision, fingerprint.values())), "")
    return ""


def _per_million(usd: float, tokens: float) -> float | None:
    return 1e6 * usd / tokens if tokens > 0 else None


def _each(usd: float, rows: Mask) -> float | None:
    n = int(np.count_nonzero(rows))
    return usd / n if n else None


def _served(analysis: Analysis, demand: Any, capacity: Any) -> float | None:
    """Requests per second that are served if `demand` come; None where it isn't known how many can be."""
    if not demand:
        return None
    if capacity:
        return min(float(demand), float(capacity))
    rates = analysis.throughput
    return float(demand) if rates and float(demand) <= rates.requests_per_s else None


def _at_demand(analysis: Analysis, per_hour: float, served_rps: float | None, tokens_out: float) -> float | None:
    """Output cost at `served_rps`, each request with this run's mean number of output tokens."""
    rates, seconds = analysis.throughput, analysis.run.duration_s
    if not served_rps or not rates or not rates.requests_per_s or not tokens_out > 0:
        return None
    tokens_per_request = tokens_out / seconds / rates.requests_per_s
    return 1e6 * per_hour / 3600 / (served_rps * tokens_per_request)


def _by_group(groups: Key, spent: Floats, out: Floats, ended: Mask) -> tuple[GroupCost, ...]:
    """Every group's part of the bill, so that they add up to it; empty with fewer than two."""
    most = len(groups.names)
    usd, tokens = (np.bincount(groups.codes, weights=values, minlength=most) for values in (spent, out))
    requests, rows = (np.bincount(groups.codes, weights=mask, minlength=most) for mask in (ended, np.ones(len(ended))))
    total = float(spent.sum())
    if np.count_nonzero(rows) < 2:
        return ()
    return tuple(
        GroupCost(
            name=groups.names[code],
            usd=float(usd[code]),
            share=float(usd[code]) / total if total else 0.0,
            usd_per_request=float(usd[code] / requests[code]) if requests[code] else None,
            usd_per_million_output=_per_million(float(usd[code]), float(tokens[code])),
        )
        for code in np.flatnonzero(rows)
    )


def _wasted(analysis: Analysis, spent: Floats) -> dict[str, float]:
    run = analysis.run
    cancelled = run.is_text("status", "cancelled")
    late = run.ok & ~analysis.met if analysis.has_good else np.zeros(len(run), np.bool_)
    return {
        "failed": float(spent[~run.ok & ~cancelled].sum()),
        "late": float("nan") if analysis.unknown.any() else float(spent[late].sum()),
        "cancelled": float(spent[cancelled].sum()),
    }


def _unknown_work(analysis: Analysis) -> dict[str, int]:
    run = analysis.run
    tried = np.isfinite(run.column("sent_ns")) & np.isnan(run.column("first_token_ns"))
    tried &= ~run.ok & ~run.is_text("status", *_NO_WORK) & run.inside(run.column("end_ns"))
    cancelled = run.is_text("status", "cancelled")
    return {"failed": int(np.count_nonzero(tried & ~cancelled)), "cancelled": int(np.count_nonzero(tried & cancelled))}
