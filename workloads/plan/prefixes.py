"""The prefix blocks of drawn requests: system prompt, shared context, passages, a conversation's history.

A prompt is a list of blocks of `block_tokens` tokens, followed by content of its own. Two prompts share a prefix as far
as their lists begin alike; equal ids mean equal content (`workloads.prompts.prompts`). Ids are hashes of what they
stand for, so that a block is the same in every injector but differs between seeds.
"""

import itertools
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tailgate.workloads.common.arrays import Ints
from tailgate.workloads.config.classes import PrefixSpec
from tailgate.workloads.plan.request_classes import RequestClass
from tailgate.workloads.plan.requests import zipf_place
from tailgate.workloads.sampling.distribution_grammar import parse
from tailgate.workloads.sampling.random_streams import RandomField
from tailgate.workloads.table.columns import Columns, blocks_of, first_turns, places_within

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
    sharing = [request_class for request_class in classes if request_class.has_blocks]
    if not sharing:
        return None
    counts = np.zeros(len(columns), np.int64)
    pieces: list[tuple[Ints, Ints, Words]] = []
    for (group_code, group), request_class in itertools.product(enumerate(groups), sharing):
        class_rows = np.flatnonzero((columns.class_code == request_class.code) & (columns.group_code == group_code))
        for rows in _whole_sessions(columns, class_rows):
            row_counts, ids = _of_class(request_class, group, seed, columns.take(rows), block_tokens, factor)
            counts[rows] = row_counts
            pieces.append((rows, row_counts, ids))
    offsets = np.cumsum(counts) - counts
    values = np.zeros(int(counts.sum()), np.uint64)
    for rows, row_counts, ids in pieces:
        if len(ids):
            values[np.repeat(offsets[rows], row_counts) + places_within(row_counts)] = ids
    return blocks_of(counts, values)


def _whole_sessions(columns: Columns, rows: Ints) -> list[Ints]:
    """The rows in pieces of about 32,768 that don't cut a session, which bounds the memory needed."""
    begins = np.flatnonzero(columns.turn[rows] == 0)
    cuts = begins[
        np.unique(np.searchsorted(begins, np.arange(_AT_ONCE, len(rows), _AT_ONCE)).clip(max=len(begins) - 1))
    ]
    return [piece for piece in np.split(rows, cuts) if len(piece)]


def _of_class(
    request_class: RequestClass, group: str, seed: int, columns: Columns, block_tokens: int, factor: float
) -> tuple[Ints, Words]:
    name, prefix = request_class.name, request_class.prefix or PrefixSpec()
    covered = -(-columns.prompt_tokens // block_tokens)
    system, context, passages = (np.zeros(len(columns), np.int64) for _ in range(3))
    context_id, passage_blocks = np.zeros(len(columns), np.int64), 1
    if prefix.system_tokens:
        system += max(1, round(prefix.system_tokens * factor / block_tokens))
    if prefix.shared is not None:
        shared = prefix.shared
        u = RandomField(seed, "context", group, name).uniform(columns.ordinal)
        # Which context is chosen doesn't depend on the group: an aggressor reads the same documents.
        context_id = zipf_place(shared.pool, shared.popularity)(u)
        if shared.tokens is not None:
            # A context has one size, whoever reads it.
            u = RandomField(seed, "context size", name).uniform(context_id)
            tokens = parse(shared.tokens).quantile(u) * factor
        else:
            u = RandomField(seed, "context size", group, name).uniform(columns.ordinal)
            first_prompt = columns.prompt_tokens[first_turns(columns.turn)]
            tokens = np.clip(parse(shared.share or 0).quantile(u), 0.0, 1.0) * first_prompt
        context = np.floor(tokens / block_tokens).astype(np.int64)
    if prefix.passages is not None:
        passage_blocks = max(1, round(prefix.passages.tokens * factor / block_tokens))
        u = RandomField(seed, "passages", group, name).uniform(columns.ordinal, columns.turn)
        number = np.maximum(np.rint(parse(prefix.passages.count).quantile(u)), 0).astype(np.int64)
        passages = number * passage_blocks
    counts = np.minimum(system + context + passages, covered)
    if request_class.sessions is not None and request_class.sessions.resend:
        counts = np.minimum(np.maximum(counts, _history(columns, covered)), covered)

    row, place = np.repeat(np.arange(len(columns)), counts), places_within(counts)
    own = RandomField(seed, "own blocks", group, name)
    ids = own.u64(columns.ordinal[row] * 65536 + columns.chapter[row], place)
    ends = np.cumsum(np.stack([system, context, passages]), axis=0)
    in_system = place < ends[0][row]
    ids[in_system] = RandomField(seed, "system blocks", name).u64(place[in_system])
    in_context = ~in_system & (place < ends[1][row])
    at = row[in_context]
    ids[in_context] = RandomField(seed, "context blocks", name).u64(context_id[at], place[in_context] - ends[0][at])
    in_passages = (place >= ends[1][row]) & (place < ends[2][row])
    if prefix.passages is not None and in_passages.any():
        at = row[in_passages]
        slot, part = np.divmod(place[in_passages] - ends[1][at], passage_blocks)
        u = RandomField(seed, "passage", group, name).uniform(columns.ordinal[at] * 65536 + columns.turn[at], slot)
        chosen = zipf_place(prefix.passages.pool, prefix.passages.popularity)(u)
        ids[in_passages] = RandomField(seed, "passage blocks", name).u64(chosen, part)
    return counts, ids


def _history(columns: Columns, covered: Ints) -> Ints:
    """How many blocks of each prompt a later turn repeats; what the last turn adds comes from its content seed."""
    n = len(columns)
    same_as_next = np.zeros(n, bool)
    same_as_next[:-1] = (columns.session[1:] == columns.session[:-1]) & (columns.turn[1:] > columns.turn[:-1])
    before = np.concatenate([[0], covered[:-1]])
    follows = np.concatenate([[False], same_as_next[:-1]])
    return np.where(same_as_next, covered, np.where(follows, before, 0))
