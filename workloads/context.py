"""Lengths against the model's context: an error with a count, or clipped, scaled or dropped by a stated rule."""

from typing import Literal

import numpy as np
import pyarrow as pa

from workloads.columns import Columns, block_counts, blocks_of
from workloads.errors import UserError

Rule = Literal["error", "clip", "scale", "drop"]


def scaled(columns: Columns, factor: float) -> Columns:
    """All lengths times a factor, rounded, at least 1."""
    if factor == 1.0:
        return columns
    prompt, output = (
        np.maximum(np.rint(length * factor), 1).astype(np.int64)
        for length in (columns.prompt_tokens, columns.output_tokens)
    )
    return columns.with_(prompt_tokens=prompt, output_tokens=output)


def fitted(columns: Columns, most: int, rule: Rule) -> tuple[Columns, list[str]]:
    """Requests with prompt + output of at most `most` tokens, and what was done to the others.

    * clip: the prompt is shortened (the output too where it alone is too long: it keeps all but one token)
    * scale: all lengths are multiplied by most / (99th percentile of prompt + output) where that is below 1,
      then clipped
    * drop: the request is left out, and with it the later turns of its session

    Raises:
        UserError: with `error`, when there is one such request.
    """
    total = columns.prompt_tokens + columns.output_tokens
    beyond = total > most
    count = int(beyond.sum())
    if not count:
        return columns, []
    longest = int(total.max())
    what = f"{count:,} of {len(columns):,} requests exceed {most:,} tokens (the longest has {longest:,})"
    match rule:
        case "error":
            raise UserError(
                what,
                where="workload.max_context",
                remedy="Say what to do with them: over_context: clip, scale or drop (--over-context)",
            )
        case "drop":
            cut = np.isin(columns.session, np.unique(columns.session[beyond]))
            first = np.full(int(columns.session.max()) + 1, np.iinfo(np.int64).max)
            np.minimum.at(first, columns.session[beyond], columns.turn[beyond])
            keep = ~cut | (columns.turn < first[columns.session])
            return columns.take(keep), [f"{what}: {int((~keep).sum()):,} left out"]
        case "clip":
            return _clipped(columns, most), [f"{what}: clipped"]
        case "scale":
            typical = float(np.sort(total)[int(0.99 * (len(total) - 1))])
            factor = min(1.0, most / typical)
            return _clipped(scaled(columns, factor), most), [
                f"{what}: all lengths scaled by {factor:.4f}, then clipped"
            ]


def _clipped(columns: Columns, most: int) -> Columns:
    output = np.minimum(columns.output_tokens, most - 1)
    prompt = np.minimum(columns.prompt_tokens, most - output)
    return columns.with_(prompt_tokens=prompt, output_tokens=output)


def blocks_within_prompt(columns: Columns, block_tokens: int) -> Columns:
    """Prefix blocks cut to what the (possibly shortened) prompt covers; the last one may be cut within."""
    if columns.prefix_blocks is None:
        return columns
    counts = block_counts(columns.prefix_blocks)
    room = -(-columns.prompt_tokens // block_tokens)
    if (counts <= room).all():
        return columns
    ids = columns.prefix_blocks.flatten().to_numpy()
    place = np.arange(len(ids)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = np.minimum(counts, room)
    blocks: pa.ListArray = blocks_of(kept, ids[place < np.repeat(kept, counts)])
    return columns.with_(prefix_blocks=blocks)
