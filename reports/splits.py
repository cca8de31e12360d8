"""The same figures by class, tenant, endpoint, prompt length and turn; and how fairly tenants were served.

A split is given where it splits: a run of one class has no split by class. Groups are few; within each,
everything is a column.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from reports.analysis import Analysis
from reports.metrics import Distribution, distribution, effective_requests, of_series
from reports.rundata import Floats, Ints, Mask
from reports.stats import Quantile, floor, quantile_at
from reports.window import output_tokens_inside

PERCENTILES: Final = (50.0, 95.0, 99.0)
_MOST_GROUPS: Final = 24
# Edges of the prompt-length bands, tokens; a band with no request is left out.
_BANDS: Final = (0, 128, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)


@dataclass(frozen=True)
class Group:
    """One group of one split.

    Attributes:
        name: e.g. a tenant's name, or `512-1023` tokens.
        n: judged requests (see `Analysis.judged`).
        ok: those that ended ok.
        failed_share: failed / judged; None without any.
        attained: good / judged; None without any.
        latencies: `ttft`, `tpot`, `e2e`, `stall` over its ok requests, in ms.
        itl: gaps pooled over them, by percentile; from a sample of requests in a very large run.
        output_tokens_per_s: its tokens that arrived in the steady window.
        rows: its rows in the run, all phases.
    """

    name: str
    n: int
    ok: int
    failed_share: float | None
    attained: float | None
    latencies: dict[str, Distribution]
    itl: tuple[Quantile, ...]
    output_tokens_per_s: float | None
    rows: Mask


def splits(analysis: Analysis) -> dict[str, list[Group]]:
    """Groups by split: `class`, `tenant`, `endpoint`, `tier`, `prompt_tokens`, `turn`."""
    run = analysis.run
    found = {name: _by_code(analysis, *run.texts(name)) for name in ("class", "tenant", "endpoint")}
    found["tier"] = _by_code(analysis, *_tiers(analysis))
    found["prompt_tokens"] = _by_code(analysis, *prompt_bands(analysis))
    turns = np.minimum(run.column("turn").astype(np.int64), _MOST_GROUPS - 1)
    names = [str(turn) if turn < _MOST_GROUPS - 1 else f"{turn}+" for turn in range(_MOST_GROUPS)]
    found["turn"] = _by_code(analysis, turns, names)
    return {name: groups for name, groups in found.items() if len(groups) > 1}


def prompt_bands(analysis: Analysis) -> tuple[Ints, list[str]]:
    """Band of each request's prompt (by usage where it came, else as planned), and the bands' names."""
    told = analysis.run.column("prompt_tokens")
    tokens = np.where(np.isnan(told), analysis.run.column("prompt_tokens_planned"), told)
    names = [f"{low}-{high - 1}" for low, high in pairwise(_BANDS)]
    return np.searchsorted(np.array(_BANDS[1:]), tokens, side="right").astype(np.int64), [*names, f"{_BANDS[-1]}+"]


def _tiers(analysis: Analysis) -> tuple[Ints, list[str]]:
    """Price tier of each request's class; a class without one is its own."""
    codes, names = analysis.run.texts("class")
    classes = (analysis.run.manifest.spec.get("workload") or {}).get("classes") or {}
    tiers = [str((classes.get(name) or {}).get("tier") or "") for name in names]
    if not any(tiers):
        return np.zeros(len(codes), np.int64), [""]
    found = sorted({tier or name for tier, name in zip(tiers, names, strict=True)})
    place = np.array([found.index(tier or name) for tier, name in zip(tiers, names, strict=True)], np.int64)
    return place[codes], found


def _by_code(analysis: Analysis, codes: Ints, names: list[str]) -> list[Group]:
    """One group per code that occurs among measured requests; beyond _MOST_GROUPS the largest ones."""
    counts = np.bincount(codes[analysis.judged], minlength=len(names))
    present = np.flatnonzero(counts)
    if len(present) > _MOST_GROUPS:
        present = np.sort(present[np.argsort(-counts[present], kind="stable")][:_MOST_GROUPS])
    if len(present) < 2:
        return []
    return [_group(analysis, names[code], codes == code) for code in present]


def _group(analysis: Analysis, name: str, rows: Mask) -> Group:
    run, seconds = analysis.run, analysis.run.duration_s
    judged, ok = rows & analysis.judged, rows & run.ok & run.measured
    n = int(np.count_nonzero(judged))
    latencies = {
        figure: distribution(analysis.figures.ms[figure], ok, analysis.figures.order, PERCENTILES)
        for figure in ("ttft", "tpot", "stall", "e2e")
    }
    tokens = float(output_tokens_inside(run, analysis.scan)[0][rows].sum())
    return Group(
        name=name,
        n=n,
        ok=int(np.count_nonzero(ok)),
        failed_share=np.count_nonzero(rows & analysis.failed) / n if n else None,
        attained=np.count_nonzero(rows & analysis.good) / n if n and analysis.has_good else None,
        latencies=latencies,
        itl=_gap_percentiles(analysis, rows),
        output_tokens_per_s=tokens / seconds if seconds else None,
        rows=rows,
    )


def _gap_percentiles(analysis: Analysis, rows: Mask) -> tuple[Quantile, ...]:
    sample = analysis.scan.sample.of(rows)
    us = np.sort(sample.us)
    requests = len(np.unique(sample.rows))
    if not len(us):
        return of_series(np.zeros(0), PERCENTILES).quantiles

    def one(q: float) -> Quantile:
        limit = us[max(1, int(np.ceil(q / 100 * len(us) - 1e-9))) - 1]
        n_eff = effective_requests(sample, analysis.figures.order, float(limit), requests)
        return quantile_at(lambda rank: float(us[rank - 1]) / 1000, requests, q, n_eff, len(us))

    return tuple(one(q) for q in PERCENTILES)


@dataclass(frozen=True)
class Share:
    """One tenant's part of what was asked for and of what was served.

    Attributes:
        tenant: its name.
        demand: its share of all planned tokens (prompt and output) of the measure phase.
        service: its share of all tokens of requests that ended ok.
        ttft_ms: its TTFT at the percentile that is compared; None where its sample is too small.
    """

    tenant: str
    demand: float
    service: float
    ttft_ms: float | None


@dataclass(frozen=True)
class Fairness:
    """How evenly tenants were served.

    Attributes:
        shares: one per tenant.
        percentile: which percentile of TTFT `worst_over_best` compares: 99 where every tenant's sample
            supports it, else 50.
        worst_over_best: worst tenant's TTFT percentile over the best one's; None if a tenant has too few.
    """

    shares: tuple[Share, ...]
    percentile: float
    worst_over_best: float | None


def fairness(analysis: Analysis, tenants: list[Group]) -> Fairness | None:
    """Compare tenants; None with fewer than two."""
    if len(tenants) < 2:
        return None
    run = analysis.run
    asked = run.column("prompt_tokens_planned") + run.column("output_tokens_planned")
    served = np.nan_to_num(run.column("prompt_tokens") + run.column("output_tokens"))
    offered, ok = analysis.judged, analysis.judged & run.ok
    q = 99.0 if all(one.latencies["ttft"].at(99.0).n_eff >= floor(99.0) for one in tenants) else 50.0
    figures = [one.latencies["ttft"].at(q).value for one in tenants]
    shares = tuple(
        Share(one.name, _part(asked, one.rows & offered, offered), _part(served, one.rows & ok, ok), figure)
        for one, figure in zip(tenants, figures, strict=True)
    )
    known = [figure for figure in figures if figure is not None]
    ratio = max(known) / min(known) if len(known) == len(figures) and min(known) > 0 else None
    return Fairness(shares, q, ratio)


def _part(values: Floats, mine: Mask, everyone: Mask) -> float:
    total = float(values[everyone].sum())
    return float(values[mine].sum()) / total if total else 0.0
