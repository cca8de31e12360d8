"""Figures by class, tenant, endpoint, prompt length and turn, and how fairly tenants were served.

A split is given where it splits: a run of one class has no split by class. Beyond _MOST_GROUPS groups the
smallest are shown together; what is worked out over all of them (cost, fairness) is. Within a group everything
is a column.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from tailgate.reports.metrics.analysis import Analysis
from tailgate.reports.metrics.requests import (
    LatencyDistribution,
    distribution,
    effective_requests,
    of_series,
    with_failures,
)
from tailgate.reports.metrics.throughput import output_tokens_inside
from tailgate.reports.stats.order_statistics import Quantile, quantile_at
from tailgate.workloads.common.arrays import Floats, Ints, Mask

PERCENTILES: Final = (50.0, 95.0, 99.0)
FIGURES: Final = ("ttft", "ttfa", "tpot", "stall", "jitter", "e2e")
NAMES: Final = ("class", "tenant", "endpoint", "tier", "prompt_tokens", "turn")
_MOST_GROUPS: Final = 24
# Edges of the prompt-length bands, tokens; a band with no request is left out.
_BANDS: Final = (0, 128, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)


@dataclass(frozen=True)
class GroupFigures:
    """One group of one split."""

    name: str  # e.g. a tenant's name, or `512-1023` tokens
    n: int  # judged requests (see `Analysis.judged`)
    ok: int  # those that ended ok
    failed_share: float | None  # failed / judged; None without any
    # good / judged, and good per second; None without any, or without an SLO
    attained: float | None
    goodput_rps: float | None
    latencies: dict[str, LatencyDistribution]  # FIGURES over its ok requests, in ms
    failed_as_inf: dict[str, LatencyDistribution]  # `ttft` and `e2e` with its failed requests infinitely late
    itl: tuple[Quantile, ...]  # gaps pooled over them, by percentile; from a sample of requests in a very large run
    output_tokens_per_s: float | None  # its tokens that arrived in the steady window
    stands_for: int = 1  # how many groups it is: several, where the smallest are together


@dataclass(frozen=True)
class Key:
    """One way to split a run: each row's group as a code, and the groups' names."""

    codes: Ints
    names: list[str]

    def present(self, rows: Mask) -> Ints:
        return np.flatnonzero(np.bincount(self.codes[rows], minlength=len(self.names)))


def key(analysis: Analysis, name: str) -> Key:
    """The groups of one split: `class`, `tenant`, `endpoint`, `tier`, `prompt_tokens` or `turn`."""
    run = analysis.run
    match name:
        case "tier":
            return _tiers(analysis)
        case "prompt_tokens":
            return prompt_bands(analysis)
        case "turn":
            turns = np.minimum(run.column("turn").astype(np.int64), _MOST_GROUPS - 1)
            return Key(turns, [*map(str, range(_MOST_GROUPS - 1)), f"{_MOST_GROUPS - 1}+"])
        case _:
            return Key(*run.texts(name))


def splits(analysis: Analysis) -> dict[str, list[GroupFigures]]:
    """Groups by split, of those that split."""
    groups_by_key = {name: _groups(analysis, key(analysis, name)) for name in NAMES}
    return {name: groups for name, groups in groups_by_key.items() if len(groups) > 1}


def prompt_bands(analysis: Analysis) -> Key:
    """Band of each request's prompt (by usage where it came, else as planned), and the bands' names."""
    by_usage = analysis.run.column("prompt_tokens")
    tokens = np.where(np.isnan(by_usage), analysis.run.column("prompt_tokens_planned"), by_usage)
    names = [f"{low}-{high - 1}" for low, high in pairwise(_BANDS)]
    return Key(np.searchsorted(np.array(_BANDS[1:]), tokens, side="right").astype(np.int64), [*names, f"{_BANDS[-1]}+"])


def _tiers(analysis: Analysis) -> Key:
    """Price tier of each request's class; a class without one is its own."""
    codes, names = analysis.run.texts("class")
    classes = (analysis.run.manifest.spec.get("workload") or {}).get("classes") or {}
    tiers = [str((classes.get(name) or {}).get("tier") or "") for name in names]
    if not any(tiers):
        return Key(np.zeros(len(codes), np.int64), [""])
    groups = sorted({tier or name for tier, name in zip(tiers, names, strict=True)})
    place = np.array([groups.index(tier or name) for tier, name in zip(tiers, names, strict=True)], np.int64)
    return Key(place[codes], groups)


def _groups(analysis: Analysis, key: Key) -> list[GroupFigures]:
    """One group per code that occurs among measured requests; the smallest together where they are many."""
    present, counts = key.present(analysis.judged), np.bincount(key.codes[analysis.judged], minlength=len(key.names))
    if len(present) < 2:
        return []
    by_size = present[np.argsort(-counts[present], kind="stable")]
    shown = by_size if len(present) <= _MOST_GROUPS else by_size[: _MOST_GROUPS - 1]
    groups = [_group(analysis, key.names[code], key.codes == code) for code in np.sort(shown)]
    if others := len(present) - len(shown):
        rest = _group(analysis, f"{others:,} others", ~np.isin(key.codes, shown))
        groups.append(replace(rest, stands_for=others))
    return groups


def _group(analysis: Analysis, name: str, rows: Mask) -> GroupFigures:
    run, seconds = analysis.run, analysis.run.duration_s
    judged, ok = rows & analysis.judged, rows & run.ok & run.measured
    n = int(np.count_nonzero(judged))
    latencies = {
        figure: distribution(analysis.figures.ms[figure], ok, analysis.figures.order, PERCENTILES) for figure in FIGURES
    }
    worst = {
        figure: with_failures(
            analysis.figures.ms[figure], ok, rows & analysis.failed, analysis.figures.order, PERCENTILES
        )
        for figure in ("ttft", "e2e")
    }
    good_is_known = analysis.has_good and not (judged & analysis.unknown).any()
    good = int(np.count_nonzero(rows & analysis.good)) if good_is_known else None
    tokens = float(output_tokens_inside(run, analysis.scan)[0][rows].sum())
    return GroupFigures(
        name=name,
        n=n,
        ok=int(np.count_nonzero(ok)),
        failed_share=np.count_nonzero(rows & analysis.failed) / n if n else None,
        attained=good / n if n and good is not None else None,
        goodput_rps=good / seconds if seconds and good is not None else None,
        latencies=latencies,
        failed_as_inf=worst,
        itl=_gap_percentiles(analysis, rows),
        output_tokens_per_s=tokens / seconds if seconds else None,
    )


def _gap_percentiles(analysis: Analysis, rows: Mask) -> tuple[Quantile, ...]:
    sample = analysis.scan.sample.of(rows)
    us = np.sort(sample.us)
    requests = len(np.unique(sample.rows))
    if not len(us):
        return of_series(np.zeros(0), PERCENTILES).quantiles

    def percentile(q: float) -> Quantile:
        limit = us[max(1, int(np.ceil(q / 100 * len(us) - 1e-9))) - 1]
        n_eff = effective_requests(sample, analysis.figures.order, float(limit), requests)
        return quantile_at(lambda rank: float(us[rank - 1]) / 1000, requests, q, n_eff, len(us))

    return tuple(percentile(q) for q in PERCENTILES)


@dataclass(frozen=True)
class TenantShare:
    """One tenant's part of what was asked for and of what was served."""

    tenant: str
    demand: float  # its share of all planned tokens (prompt and output) of the measure phase
    service: float  # its share of all tokens of requests that ended ok
    ttft_ms: float | None  # its TTFT at the percentile that is compared; None where its sample is too small


@dataclass(frozen=True)
class Fairness:
    """How evenly tenants were served; over all of them, however many."""

    shares: tuple[TenantShare, ...]
    # which percentile of TTFT `worst_over_best` compares: 99 where every tenant's sample supports it, else 50
    percentile: float
    # worst tenant's TTFT percentile over the best one's, of those whose sample supports it
    worst_over_best: float | None
    too_few: int = 0  # tenants whose sample doesn't, so that they are left out of it


def fairness(analysis: Analysis) -> Fairness | None:
    """Compare tenants; None with fewer than two."""
    tenants = key(analysis, "tenant")
    present = tenants.present(analysis.judged)
    if len(present) < 2:
        return None
    run, most = analysis.run, len(tenants.names)
    offered, ok = analysis.judged, analysis.judged & run.ok
    demand = _parts(
        tenants.codes, run.column("prompt_tokens_planned") + run.column("output_tokens_planned"), offered, most
    )
    served = _parts(tenants.codes, np.nan_to_num(run.column("prompt_tokens") + run.column("output_tokens")), ok, most)
    middle, tail = _ttft_by(analysis, tenants)
    q, chosen = (99.0, tail) if np.isfinite(tail[present]).all() else (50.0, middle)
    figures = chosen[present]
    supported = figures[np.isfinite(figures)]
    ratio = float(supported.max() / supported.min()) if len(supported) > 1 and supported.min() > 0 else None
    shares = tuple(
        TenantShare(tenants.names[code], float(demand[code]), float(served[code]), None if np.isnan(ms) else float(ms))
        for code, ms in zip(present, figures, strict=True)
    )
    return Fairness(shares, q, ratio, len(figures) - len(supported))


def _ttft_by(analysis: Analysis, groups: Key) -> tuple[Floats, Floats]:
    """Median and p99 of TTFT over each group's ok requests; NaN where its sample is too small."""
    ms, order = analysis.figures.ms["ttft"], analysis.figures.order
    rows = order[(analysis.run.ok & analysis.run.measured & np.isfinite(ms))[order]]
    codes = groups.codes[rows]
    rows = rows[np.argsort(codes, kind="stable")]
    ends = np.cumsum(np.bincount(codes, minlength=len(groups.names)))
    ttft = np.full((2, len(groups.names)), np.nan)
    for code, series in enumerate(np.split(ms[rows], ends[:-1])):
        for place, quantile in enumerate(of_series(series, (50.0, 99.0)).quantiles if len(series) else ()):
            ttft[place, code] = np.nan if quantile.value is None else quantile.value
    return ttft[0], ttft[1]


def _parts(codes: Ints, values: Floats, rows: Mask, groups: int) -> Floats:
    """Each group's share of the values' sum over `rows`."""
    sums = np.bincount(codes[rows], weights=values[rows], minlength=groups).astype(np.float64)
    return sums / sums.sum() if sums.sum() else sums
