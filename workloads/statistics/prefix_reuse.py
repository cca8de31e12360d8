"""What a prefix cache can save of a plan: the tokens of each prompt that an earlier prompt began with.

For `implied_reuse` the cache is unlimited; `lru_curve` has the hit rates of all sizes, `lru_hit_tokens` what each
prompt finds in a cache of one size. Answers are not looked for: what is re-sent of them is planned filler. A server's
hit rate is at most the implied one, and equal to it where its cache is large enough and requests don't overlap.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tailgate.workloads.common.arrays import Floats, Ints
from tailgate.workloads.sampling.random_streams import mixed
from tailgate.workloads.table.columns import NO_TIME, block_counts, last_timed, places_within


@dataclass(frozen=True)
class Reuse:
    """`hit_tokens` of each request; `block_share` and `token_share` of all prompts together."""

    hit_tokens: Ints
    block_share: float
    token_share: float


def implied_reuse(table: pa.Table, block_tokens: int, granularity: int = 1) -> Reuse:
    """The cache hits that a plan implies when its requests are sent in the order of its rows.

    `block_tokens` is the length of the plan's prefix blocks, `granularity` that of a server's own cache blocks (vLLM:
    16 tokens on GPUs): hits count in whole ones, and a prompt's last token is always computed. A granularity of 1
    counts tokens, the last one too.
    """
    prompt = table.column("prompt_tokens").to_numpy().astype(np.int64)
    lists = table.column("prefix_blocks").combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = pa.concat_arrays(lists.chunks) if lists.num_chunks else pa.array([], lists.type)
    counts = block_counts(lists)
    if not counts.sum():
        return Reuse(np.zeros(len(prompt), np.int64), 0.0, 0.0)
    ids = lists.flatten().to_numpy().astype(np.uint64, copy=False)
    starts = np.cumsum(counts) - counts
    row, place = np.repeat(np.arange(len(counts)), counts), places_within(counts)
    covered = np.clip(prompt[row] - place * block_tokens, 0, block_tokens)
    chain = _chains(ids, starts, counts)
    before = _covered_before(chain, row, covered, block_tokens)
    # A block counts as far as it was seen, if all before it in its prompt was seen whole.
    whole = before >= block_tokens
    broken = np.cumsum(~whole)
    broken_before = broken - ~whole - (broken[starts[row]] - ~whole[starts[row]])
    hits = np.where(broken_before == 0, np.minimum(before, covered), 0)
    hit_tokens = np.bincount(row, weights=hits, minlength=len(counts)).astype(np.int64)
    if granularity > 1:
        hit_tokens = np.minimum(hit_tokens, prompt - 1) // granularity * granularity
    return Reuse(hit_tokens, float((hits > 0).sum() / len(ids)), float(hit_tokens.sum() / prompt.sum()))


def _chains(ids: npt.NDArray[np.uint64], starts: Ints, counts: Ints) -> npt.NDArray[np.uint64]:
    """For each block, a hash of it and all blocks before it in its prompt."""
    chain = np.empty_like(ids)
    last = np.zeros(len(counts), np.uint64)
    for place in range(int(counts.max())):
        rows = np.flatnonzero(counts > place)
        at = starts[rows] + place
        last[rows] = mixed(last[rows] ^ mixed(ids[at]))
        chain[at] = last[rows]
    return chain


def _covered_before(chain: npt.NDArray[np.uint64], row: Ints, covered: Ints, block_tokens: int) -> Ints:
    """For each block, the largest number of its tokens that an earlier prompt held."""
    order = np.lexsort((row, chain))
    ordered = chain[order]
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    # Running maximum within each group of equal chains: groups are lifted above each other.
    lift = np.cumsum(first) * (block_tokens + 1)
    running = np.maximum.accumulate(covered[order] + lift) - lift
    before = np.concatenate([[0], running[:-1]])
    before[first] = 0
    result = np.empty_like(covered)
    result[order] = before
    return result


def lru_curve(ids: npt.NDArray[Any], points: int = 60) -> tuple[Floats, Floats]:
    """Cache sizes in blocks (ascending) and the hit rate of each, for a sequence of block ids.

    From reuse times and the average footprint (Xiang et al., "HOTL: a Higher Order Theory of Locality", ASPLOS 2013):
    the blocks touched in a window of n accesses number fp(n) on average, so a least-recently-used cache of size fp(n)
    keeps what comes back within n accesses. It takes one pass and comes within a few points of a simulated LRU. Both
    are empty when nothing is accessed twice.
    """
    n = len(ids)
    _, inverse = np.unique(ids, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    same = inverse[order][1:] == inverse[order][:-1]
    reuse = (order[1:] - order[:-1])[same]
    if not len(reuse):
        return np.empty(0), np.empty(0)
    first = order[np.concatenate([[True], ~same])]
    last = n - 1 - order[np.concatenate([~same, [True]])]
    windows = np.unique(np.geomspace(1, n, points).astype(np.int64))
    footprint = np.array([_footprint(int(w), n, len(first), first, last, reuse) for w in windows.tolist()])
    ordered = np.sort(reuse)
    hits = np.searchsorted(ordered, windows, side="right") / n
    return footprint, hits


def lru_hit_tokens(table: pa.Table, block_tokens: int, cache_tokens: int, granularity: int = 16) -> Ints:
    """The tokens of each prompt that a least-recently-used cache of `cache_tokens` holds, without simulating it.

    As in `lru_curve`, by average: what was used last within a window of so many tokens that they fill the cache is
    still there. The window's working set grows by the share of tokens that weren't used within it (Denning and
    Schwartz, "Properties of the working-set model", CACM 15(3), 1972); prompts and answers count, shared or not. A
    later turn is taken to come when the pauses before it are over. Hits count in whole blocks of `granularity` tokens,
    and a prompt's last token is always computed. It is off where working sets spread about their mean, where much of
    the cache is in use, and where requests come in another order; docs/engine.md has figures.
    """
    prompt, output = (table.column(name).to_numpy().astype(np.int64) for name in ("prompt_tokens", "output_tokens"))
    order = np.argsort(_about_when(table), kind="stable")
    lists = table.column("prefix_blocks").combine_chunks()
    lists = pa.concat_arrays(lists.chunks) if isinstance(lists, pa.ChunkedArray) and lists.num_chunks else lists
    counts = np.minimum(block_counts(lists), prompt // block_tokens)[order]  # whole ones
    hits = np.zeros(len(prompt), np.int64)
    if not counts.sum():
        return hits
    used = np.cumsum((prompt + output)[order])  # up to the end of each request
    began = lists.offsets.to_numpy()[:-1][order]
    starts, row, place = np.cumsum(counts) - counts, np.repeat(np.arange(len(counts)), counts), places_within(counts)
    ids = lists.values.to_numpy().astype(np.uint64, copy=False)[began[row] + place]
    chain = _chains(ids, starts, counts)
    by_chain = np.lexsort((row, chain))
    again = np.concatenate([[False], chain[by_chain][1:] == chain[by_chain][:-1]])
    ago = np.full(len(row), np.inf)
    later = by_chain[again]
    ago[later] = used[row[later]] - used[row[by_chain[np.flatnonzero(again) - 1]]]
    there = np.isfinite(ago) & (ago <= _window(np.sort(ago[later]), block_tokens / used[-1], cache_tokens))
    broken = np.cumsum(~there)
    whole = there & (broken == (broken - ~there)[starts[row]])
    hits[order] = np.bincount(row, weights=whole, minlength=len(counts)).astype(np.int64) * block_tokens
    return np.asarray(np.minimum(hits, prompt - 1) // granularity * granularity)


def _window(ago: Floats, share: float, size: float) -> float:
    """The window whose mean working set is `size`; `ago` are reuse times, ascending, each of a share of all use."""
    left = 1.0 - share * np.arange(len(ago) + 1)  # of all use, what comes again later than so many of `ago`, or never
    working_set = np.cumsum(np.diff(ago, prepend=0.0) * left[:-1])  # at each of `ago`
    at = int(np.searchsorted(working_set, size))
    if at < len(ago):
        return float(ago[at] - (working_set[at] - size) / left[at])
    return float("inf")


def _about_when(table: pa.Table) -> Floats:
    """When requests come if answers take no time."""
    at_ns = table.column("at_ns").fill_null(NO_TIME).to_numpy()
    pauses = np.cumsum(np.where(at_ns == NO_TIME, table.column("think_ns").to_numpy(), 0))
    anchor = last_timed(at_ns)
    return np.asarray(at_ns[anchor] + pauses - pauses[anchor], np.float64)


def _footprint(window: int, n: int, distinct: int, first: Any, last: Any, reuse: Any) -> float:
    """Mean number of distinct blocks in a window: all, less those absent before, after and between accesses."""
    absent = (
        np.clip(first - window + 1, 0, None).sum()
        + np.clip(last - window + 1, 0, None).sum()
        + np.clip(reuse - window, 0, None).sum()
    )
    return float(distinct - absent / (n - window + 1))
