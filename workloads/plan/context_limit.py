"""Requests that exceed the model's context: an error with their number, or clipped, scaled or dropped by the rule."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from tailgate.workloads.common.arrays import Mask
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.table.columns import Columns, block_counts, blocks_of, places_within

Rule = Literal["error", "clip", "scale", "drop"]

_LEAST_BLOCK: Final = 16


@dataclass(frozen=True)
class LengthLimit:
    """What was done to lengths: all multiplied by `factor`, and nothing longer than `max_tokens` left."""

    factor: float
    max_tokens: int | None

    def apply(self, columns: Columns) -> Columns:
        columns = _scaled(columns, self.factor)
        if self.max_tokens is None:
            return columns
        output = np.minimum(columns.output_tokens, self.max_tokens - 1)
        return columns.with_(
            prompt_tokens=np.minimum(columns.prompt_tokens, self.max_tokens - output), output_tokens=output
        )


def limit_lengths(
    columns: Columns, scale: float, max_tokens: int | None, rule: Rule
) -> tuple[Columns, LengthLimit, list[str]]:
    """Requests with lengths times `scale` and prompt + output of at most `max_tokens` tokens, and what was done.

    * clip: the prompt is shortened (the output too where it alone is too long: it keeps all but one token)
    * scale: all lengths are multiplied by most / (99th percentile of prompt + output) where that is below 1,
      then clipped
    * drop: the request is left out, and with it the later turns of its session
    * error: a UserError
    """
    columns = _scaled(columns, scale)
    total = columns.prompt_tokens + columns.output_tokens
    count = 0 if max_tokens is None else int((total > max_tokens).sum())
    if max_tokens is None or not count:
        return columns, LengthLimit(scale, max_tokens), []
    longest = int(total.max())
    what = f"{count:,} of {len(columns):,} requests exceed {max_tokens:,} tokens (the longest has {longest:,})"
    match rule:
        case "error":
            raise UserError(
                what,
                where="workload.max_context",
                remedy="Say what to do with them: over_context: clip, scale or drop (--over-context)",
            )
        case "drop":
            keep = _whole_beginnings(columns, total > max_tokens)
            return columns.take(keep), LengthLimit(scale, max_tokens), [f"{what}: {int((~keep).sum()):,} left out"]
        case "clip":
            return LengthLimit(1.0, max_tokens).apply(columns), LengthLimit(scale, max_tokens), [f"{what}: clipped"]
        case "scale":
            typical = float(np.sort(total)[int(0.99 * (len(total) - 1))])
            factor = min(1.0, max_tokens / typical)
            notice = f"{what}: all lengths scaled by {factor:.4f}, then clipped"
            return LengthLimit(factor, max_tokens).apply(columns), LengthLimit(scale * factor, max_tokens), [notice]


def _scaled(columns: Columns, factor: float) -> Columns:
    if factor == 1.0:
        return columns
    prompt, output = (
        np.maximum(np.rint(length * factor), 1).astype(np.int64)
        for length in (columns.prompt_tokens, columns.output_tokens)
    )
    return columns.with_(prompt_tokens=prompt, output_tokens=output)


def _whole_beginnings(columns: Columns, bad: Mask) -> Mask:
    """All requests but the bad ones and those after them in their session."""
    first_bad = np.full(int(columns.session.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first_bad, columns.session[bad], columns.turn[bad])
    return np.asarray(columns.turn < first_bad[columns.session])


def scaled_block(block_tokens: int, factor: float) -> int:
    """Length of a prefix block after lengths were scaled: shared parts shorter than a block keep their share.

    Not below 16 tokens (a server's own block), where most of a block would be what tells it from others.
    """
    return min(block_tokens, max(_LEAST_BLOCK, round(block_tokens * factor)))


def blocks_within_prompt(columns: Columns, block_tokens: int) -> Columns:
    """Prefix blocks cut to what the (possibly shortened) prompt covers; the last one may be covered in part."""
    if columns.prefix_blocks is None:
        return columns
    counts = block_counts(columns.prefix_blocks)
    room = -(-columns.prompt_tokens // block_tokens)
    if (counts <= room).all():
        return columns
    ids = columns.prefix_blocks.flatten().to_numpy()
    cut_counts = np.minimum(counts, room)
    cut_ids = ids[places_within(counts) < np.repeat(cut_counts, counts)]
    return columns.with_(prefix_blocks=blocks_of(cut_counts, cut_ids))
