"""What the answers cost: per million tokens, per request, per group, and what was wasted.

Input and output cost add up to the bill: `C_in = $ / (T_in + r T_out)`, `C_out = r C_in`, where r is what an
output token costs in input tokens (default 4, stated with the result). Prompt tokens found in the prefix
cache may be counted at a share of an input token (default 1). Tokens are those of the steady window, as
throughput counts them; the bill is the price of its length. Prices are `reports.prices`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from reports.analysis import Analysis
from reports.prices import Price, price_of
from reports.rundata import Floats, Mask
from reports.splits import Group
from reports.window import output_tokens_inside, prompt_tokens_inside

PRICE_RATIO: Final = 4.0


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
    """The bill of the steady window and what it bought; dollars.

    Attributes:
        gpu, gpus: type and number.
        usd_per_gpu_hour, price_source: the price that was used.
        usd_per_hour: of the whole deployment.
        usd: of the steady window.
        price_ratio: r, what an output token costs in input tokens.
        per_million_output: the whole bill over the output tokens.
        per_million_total: over input and output tokens.
        per_million_output_at_slo: over good requests' output tokens only; None without an SLO.
        cached_ratio: what a cached input token costs in input tokens.
        split_input, split_cached_input, split_output: per million of each; the parts add up to the bill.
        per_request, per_good_request: over ok, and over good requests that ended in the window.
        by_class, by_tenant, by_tier: groups' parts of the bill.
        wasted: dollars spent on `failed`, `late` (ok but not good) and `cancelled` requests.
        idle_share: 1 - stated demand / capacity; None unless both are known.
        usd_per_million_output_at_demand: what output costs if only the stated demand comes.
    """

    gpu: str
    gpus: int
    usd_per_gpu_hour: float
    price_source: str
    usd_per_hour: float
    usd: float
    price_ratio: float
    cached_ratio: float
    per_million_output: float | None
    per_million_total: float | None
    per_million_output_at_slo: float | None
    split_input: float | None
    split_cached_input: float | None
    split_output: float | None
    per_request: float | None
    per_good_request: float | None
    by_class: tuple[GroupCost, ...]
    by_tenant: tuple[GroupCost, ...]
    by_tier: tuple[GroupCost, ...]
    wasted: dict[str, float]
    idle_share: float | None
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


def cost(analysis: Analysis, groups: Mapping[str, Sequence[Group]]) -> Cost | None:
    """The cost of a run by its spec's `gpus:`; None without a price or a window.

    Raises:
        UserError: the GPU type has no known price.
    """
    gpus: dict[str, Any] = analysis.run.manifest.spec.get("gpus") or {}
    price = price_of(gpus)
    if price is None or analysis.run.duration_s <= 0:
        return None
    return cost_at(analysis, groups, price, gpus)


def cost_at(analysis: Analysis, groups: Mapping[str, Sequence[Group]], price: Price, gpus: Mapping[str, Any]) -> Cost:
    """As `cost`, at a given price."""
    run, seconds = analysis.run, analysis.run.duration_s
    count = int(gpus.get("count") or 1)
    ratio = float(gpus.get("price_ratio") or PRICE_RATIO)
    per_hour = price.usd_per_gpu_hour * count
    usd = per_hour / 3600 * seconds
    out, _ = output_tokens_inside(run, analysis.scan)
    prompt = prompt_tokens_inside(run, analysis.scan)
    tokens_in, tokens_out = float(prompt.sum()), float(out.sum())
    cached = np.where(analysis.scan.first_inside, np.nan_to_num(run.column("cached_tokens")), 0.0)
    share = gpus.get("cached_price_ratio")
    cached_ratio = 1.0 if share is None else float(share)
    weight_in = prompt - (1 - cached_ratio) * np.minimum(cached, prompt)
    parts = split(usd, float(weight_in.sum()), tokens_out, ratio)
    each = weight_in + ratio * out
    spent = usd * each / each.sum() if each.sum() > 0 else np.zeros(len(run))
    ended = run.ok & _inside(run.column("last_token_ns"), run.window_ns)
    good = ended & analysis.good
    rates = analysis.throughput
    demand, capacity = gpus.get("demand_rps"), gpus.get("capacity_rps")
    return Cost(
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
        per_million_output_at_slo=_per_million(usd, analysis.good_tokens_inside) if analysis.has_good else None,
        split_input=1e6 * parts[0] if parts else None,
        split_cached_input=1e6 * parts[0] * cached_ratio if parts and cached.any() else None,
        split_output=1e6 * parts[1] if parts else None,
        per_request=_each(usd, ended),
        per_good_request=_each(usd, good) if analysis.has_good else None,
        by_class=_by_group(analysis, groups.get("class", ()), spent, out, ended),
        by_tenant=_by_group(analysis, groups.get("tenant", ()), spent, out, ended),
        by_tier=_by_group(analysis, groups.get("tier", ()), spent, out, ended),
        wasted=_wasted(analysis, spent),
        idle_share=idle_share(float(demand), float(capacity)) if demand and capacity else None,
        usd_per_million_output_at_demand=_at_demand(
            per_hour, demand, rates.requests_per_s if rates else 0.0, tokens_out, seconds
        ),
    )


def _inside(times_ns: Floats, window_ns: tuple[int, int]) -> Mask:
    return (times_ns >= window_ns[0]) & (times_ns < window_ns[1])


def _per_million(usd: float, tokens: float) -> float | None:
    return 1e6 * usd / tokens if tokens > 0 else None


def _each(usd: float, rows: Mask) -> float | None:
    n = int(np.count_nonzero(rows))
    return usd / n if n else None


def _at_demand(per_hour: float, demand: Any, served_rps: float, tokens_out: float, seconds: float) -> float | None:
    """Output cost if `demand` requests/s come, each with this run's mean number of output tokens."""
    if not demand or not served_rps or not tokens_out:
        return None
    tokens_per_request = tokens_out / seconds / served_rps
    return 1e6 * per_hour / 3600 / (float(demand) * tokens_per_request)


def _by_group(
    analysis: Analysis, groups: Sequence[Group], spent: Floats, out: Floats, ended: npt.NDArray[np.bool_]
) -> tuple[GroupCost, ...]:
    total = float(spent.sum())
    found = []
    for group in groups:
        usd, tokens = float(spent[group.rows].sum()), float(out[group.rows].sum())
        per_request = _each(usd, group.rows & ended)
        found.append(GroupCost(group.name, usd, usd / total if total else 0.0, per_request, _per_million(usd, tokens)))
    return tuple(found)


def _wasted(analysis: Analysis, spent: Floats) -> dict[str, float]:
    run = analysis.run
    cancelled = run.is_text("status", "cancelled")
    late = run.ok & ~analysis.good & analysis.judged if analysis.has_good else np.zeros(len(run), np.bool_)
    return {
        "failed": float(spent[~run.ok & ~cancelled].sum()),
        "late": float(spent[late].sum()),
        "cancelled": float(spent[cancelled].sum()),
    }
