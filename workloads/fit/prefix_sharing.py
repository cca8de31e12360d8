"""What prompts share: a system prompt, and a pool of contexts (`classes.PrefixSpec`)."""

from collections import Counter
from collections.abc import Callable
from itertools import accumulate
from typing import Any, Final

import numpy as np

from tailgate.workloads.fit.lengths import expression_of
from tailgate.workloads.table.columns import Columns

_LONG_ENOUGH: Final = 0.5
_ALL: Final = 0.95
_FEW: Final = 64
_STEPS: Final = 12
_MOST: Final = 10_000_000


def common_blocks(columns: Columns) -> int:
    """How many blocks 95 % of the prompts that are long enough begin with, as long as these are half of all prompts."""
    lists = _lists(columns)
    alive, common = lists, 0
    while True:
        long_enough = [ids for ids in alive if len(ids) > common]
        if not long_enough or len(long_enough) < _LONG_ENOUGH * len(lists):
            return common
        block, count = Counter(ids[common] for ids in long_enough).most_common(1)[0]
        if count < _ALL * len(long_enough):
            return common
        alive = [ids for ids in long_enough if ids[common] == block]
        common += 1


def fit_pool(
    columns: Columns, block_tokens: int, common: int, reuse: float, drawn: Callable[[dict[str, Any]], float]
) -> dict[str, Any] | None:
    """The `shared` of a profile whose plans reuse as much as the log; None where no pool does.

    Requests with the same first block after the `common` ones read the same context. Where nearly all requests read one
    of a few contexts, these have one size. Of many, a context covers a share of the prompt, and the pool is as large as
    brings the share of reused tokens `drawn` from it to `reuse`. Popularity is the slope of the contexts' sizes over
    their ranks.
    """
    lists = [ids[common:] for ids in _lists(columns)]
    readers = Counter(ids[0] for ids in lists if ids)
    sizes = np.array([count for _, count in readers.most_common() if count > 1], dtype=np.float64)
    if not len(sizes):
        return None
    depths = _shared_depths(lists)
    popularity = _popularity(sizes)
    if sizes[:_FEW].sum() >= _ALL * len(lists):
        # A prompt that ends within its context doesn't tell how long that is.
        beyond = depths[depths < [len(ids) for ids in lists]]
        tokens = round(float(beyond.mean() if len(beyond) else depths.max())) * block_tokens
        return {"pool": len(sizes[:_FEW]), "popularity": popularity, "tokens": tokens} if tokens else None
    in_pool = depths > 0
    if not in_pool.any():
        return None
    shares = depths[in_pool] / np.array([len(ids) + common for ids in lists])[in_pool]
    return _calibrated({"popularity": popularity, "share": expression_of(np.minimum(shares, 1.0))}, reuse, drawn)


def _calibrated(
    shared: dict[str, Any], reuse: float, drawn: Callable[[dict[str, Any]], float]
) -> dict[str, Any] | None:
    """The pool with the size at which plans reuse as much as the log: the more contexts, the less is reused."""
    low, high = 1, _MOST
    for _ in range(2 * _STEPS):
        if high - low <= max(1, low // 50):
            break
        middle = round(float(np.sqrt(float(low) * high)))
        if drawn(shared | {"pool": middle}) > reuse:
            low = middle
        else:
            high = middle
    return {"pool": high} | shared


def _popularity(sizes: Any) -> float:
    if len(sizes) < 2:
        return 0.0
    ranks = np.log(np.arange(1.0, len(sizes) + 1.0))
    slope = float(np.polyfit(ranks, np.log(sizes), 1)[0])
    return round(min(max(-slope, 0.0), 5.0), 3)


def _shared_depths(lists: list[list[int]]) -> Any:
    """For each prompt, the number of leading blocks that another one begins with too."""
    chains = [list(accumulate(ids, lambda before, block: hash((before, block)))) for ids in lists]
    seen = Counter(link for chain in chains for link in chain)
    return np.array([sum(seen[link] > 1 for link in chain) for chain in chains])


def _lists(columns: Columns) -> list[list[int]]:
    return [] if columns.prefix_blocks is None else columns.prefix_blocks.to_pylist()
