"""The prefix blocks of drawn requests: system prompt, shared context, passages, a conversation's history.

A prompt is a list of blocks of `block_tokens` tokens and a rest of its own. Two prompts share a prefix as far
as their lists begin alike; equal ids are equal content (`workloads.prompts.prompts`). Ids are hashes of what they
stand for, so that a block is the same in every injector, and in no other seed.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tailgate.workloads.common.arrays import Ints
from tailgate.workloads.plan.request_classes import RequestClass
from tailgate.workloads.plan.requests import zipf_place
from tailgate.workloads.sampling.distribution_grammar import parse
from tailgate.workloads.sampling.random_streams import RandomField
from tailgate.workloads.table.columns import Columns, blocks_of

Words = npt.NDArray[np.uint64]

_AT_ONCE: Final = 1 << 15


def block_lists(
    classes: tuple[RequestClass, ...],
    groups: tuple[str, ...],
    seed: int,
    columns: Columns,
    block_tokens: int,
    factor: float,
) -> pa.ListArray | None:
    """The block ids of each request; None where no class shares anything.

    `factor` is what lengths were scaled by: the shared parts are scaled alike.
    """
    if not any(request_class.has_blocks for request_class in classes):
        return None
    counts = np.zeros(len(columns), np.int64)
    pieces: list[tuple[Ints, Ints, Words]] = []
    for group_code, group in enumerate(groups):
        for request_class in classes:
            if not request_class.has_blocks:
                continue
            all_rows = np.flatnonzero((columns.class_code == request_class.code) & (columns.group_code == group_code))
            for rows in _whole_sessions(columns, all_rows):
                class_counts, ids = _of_class(request_class, group, seed, columns.take(rows), block_tokens, factor)
                counts[rows] = class_counts
                pieces.append((rows, class_counts, ids))
    offsets = np.cumsum(counts) - counts
    values = np.zeros(int(counts.sum()), np.uint64)
    for rows, class_counts, ids in pieces:
        if len(ids):
            values[np.repeat(offsets[rows], class_counts) + _within(class_counts)] = ids
    return blocks_of(counts, values)


def _whole_sessions(columns: Columns, rows: Ints) -> list[Ints]:
    """The rows in pieces of about 32,768 that don't cut a session: bounds the memory of what is computed of them."""
    begins = np.flatnonzero(columns.turn[rows] == 0)
    cuts = begins[
        np.unique(np.searchsorted(begins, np.arange(_AT_ONCE, len(rows), _AT_ONCE)).clip(max=len(begins) - 1))
    ]
    return [piece for piece in np.split(rows, cuts) if len(piece)]


def _of_class(
    request_class: RequestClass, group: str, seed: int, columns: Columns, block_tokens: int, factor: float
) -> tuple[Ints, Words]:
    """Counts and flat ids for the requests of one class and group."""
    covered = -(-columns.prompt_tokens // block_tokens)
    first_prompt = _first_prompts(columns)
    system, context, passages = (np.zeros(len(columns), np.int64) for _ in range(3))
    context_id, passage_blocks = np.zeros(len(columns), np.int64), 1
    prefix = request_class.prefix
    if prefix is not None and prefix.system_tokens:
        system += max(1, round(prefix.system_tokens * factor / block_tokens))
    if prefix is not None and prefix.shared is not None:
        shared = prefix.shared
        u = RandomField(seed, "context", group, request_class.name).uniform(columns.ordinal)
        # Which context is chosen doesn't depend on the group: an aggressor reads the same documents.
        context_id = zipf_place(shared.pool, shared.popularity)(u)
        u = RandomField(seed, "context size", group, request_class.name).uniform(columns.ordinal)
        if shared.tokens is not None:
            # A context has one size, whoever reads it.
            u = RandomField(seed, "context size", request_class.name).uniform(context_id)
            tokens = parse(shared.tokens).quantile(u) * factor
        else:
            tokens = np.clip(parse(shared.share or 0).quantile(u), 0.0, 1.0) * first_prompt
        context = np.floor(tokens / block_tokens).astype(np.int64)
    if prefix is not None and prefix.passages is not None:
        passage_blocks = max(1, round(prefix.passages.tokens * factor / block_tokens))
        u = RandomField(seed, "passages", group, request_class.name).uniform(columns.ordinal, columns.turn)
        number = np.maximum(np.rint(parse(prefix.passages.count).quantile(u)), 0).astype(np.int64)
        passages = number * passage_blocks
    shared_counts = system + context + passages
    counts = np.minimum(shared_counts, covered)
    if request_class.sessions is not None and request_class.sessions.resend:
        counts = np.maximum(counts, _history(columns, covered))
    counts = np.minimum(counts, covered)

    row = np.repeat(np.arange(len(columns)), counts)
    place = _within(counts)
    ids = RandomField(seed, "own blocks", group, request_class.name).u64(
        columns.ordinal[row] * 65536 + columns.chapter[row], place
    )
    ends = np.cumsum(np.stack([system, context, passages]), axis=0)
    in_system = place < ends[0][row]
    ids[in_system] = RandomField(seed, "system blocks", request_class.name).u64(place[in_system])
    in_context = ~in_system & (place < ends[1][row])
    at = row[in_context]
    ids[in_context] = RandomField(seed, "context blocks", request_class.name).u64(
        context_id[at], place[in_context] - ends[0][at]
    )
    in_passages = (place >= ends[1][row]) & (place < ends[2][row])
    if prefix is not None and prefix.passages is not None and in_passages.any():
        at, inside = row[in_passages], place[in_passages] - ends[1][row[in_passages]]
        slot, part = np.divmod(inside, passage_blocks)
        u = RandomField(seed, "passage", group, request_class.name).uniform(
            columns.ordinal[at] * 65536 + columns.turn[at], slot
        )
        chosen = zipf_place(prefix.passages.pool, prefix.passages.popularity)(u)
        ids[in_passages] = RandomField(seed, "passage blocks", request_class.name).u64(chosen, part)
    return counts, ids


def _history(columns: Columns, covered: Ints) -> Ints:
    """Blocks that a conversation needs named: all of a prompt that a later turn repeats.

    The last turn's own addition is repeated by nobody and comes from its content seed.
    """
    n = len(columns)
    same_as_next = np.zeros(n, bool)
    same_as_next[:-1] = (columns.session[1:] == columns.session[:-1]) & (columns.turn[1:] > columns.turn[:-1])
    before = np.concatenate([[0], covered[:-1]])
    follows = np.concatenate([[False], same_as_next[:-1]])
    return np.where(same_as_next, covered, np.where(follows, before, 0))


def _first_prompts(columns: Columns) -> Ints:
    """The prompt length of each row's session's first turn (rows are session by session)."""
    first = np.maximum.accumulate(np.where(columns.turn == 0, np.arange(len(columns)), 0))
    lengths: Ints = columns.prompt_tokens[first]
    return lengths


def _within(counts: Ints) -> Ints:
    """0, 1, ... within each group of the given sizes."""
    total = int(counts.sum())
    return np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
