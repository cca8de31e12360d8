"""Per-request figures, vectorised: TTFT, TPOT, stall, E2E and their kin, as docs/metrics.md defines them.

One array per figure, one entry per planned request, NaN where the figure is undefined. Distributions over
them are made by `distribution`; throughput is `reports.metrics.throughput`; what is good enough is
`reports.metrics.slo`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from tailgate.reports.metrics import own_error
from tailgate.reports.metrics.arrivals import Gaps, GapSample, Scan
from tailgate.reports.rundir.run import Run
from tailgate.reports.stats.order_statistics import (
    LEVEL,
    MATERIAL,
    PERCENTILES,
    Quantile,
    constant,
    effective_size,
    effective_size_at,
    mean_interval,
    quantile,
    quantile_at,
    t_quantile,
)
from tailgate.workloads.common.arrays import Floats, Ints, Mask

# A figure as best estimated, or the end of what the client's own error leaves possible.
Side = Literal["best", "low", "high"]
OTHER_SIDE: Final[Mapping[Side, Side]] = {"best": "best", "low": "high", "high": "low"}


@dataclass(frozen=True)
class Figures:
    """What each request showed, in ms; every array has one entry per row of the run."""

    # by name of PER_REQUEST; NaN where undefined (no token came, a single chunk has no TPOT, ...)
    ms: dict[str, Floats]
    # the least and the most that the client's own error leaves possible; jitter is taken for exact
    low: dict[str, Floats]
    high: dict[str, Floats]
    order: Ints  # rows in the order in which they began, for autocorrelation

    def of(self, side: Side) -> dict[str, Floats]:
        return {"best": self.ms, "low": self.low, "high": self.high}[side]


@dataclass(frozen=True)
class LatencyDistribution:
    """One figure over one set of requests."""

    n: int
    mean: float | None
    mean_ci: tuple[float, float] | None
    least: float | None
    most: float | None
    quantiles: tuple[Quantile, ...]
    # the least and the most that the client's own error leaves possible, by statistic (`mean`, `p99`); empty: exact
    errors: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def at(self, q: float) -> Quantile:
        """The q-th percentile; one of PERCENTILES."""
        return next(quantile for quantile in self.quantiles if quantile.q == q)


def figures(run: Run, scan: Scan) -> Figures:
    """All per-request figures of a run.

    TTFT and E2E count from the planned arrival in an open loop (a request sent late was late for its user)
    and from the sending in a closed one.
    """
    sent, first, last = run.column("sent_ns"), run.column("first_token_ns"), run.column("last_token_ns")
    begin = run.column("scheduled_ns") if run.manifest.loop == "open" else sent
    output, chunk_count = run.output_tokens, run.column("chunks")
    first_chunk = run.column("first_chunk_tokens")
    # A server that doesn't tell sends at least one token in its first chunk (`tpot_is_bound`).
    after_first = output - np.where(np.isnan(first_chunk), 1.0, first_chunk)
    with np.errstate(invalid="ignore", divide="ignore"):
        tpot = np.where((chunk_count > 1) & (after_first > 0), (last - first) / after_first, np.nan)
        normalized = np.where(output > 0, (last - begin) / output, np.nan)
    ns = {
        "ttft": first - begin,
        "ttft_from_send": first - sent,
        "ttfa": run.column("first_answer_ns") - begin,
        "tpot": tpot,
        "stall": scan.longest_ms * 1e6,
        "jitter": scan.jitter_ms * 1e6,
        "e2e": last - begin,
        "normalized_e2e": normalized,
    }
    began = np.where(np.isnan(begin), run.column("dispatched_ns"), begin)
    low, high = own_error.ends(run, scan, ns, after_first)
    ms, low_ms, high_ms = ({name: values / 1e6 for name, values in side.items()} for side in (ns, low, high))
    return Figures(ms, low_ms, high_ms, np.argsort(began, kind="stable"))


def multi_token_chunks(run: Run) -> Floats:
    """How many chunks of each request hold several tokens; NaN where nothing tells.

    Where the server doesn't tell, as many as tokens exceed chunks by usage: exact where no chunk holds more than two,
    and where all hold several.
    """
    told, chunks = run.column("multi_token_chunks"), run.column("chunks")
    return np.where(np.isfinite(told), told, np.clip(run.column("output_tokens") - chunks, 0, chunks))


def tpot_is_bound(run: Run) -> Mask:
    """Answers whose TPOT is the least it can be: nobody tells how many of their tokens came in the first chunk."""
    chunks = run.column("chunks")
    untold = np.isnan(run.column("first_chunk_tokens")) & (run.column("output_tokens") > chunks)
    return np.asarray(run.ok & (chunks > 1) & untold)


def tpot_at_most(run: Run, tpot_ms: Floats) -> Floats:
    """The most that TPOT can be: where it is a bound, each later chunk may hold a single token."""
    spread = (run.column("last_token_ns") - run.column("first_token_ns")) / 1e6
    return np.where(tpot_is_bound(run), spread / np.maximum(run.column("chunks") - 1, 1), tpot_ms)


def distribution(
    values: Floats, wanted: Mask, order: Ints, percentiles: Sequence[float] = PERCENTILES
) -> LatencyDistribution:
    return of_series(in_time_order(values, wanted, order), percentiles)


def in_time_order(values: Floats, wanted: Mask, order: Ints) -> Floats:
    series = values[order][wanted[order]]
    return series[~np.isnan(series)]


def with_failures(
    values: Floats, wanted: Mask, failed: Mask, order: Ints, percentiles: Sequence[float] = PERCENTILES
) -> LatencyDistribution:
    """A distribution with the `failed` rows infinitely late, so that dropping slow requests can't improve it."""
    return distribution(np.where(failed, np.inf, values), wanted | failed, order, percentiles)


def of_series(series: Floats, percentiles: Sequence[float] = PERCENTILES) -> LatencyDistribution:
    n = len(series)
    if n == 0:
        return LatencyDistribution(0, None, None, None, None, tuple(quantile(series, q) for q in percentiles))
    ordered = np.sort(series)
    return LatencyDistribution(
        n=n,
        mean=float(series.mean()),
        mean_ci=mean_interval(series),
        least=float(ordered[0]),
        most=float(ordered[-1]),
        quantiles=tuple(quantile(ordered, q, effective_size_at(series, ordered, q)) for q in percentiles),
    )


def of_gaps(
    gaps: Gaps, sample: GapSample, order: Ints, percentiles: Sequence[float] = PERCENTILES
) -> LatencyDistribution:
    """Distribution of pooled gaps. Their sample size is requests, not gaps: the gaps of a request are alike."""
    size, n = gaps.size, gaps.requests
    if size == 0:
        return of_series(np.zeros(0), percentiles)
    quantiles = tuple(_gap_quantile(gaps, sample, order, q) for q in percentiles)
    mean = gaps.sum_us() / size / 1000
    return LatencyDistribution(
        n, mean, gap_mean_interval(sample, order, mean), gaps.at_rank(1), gaps.at_rank(size), quantiles
    )


def _gap_quantile(gaps: Gaps, sample: GapSample, order: Ints, q: float) -> Quantile:
    at = gaps.at_rank(max(1, int(np.ceil(q / 100 * gaps.size - 1e-9))))
    n_eff = effective_requests(sample, order, at * 1000, gaps.requests)
    above, below = gaps.count_above(at * (1 + MATERIAL)), gaps.size - gaps.count_above(at * (1 - MATERIAL))
    held = float(gaps.requests) if constant(below, above, gaps.size, q) else n_eff
    return quantile_at(gaps.at_rank, gaps.requests, q, n_eff, gaps.size, held)


def effective_requests(sample: GapSample, order: Ints, limit_us: float, most: int) -> float:
    """How many independent requests know as much about the share of gaps above a limit as the sample does.

    The share is a ratio of sums over requests, so its variance follows from the residuals
    r = (gaps above) - share * (gaps) of each request, inflated by their autocorrelation in time: that holds
    however alike the gaps of one request are (ratio estimator, e.g. W. G. Cochran, Sampling Techniques, 1977,
    ch. 6). Never more than `most`, the requests themselves, however many gaps each has.
    """
    each, above = _per_request(sample, order, (sample.us > limit_us).astype(np.float64))
    requests, share = len(each), float(above.sum() / each.sum())
    rest = above - share * each
    spread = float(np.dot(rest, rest))
    if spread == 0:
        return float(most)
    inflation = requests / effective_size(rest)
    return min(float(most), share * (1 - share) * float(each.sum()) ** 2 / (inflation * spread))


def _per_request(sample: GapSample, order: Ints, values: Floats) -> tuple[Floats, Floats]:
    """(gaps, sum of their `values`) of each request in the sample that has any, in the order of time."""
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    place = rank[sample.rows]
    each = np.bincount(place, minlength=len(order)).astype(np.float64)
    sums = np.bincount(place, weights=values, minlength=len(order)).astype(np.float64)
    there = each > 0
    return each[there], sums[there]


def gap_mean_interval(
    sample: GapSample, order: Ints, mean_ms: float, level: float = LEVEL
) -> tuple[float, float] | None:
    """Two-sided interval of the mean gap, around `mean_ms`; None below 10 requests.

    A ratio of sums over requests, like the shares of `effective_requests`; from the sampled requests only, so
    that it is wider than it need be where not all are in the sample.
    """
    each, sums = _per_request(sample, order, sample.us / 1000)
    requests = len(each)
    if requests < 10:
        return None
    rest = sums - sums.sum() / each.sum() * each
    n_eff = max(2.0, effective_size(rest))
    deviation = float(rest.std(ddof=1)) * requests / math.sqrt(n_eff) / float(each.sum())
    half = t_quantile((1 + level) / 2, n_eff - 1) * deviation
    return mean_ms - half, mean_ms + half
